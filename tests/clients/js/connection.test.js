// A connection from upgrade to close: handshake, pings, the frame envelope.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { eventually } from './support/inbox.js';
import { subscribe } from './support/events.js';
import { TestServer } from './support/server.js';
import { openWire, wireOf } from './support/wire.js';

const server = await TestServer.start({ apps: { main: {}, brisk: { activity_timeout: '1s' } } });
after(() => server.stop());
const { main, brisk } = server.apps;

test('golden rule 1: connection_established is the first frame and names the socket', async (t) => {
  const alice = await main.connect(t);
  const [first] = wireOf(alice).frames.all;
  assert.deepEqual(Object.keys(first).sort(), ['data', 'event', 'text']);
  assert.equal(first.event, 'pusher:connection_established');
  assert.equal(typeof first.data, 'string');
  const { socket_id: socketId, ...rest } = JSON.parse(first.data);
  assert.match(socketId, /^\d+\.\d+$/);
  assert.deepEqual(rest, { activity_timeout: 120 });
  assert.equal(alice.connection.socket_id, socketId);
});

test('golden rule 2: every frame but pusher:error has string data', async (t) => {
  const alice = await main.connect(t, { user: 'alice' });
  const bob = await main.connect(t, { user: 'bob' });
  alice.signin();
  await wireOf(alice).next('pusher:signin_success');
  const channel = await subscribe(alice, 'presence-cache-everything');
  const peer = await subscribe(bob, 'presence-cache-everything');
  peer.channel.trigger('client-hello', { from: 'bob' });
  bob.unsubscribe('presence-cache-everything');
  await channel.next('pusher:member_removed');
  await subscribe(alice, 'counted');
  await main.sdk.trigger('counted', 'event', { id: 7 });
  alice.send_event('pusher:unsubscribe', { channel: 'never-joined' });
  await wireOf(alice).next('pusher:error');
  await wireOf(alice).roundTrip();

  const { all } = wireOf(alice).frames;
  const kinds = [
    'client-hello', 'event',
    'pusher:cache_miss', 'pusher:connection_established', 'pusher:error', 'pusher:pong', 'pusher:signin_success',
    'pusher_internal:member_added', 'pusher_internal:member_removed',
    'pusher_internal:subscription_count', 'pusher_internal:subscription_succeeded',
  ];
  assert.deepEqual([...new Set(all.map(({ event }) => event))].sort(), kinds.sort(), 'the scenario sees every kind');
  for (const { event, data, text } of all) {
    assert.equal(typeof data, event === 'pusher:error' ? 'object' : 'string', text);
  }
});

test('each connection gets a socket id of its own', async (t) => {
  const clients = await Promise.all(Array.from({ length: 20 }, () => main.connect(t)));
  const ids = new Set(clients.map(({ connection }) => connection.socket_id));
  assert.equal(ids.size, 20);
});

test('an app can have its own activity timeout', async (t) => {
  const wire = openWire(t, brisk.url());
  const { data } = await wire.next('pusher:connection_established');
  assert.equal(JSON.parse(data).activity_timeout, 1);
});

for (const [client, ping] of [
  ['pusher-js', { event: 'pusher:ping', data: {} }],
  ['pysher', { event: 'pusher:ping', data: '' }],
  ['a client without data', { event: 'pusher:ping' }],
]) {
  test(`pusher:ping of ${client} is answered with pusher:pong`, async (t) => {
    const wire = openWire(t, main.url());
    await wire.next('pusher:connection_established');
    wire.send(ping);
    const { text } = await wire.next('pusher:pong');
    assert.deepEqual(JSON.parse(text), { event: 'pusher:pong', data: '{}' });
  });
}

test('pusher-js keeps an idle connection alive with its own pings', async (t) => {
  const alice = await brisk.connect(t);
  const socketId = alice.connection.socket_id;
  await wireOf(alice).next('pusher:pong');
  await wireOf(alice).next('pusher:pong');
  assert.equal(alice.connection.state, 'connected');
  assert.equal(alice.connection.socket_id, socketId);
});

test('the server pings a connection that has gone silent', async (t) => {
  const wire = openWire(t, brisk.url());
  const { text } = await wire.next('pusher:ping');
  assert.deepEqual(JSON.parse(text), { event: 'pusher:ping', data: '{}' });
});

test('a subscription whose data is a JSON string is understood', async (t) => {
  const wire = openWire(t, main.url());
  wire.send({ event: 'pusher:subscribe', data: JSON.stringify({ channel: 'stringly' }) });
  const { text } = await wire.next('pusher_internal:subscription_succeeded');
  assert.deepEqual(JSON.parse(text), { event: 'pusher_internal:subscription_succeeded', channel: 'stringly', data: '{}' });
});

test('a closed connection leaves its channels', async (t) => {
  const alice = await main.connect(t);
  await subscribe(alice, 'left-behind');
  alice.disconnect();
  await eventually(async () => !(await main.get('/channels/left-behind')).occupied, 'the channel is vacated');
});

test('everything is served below a configured path prefix', async (t) => {
  const prefixed = await TestServer.start({ server: { path_prefix: '/realtime' } });
  t.after(() => prefixed.stop());
  const app = prefixed.apps.main;
  const alice = await app.connect(t, { wsPath: '/realtime' });
  const orders = await subscribe(alice, 'orders');
  const body = JSON.stringify({ name: 'created', channel: 'orders', data: '7' });
  // PHP signs the path without the prefix; Reverb's users sign what they call.
  for (const signedPath of [`/apps/${app.id}/events`, `/realtime/apps/${app.id}/events`]) {
    const query = app.sdk.createSignedQueryString({ method: 'POST', path: signedPath, body });
    const response = await fetch(`${prefixed.url}/realtime/apps/${app.id}/events?${query}`, { method: 'POST', body });
    assert.equal(response.status, 200, await response.text());
    assert.equal(await orders.next('created'), 7);
  }
});
