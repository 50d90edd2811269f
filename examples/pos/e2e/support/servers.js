// Fanfare and the point of sale as processes of their own, on free ports and with an empty database.

import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { within } from '../../../../tests/clients/js/support/inbox.js';

const binary = (name) => {
  const target = process.env.CARGO_TARGET_DIR ?? fileURLToPath(new URL('../../../../target', import.meta.url));
  const path = join(target, process.env.POS_PROFILE ?? 'debug', name);
  if (!existsSync(path)) throw new Error(`no ${path}: run "cargo build -p fanfare-server -p fanfare-pos"`);
  return path;
};

/** A process that says where it listens. */
class Server {
  constructor(name, args, listening) {
    Object.assign(this, { name, args, listening, log: '' });
  }

  async start(env, directory) {
    this.process = spawn(binary(this.name), this.args(this.port ?? 0), {
      cwd: directory, env, stdio: ['ignore', 'ignore', 'pipe'],
    });
    // A failed test run must not leave servers behind.
    const kill = () => this.process.kill('SIGKILL');
    process.once('exit', kill);
    this.exited = new Promise((resolve) => {
      this.process.once('exit', () => {
        process.removeListener('exit', kill);
        resolve();
      });
    });
    const start = this.log.length;
    const port = new Promise((resolve, reject) => {
      this.process.stderr.setEncoding('utf8').on('data', (text) => {
        this.log += text;
        const match = this.log.slice(start).match(this.listening);
        if (match) resolve(Number(match[1]));
      });
      this.exited.then(() => reject(new Error(`${this.name} ended at its start\n${this.log}`)));
    });
    this.port = await within(port, () => `${this.name} to listen\n${this.log}`, 20_000);
  }

  async stop() {
    this.process.kill('SIGTERM');
    await within(this.exited, () => `${this.name} to end\n${this.log}`, 20_000);
  }
}

/** The shop with everything it needs. */
export class Shop {
  static async start() {
    const shop = new Shop();
    shop.directory = await mkdtemp(join(tmpdir(), 'fanfare-pos-'));
    shop.fanfare = new Server('fanfare', (port) => ['serve', '--port', String(port)], /listening on http:\/\/[^\s:]+:(\d+)/);
    await shop.startFanfare();
    shop.backEnd = new Server('fanfare-pos', () => [], /point of sale is at http:\/\/[^\s:]+:(\d+)/);
    await shop.backEnd.start(
      {
        POS_PORT: '0',
        POS_DATABASE: join(shop.directory, 'pos.sqlite'),
        PUSHER_APP_ID: 'app-id',
        PUSHER_APP_KEY: 'app-key',
        PUSHER_APP_SECRET: 'app-secret',
        PUSHER_HOST: '127.0.0.1',
        PUSHER_PORT: String(shop.fanfare.port),
        PUSHER_SCHEME: 'http',
        ...(process.env.POS_WEB && { POS_WEB: process.env.POS_WEB }),
      },
      shop.directory,
    );
    shop.url = `http://127.0.0.1:${shop.backEnd.port}`;
    return shop;
  }

  /** Also after `fanfare.stop()`, on the same port. */
  async startFanfare() {
    await this.fanfare.start({ FANFARE__SERVER__SHUTDOWN_GRACE: '200ms', FANFARE__SERVER__WORKERS: '2' }, this.directory);
  }

  async stop() {
    await this.backEnd.stop();
    if (this.fanfare.process.exitCode === null) await this.fanfare.stop();
    await rm(this.directory, { recursive: true });
  }
}
