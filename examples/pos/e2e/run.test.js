// The one command: it starts everything, says where, and leaves nothing behind.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { within } from '../../../tests/clients/js/support/inbox.js';

const SCRIPT = fileURLToPath(new URL('../run', import.meta.url));
/** Cargo may have to wait for another one. */
const BUILD_MS = 300_000;

/** Starts the script on ports that nobody has; resolves when it has said where everything is. */
async function start(t) {
  const directory = await mkdtemp(join(tmpdir(), 'fanfare-pos-run-'));
  const script = spawn('bash', [SCRIPT], {
    env: { ...process.env, POS_PROFILE: 'dev', POS_DATABASE: join(directory, 'pos.sqlite') },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  const exited = new Promise((resolve) => script.once('exit', (code) => resolve(code)));
  t.after(async () => {
    script.kill('SIGTERM');
    await exited;
    await rm(directory, { recursive: true });
  });
  const addresses = new Promise((resolve, reject) => {
    for (const stream of [script.stdout, script.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => {
        output += text;
        const found = output.match(/Point of sale +(http:\S+)\s+Broadcasts +Fanfare at (http:\S+)[^]*Ctrl-C/);
        if (found) resolve(found.slice(1));
      });
    }
    exited.then((code) => reject(new Error(`ended with ${code}\n${output}`)));
  });
  const [shop, fanfare] = await within(addresses, () => `the addresses\n${output}`, BUILD_MS);
  return { script, exited, shop, fanfare, output: () => output };
}

const answers = (url) => fetch(url).then((response) => response.status, () => 'nobody listens');

test('run starts Fanfare and the point of sale, and Ctrl-C ends both', async (t) => {
  const { script, exited, shop, fanfare } = await start(t);
  assert.equal(await answers(`${shop}/login`), 200);
  assert.equal(await answers(`${fanfare}/up`), 200);
  script.kill('SIGINT');
  assert.equal(await within(exited, () => 'the script to end', 20_000), 130);
  assert.equal(await answers(`${shop}/login`), 'nobody listens');
  assert.equal(await answers(`${fanfare}/up`), 'nobody listens');
});

test('when one of the servers ends, run ends the other one and says so', async (t) => {
  const { script, exited, shop, output } = await start(t);
  const children = readFileSync(`/proc/${script.pid}/task/${script.pid}/children`, 'utf8').trim().split(' ');
  const fanfare = children.find((pid) => readFileSync(`/proc/${pid}/comm`, 'utf8') === 'fanfare\n');
  process.kill(Number(fanfare), 'SIGTERM');
  assert.equal(await within(exited, () => 'the script to end', 20_000), 1);
  assert.match(output(), /one of the servers ended/);
  assert.equal(await answers(`${shop}/login`), 'nobody listens');
});
