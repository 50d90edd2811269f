// Starts the real binary with a configuration of its own and stops it by pid.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { App, credentials } from './app.js';
import { within } from './inbox.js';

const BINARY = process.env.FANFARE_BIN ?? fileURLToPath(new URL('../../../../target/debug/fanfare', import.meta.url));

/** Whether several nodes stand behind the address: see ../../cluster.mjs. What is each node's own then says docs/scaling.md. */
export const CLUSTER = Boolean(process.env.FANFARE_NODE);

/**
 * A running server.
 *
 * `apps` maps a name to that app's settings (plus `users`, see the auth endpoint); other keys are sections of the
 * configuration file. Two workers, so that delivery across workers is what every test exercises.
 */
export class TestServer {
  static async start({ apps = { main: {} }, server = {}, ...sections } = {}) {
    assert.ok(existsSync(BINARY), `no server binary at ${BINARY}: run "cargo build" or set FANFARE_BIN`);
    const self = new TestServer();
    const config = {
      server: { host: '127.0.0.1', workers: 2, shutdown_grace: '200ms', ...server },
      ...sections,
      apps: Object.entries(apps).map(([name, { users, ...settings }]) => ({ ...credentials(name), ...settings })),
    };
    self.directory = await mkdtemp(join(tmpdir(), 'fanfare-js-'));
    self.configFile = join(self.directory, 'fanfare.toml');
    await writeFile(self.configFile, toml(config));
    await self.#spawn(0);
    self.apps = {};
    for (const [name, { users }] of Object.entries(apps)) self.apps[name] = await App.start(name, self.port, users);
    return self;
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  /** Graceful shutdown; every stop checks that it was one. Resolves to the time it took, in milliseconds. */
  async terminate() {
    const begin = Date.now();
    this.process.kill('SIGTERM');
    const { code, signal } = await within(this.exited, () => `exit after SIGTERM\n${this.log}`, 15_000);
    assert.deepEqual({ code, signal }, { code: 0, signal: null }, this.log);
    assert.doesNotMatch(this.log, /panicked/);
    return Date.now() - begin;
  }

  /** Starts again after `terminate`, on the same port. */
  async startAgain() {
    await this.#spawn(this.port);
  }

  async stop() {
    try {
      await this.terminate();
    } finally {
      await this.release();
    }
  }

  /** Everything but the process; for a test that ends it in another way. */
  async release() {
    for (const app of Object.values(this.apps)) app.stop();
    await rm(this.directory, { recursive: true });
  }

  async #spawn(port) {
    this.log = '';
    this.process = spawn(BINARY, ['serve', '--config', this.configFile, '--port', String(port)], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    // A failed test run must not leave servers behind.
    const kill = () => this.process.kill('SIGKILL');
    process.once('exit', kill);
    this.exited = new Promise((resolve) => {
      this.process.once('exit', (code, signal) => {
        process.removeListener('exit', kill);
        resolve({ code, signal });
      });
    });
    const listening = new Promise((resolve, reject) => {
      this.process.stderr.setEncoding('utf8').on('data', (text) => {
        this.log += text;
        const match = this.log.match(/listening on https?:\/\/[^\s:]+:(\d+)/);
        if (match) resolve(Number(match[1]));
      });
      this.exited.then(({ code }) => reject(new Error(`server exited with ${code} at start\n${this.log}`)));
    });
    this.port = await within(listening, () => `"listening on" line\n${this.log}`, 10_000);
  }
}

/** Inline tables all the way down: not pretty, but every TOML reader takes them, and JSON strings are TOML strings. */
function toml(value, depth = 0) {
  if (Array.isArray(value)) return `[${value.map((item) => toml(item, depth + 1)).join(', ')}]`;
  if (typeof value !== 'object') return JSON.stringify(value);
  const given = Object.entries(value).filter(([, item]) => item !== undefined);
  const pairs = given.map(([key, item]) => `${JSON.stringify(key)} = ${toml(item, depth + 1)}`);
  return depth === 0 ? pairs.join('\n') : `{ ${pairs.join(', ')} }`;
}
