// A deploy: the server stops gracefully, clients come back to its successor by themselves.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { events, subscribe } from './support/events.js';
import { eventually, within } from './support/inbox.js';
import { loadBalancer } from './support/load_balancer.js';
import { TestServer } from './support/server.js';
import { openWire, wireOf } from './support/wire.js';

test('SIGTERM closes with 4200, and pusher-js returns to the restarted server with its channels', async (t) => {
  const server = await TestServer.start();
  t.after(() => server.stop());
  const { main } = server.apps;
  const alice = await main.connect(t, { user: 'alice', wsPort: await loadBalancer(t, server.port) });
  const orders = await subscribe(alice, 'private-orders');
  const room = await subscribe(alice, 'presence-room');
  const [wire, socketId] = [wireOf(alice), alice.connection.socket_id];
  const connection = events(alice.connection, 'connection');

  await server.terminate();
  assert.deepEqual(await wire.closed(), { code: 4200, reason: 'Generic reconnect immediately' });
  await server.startAgain();

  await connection.next('connected');
  assert.notEqual(alice.connection.socket_id, socketId);
  await orders.next('pusher:subscription_succeeded');
  await room.next('pusher:subscription_succeeded');
  await main.sdk.trigger('private-orders', 'order-created', { id: 7 });
  assert.deepEqual(await orders.next('order-created'), { id: 7 });
});

test('while it drains, /up says 503, new connections are refused, and the rest is closed within the grace period', async (t) => {
  const server = await TestServer.start({ server: { shutdown_grace: '2s' } });
  const { main } = server.apps;
  const wires = Array.from({ length: 20 }, () => openWire(t, main.url()));
  await Promise.all(wires.map((wire) => wire.next('pusher:connection_established')));
  assert.deepEqual(await (await fetch(`${server.url}/up`)).json(), { health: 'OK' });

  const stopped = server.stop();
  await eventually(async () => (await fetch(`${server.url}/up`)).status === 503, '/up answers 503', 1500);
  const late = openWire(t, main.url());
  late.socket.on('error', () => {});
  for (const wire of wires) assert.equal((await wire.closed()).code, 4200);
  await late.closed();
  assert.deepEqual(late.frames.seen('pusher:connection_established'), []);
  await stopped;
});

test('a second signal ends a long drain at once', async (t) => {
  const server = await TestServer.start({ server: { shutdown_grace: '60s' } });
  t.after(() => server.release());
  const wires = Array.from({ length: 20 }, () => openWire(t, server.apps.main.url()));
  await Promise.all(wires.map((wire) => wire.next('pusher:connection_established')));
  server.process.kill('SIGTERM');
  await eventually(async () => (await fetch(`${server.url}/up`)).status === 503, '/up answers 503', 1500);
  server.process.kill('SIGTERM');
  await within(server.exited, () => `exit after a second SIGTERM\n${server.log}`);
});
