// Debian's nginx in front of the server, with a configuration of its own.

import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { eventually } from '../../js/support/inbox.js';

const DOCUMENTED = new URL('../../../../docs/transports.md', import.meta.url);

/**
 * The settings that docs/transports.md shows, for this port and server, or for several nodes. Only what a test machine lacks is taken
 * out: the certificate.
 */
export async function documentedSettings(port, ...serverPorts) {
  const blocks = [...(await readFile(DOCUMENTED, 'utf8')).matchAll(/```nginx\n([\s\S]*?)```/g)].map(([, text]) => text);
  const text = replaceAll(blocks[0], [
    [/listen 443 ssl;/, `listen 127.0.0.1:${port};`],
    [/ *ssl_certificate.*\n/g, ''],
    [/server 127\.0\.0\.1:6001;/, `server 127.0.0.1:${serverPorts[0]};`],
  ]);
  if (serverPorts.length === 1) return text;
  const servers = serverPorts.map((serverPort) => `    server 127.0.0.1:${serverPort};\n`).join('');
  return replaceAll(text, [[/upstream fanfare \{[\s\S]*?\n\}\n/, replaceAll(blocks[1], [[/( *server 10\..*\n)+/, servers]])]]);
}

/** Replaces each pattern, all of which have to be there. */
export function replaceAll(text, replacements) {
  return replacements.reduce((text, [pattern, by]) => {
    if (text.search(pattern) === -1) throw new Error(`no ${pattern} in\n${text}`);
    return text.replace(pattern, by);
  }, text);
}

/** Runs nginx with these settings of its `http` block until the test ends. */
export async function startNginx(t, port, settings) {
  const directory = await mkdtemp(join(tmpdir(), 'fanfare-nginx-'));
  const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${directory}/${name};`);
  await writeFile(
    join(directory, 'nginx.conf'),
    `daemon off; master_process off; pid ${directory}/pid; error_log stderr;
     events {}
     http { access_log ${directory}/access.log; ${paths.join(' ')}\n${settings} }`,
  );
  const nginx = spawn('nginx', ['-p', directory, '-e', 'stderr', '-c', join(directory, 'nginx.conf')], {
    stdio: ['ignore', 'ignore', 'pipe'],
    // Debian has it where users have no programs.
    env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` },
  });
  let log = '';
  nginx.stderr.setEncoding('utf8').on('data', (text) => (log += text));
  const kill = () => nginx.kill('SIGKILL');
  process.once('exit', kill);
  const exited = new Promise((resolve) => nginx.once('exit', resolve).once('error', resolve));
  t.after(async () => {
    nginx.kill('SIGTERM');
    await exited;
    process.removeListener('exit', kill);
    await rm(directory, { recursive: true });
  });
  const accepts = () =>
    new Promise((resolve) => {
      const socket = connect(port, '127.0.0.1', () => resolve(true)).on('error', () => resolve(false));
      socket.unref().on('connect', () => socket.destroy());
    });
  await eventually(accepts, 'nginx listens').catch((error) => {
    throw new Error(`${error.message}\n${log}`);
  });
  return { log: () => readFile(join(directory, 'access.log'), 'utf8') };
}
