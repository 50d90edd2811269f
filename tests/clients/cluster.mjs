#!/usr/bin/env node
// Stands in for the server's binary in the client suites: starts a Redis and three nodes with the same arguments, and spreads
// connections over the nodes in turn. What a client then sees has to be what it sees of one node.
//
//   FANFARE_BIN=tests/clients/cluster.mjs FANFARE_NODE=target/debug/fanfare npm test
//
// SIGUSR2 replaces the nodes, one after the other, as a rolling deploy does.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { freePort } from './ports.mjs';

const NODES = 3;
const children = [];

/** Resolves as soon as something listens there. */
async function listens(port) {
  for (let socket; ; await new Promise((resolve) => setTimeout(resolve, 10))) {
    socket = connect(port, '127.0.0.1');
    const up = await Promise.race([once(socket, 'connect').then(() => true), once(socket, 'error').then(() => false)]).catch(() => false);
    socket.destroy();
    if (up) return;
  }
}

/** Starts a node; resolves to its process when it shares events with the others. */
function startNode(args, redisPort) {
  const env = { ...process.env, FANFARE__BROKER__DRIVER: 'redis', FANFARE__BROKER__URL: `redis://127.0.0.1:${redisPort}` };
  const node = spawn(process.env.FANFARE_NODE, args, { env, stdio: ['ignore', 'ignore', 'pipe'] });
  children.push(node);
  node.exited = once(node, 'exit');
  let log = '';
  return new Promise((resolve, reject) => {
    node.stderr.setEncoding('utf8').on('data', (text) => {
      log += text;
      // Whoever started this waits for our own line, not for a node's.
      process.stderr.write(text.replaceAll('listening on', 'a node listens on'));
      const port = log.match(/listening on https?:\/\/[^\s:]+:(\d+)/)?.[1];
      node.port ??= Number(port) || undefined;
      if (node.port && log.includes('receiving events') && log.includes('publishing through')) resolve(node);
    });
    node.exited.then(([code]) => reject(Object.assign(new Error(`a node exited with ${code}`), { code })));
  });
}

function end(code) {
  for (const child of children) child.kill('SIGKILL');
  process.exit(code);
}
process.once('exit', () => children.forEach((child) => child.kill('SIGKILL')));

const args = process.argv.slice(2);
const place = args.indexOf('--port') + 1;
const port = Number(args[place]);
args[place] = '0';

const directory = await mkdtemp(join(tmpdir(), 'fanfare-redis-'));
const redisPort = await freePort();
const redis = spawn('redis-server', ['--port', redisPort, '--bind', '127.0.0.1', '--save', '', '--dir', directory], { stdio: 'ignore' });
children.push(redis);
await listens(redisPort);
let nodes = await Promise.all(Array.from({ length: NODES }, () => startNode(args, redisPort))).catch((error) => end(error.code ?? 1));

let turn = 0;
const balancer = createServer({ allowHalfOpen: true, noDelay: true }, (near) => {
  const far = connect({ port: nodes[turn++ % nodes.length].port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true });
  near.pipe(far).pipe(near);
  // What ends one side without a word ends the other so, too.
  near.on('error', () => far.resetAndDestroy()).on('close', () => far.destroySoon());
  far.on('error', () => near.resetAndDestroy()).on('close', () => near.destroySoon());
});
balancer.listen(port, '127.0.0.1', () => process.stderr.write(`listening on http://127.0.0.1:${balancer.address().port} nodes=${NODES}\n`));

process.on('SIGUSR2', async () => {
  for (const old of nodes) {
    // It gets nobody new before it sends its clients away.
    nodes = nodes.filter((node) => node !== old);
    old.kill('SIGTERM');
    const [code] = await old.exited;
    if (code !== 0) end(code ?? 1);
    nodes = [...nodes, await startNode(args, redisPort)];
  }
  process.stderr.write('all nodes were replaced\n');
});

const stopped = ['SIGTERM', 'SIGINT'].map(async (signal) => {
  await once(process, signal);
  nodes.forEach((node) => node.kill(signal));
  process.on(signal, () => nodes.forEach((node) => node.kill(signal)));
});
await Promise.race(stopped);
const codes = await Promise.all(nodes.map((node) => node.exited));
await rm(directory, { recursive: true, force: true });
end(Math.max(...codes.map(([code]) => code ?? 1)));
