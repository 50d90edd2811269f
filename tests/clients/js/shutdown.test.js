// A deploy: the server stops gracefully, clients come back to its successor by themselves.

import assert from 'node:assert/strict';
import { connect as connectTcp, createServer } from 'node:net';
import { test } from 'node:test';

import { events, subscribe } from './support/events.js';
import { eventually, within } from './support/inbox.js';
import { TestServer } from './support/server.js';
import { openWire, wireOf } from './support/wire.js';

/**
 * A load balancer that asks /up, and lets connections wait while its backend restarts.
 *
 * Without one the test would depend on luck: pusher-js comes back within milliseconds, and when the port is closed in
 * that instant it tries again only after its 15 s attempt timeout.
 */
async function loadBalancer(t, backendPort) {
  const open = new Set();
  const track = (socket) => {
    open.add(socket);
    return socket.on('error', () => {}).on('close', () => open.delete(socket));
  };
  const server = createServer((client) => {
    track(client);
    const dial = () => {
      const backend = track(connectTcp(backendPort, '127.0.0.1'));
      client.pipe(backend).pipe(client);
      backend.on('close', () => client.destroy());
    };
    const isUp = () => fetch(`http://127.0.0.1:${backendPort}/up`).then(({ ok }) => ok, () => false);
    eventually(isUp, 'the backend is up').then(dial, () => client.destroy());
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.close();
    for (const socket of open) socket.destroy();
  });
  return server.address().port;
}

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
