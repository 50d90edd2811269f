// What is in dist/ is what people get: small, and built from src/.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtemp, readFile, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

const here = (path) => fileURLToPath(new URL(`../${path}`, import.meta.url));
const LIMIT_BYTES = 1024;

for (const file of ['index.js', 'recover.js']) {
  test(`${file} is under 1 KB, compressed`, async () => {
    const bytes = gzipSync(await readFile(here(`dist/${file}`)), { level: 9 }).length;
    assert.ok(bytes < LIMIT_BYTES, `${bytes} bytes`);
  });
}

test('dist/ is what src/ builds; if not: npm run build', async (t) => {
  const built = await mkdtemp(join(tmpdir(), 'fanfare-recover-'));
  t.after(() => rm(built, { recursive: true }));
  execFileSync(process.execPath, [here('build.js'), built]);
  const files = (await readdir(built)).sort();
  assert.deepEqual((await readdir(here('dist'))).sort(), files);
  for (const file of files) {
    assert.equal(await readFile(here(`dist/${file}`), 'utf8'), await readFile(join(built, file), 'utf8'), file);
  }
});

test('the types fit pusher-js and Echo', () => {
  const options = ['--noEmit', '--strict', '--skipLibCheck', '--module', 'esnext', '--moduleResolution', 'bundler', '--target', 'es2020'];
  const tsc = here('node_modules/typescript/bin/tsc');
  try {
    execFileSync(process.execPath, [tsc, '--ignoreConfig', ...options, here('test/page.ts')], { cwd: here('.') });
  } catch (error) {
    assert.fail(`${error.stdout}`);
  }
});

test('nothing comes along', async () => {
  const { dependencies, peerDependencies } = JSON.parse(await readFile(here('package.json'), 'utf8'));
  assert.deepEqual([dependencies, peerDependencies], [undefined, undefined]);
});
