// What the server refuses, and that it says so in the way pusher-js understands.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { after, test } from 'node:test';

import { JSDOM } from 'jsdom';

import { events, nextEvent, subscribe } from './support/events.js';
import { eventually } from './support/inbox.js';
import { CLUSTER, TestServer } from './support/server.js';
import { openWire, wireOf, wiresTo } from './support/wire.js';

const server = await TestServer.start({
  apps: {
    main: {},
    crowded: { max_connections: 1 },
    picky: { allowed_origins: ['*.shop.test', 'till.test'] },
    closed: { enabled: false },
    gated: { authorization_timeout: '300ms' },
  },
});
after(() => server.stop());
const { main, crowded, picky, closed, gated } = server.apps;

/** Expects pusher-js to be refused: told why, closed with the same code, and not trying again. */
async function assertRefusedForGood(t, app, options, code, message) {
  const pusher = app.client(t, options);
  const seen = events(pusher.connection, 'connection');
  await seen.next('disconnected');
  const [{ data: error }] = seen.seen('error');
  assert.deepEqual(error, { type: 'WebSocketError', error: { type: 'PusherError', data: { code, message } } });
  assert.deepEqual(seen.seen('connected'), []);
  assert.ok(!pusher.connection.retryTimer, 'pusher-js does not try again');
}

/** Expects a bare socket to be upgraded, told why, and closed with the same code. */
async function assertClosed(wire, code, message) {
  const { text } = await wire.next();
  assert.deepEqual(JSON.parse(text), { event: 'pusher:error', data: { code, message } });
  assert.deepEqual(await wire.closed(), { code, reason: message });
  assert.equal(wire.frames.all.length, 1);
}

test('golden rule 3: an unknown key is refused after the upgrade with 4001, for good', async (t) => {
  const message = 'App key no-such-key not in this cluster. Did you forget to specify the cluster?';
  await assertRefusedForGood(t, main, { key: 'no-such-key' }, 4001, message);
  const [wire, ...more] = wiresTo({ ...main, port: server.port, key: 'no-such-key' });
  assert.deepEqual(more, []);
  await assertClosed(wire, 4001, message);
});

test('golden rule 3: over its quota an app refuses with 4004, until somebody leaves', { skip: CLUSTER && 'each node has its own quota' }, async (t) => {
  const first = await crowded.connect(t);
  await assertRefusedForGood(t, crowded, {}, 4004, 'Application is over connection quota');
  await assertClosed(wiresTo(crowded).at(-1), 4004, 'Application is over connection quota');
  await wireOf(first).roundTrip();
  first.disconnect();
  await eventually(async () => {
    const next = crowded.client(t);
    const { data } = await nextEvent(next.connection, 'state_change');
    next.disconnect();
    return data.current === 'connected';
  }, 'a place is free again');
});

test('golden rule 3: a disabled app refuses with 4003, and its API with 403', async (t) => {
  await assertRefusedForGood(t, closed, {}, 4003, 'Application disabled');
  await assert.rejects(closed.sdk.trigger('x', 'event', {}), { status: 403 });
});

test('where authorization is required, a connection without any is closed with 4009, and no other', async (t) => {
  const member = await gated.connect(t, { user: 'alice' });
  await subscribe(member, 'private-members');
  const user = await gated.connect(t, { user: 'alice' });
  user.signin();
  const anonymous = await gated.connect(t);
  await subscribe(anonymous, 'public');
  assert.deepEqual(await wireOf(anonymous).closed(), { code: 4009, reason: 'Connection not authorized within timeout' });
  assert.equal(anonymous.connection.state, 'disconnected');
  for (const authorized of [member, user]) await wireOf(authorized).roundTrip();
});

for (const [what, query, code, message] of [
  ['a version that is not a number', 'protocol=abc', 4006, 'Invalid version string format'],
  ['version 3', 'protocol=3', 4007, 'Unsupported protocol version'],
  ['version 99', 'protocol=99', 4007, 'Unsupported protocol version'],
]) {
  test(`golden rule 3: ${what} is refused with ${code}`, async (t) => {
    await assertClosed(openWire(t, main.url(query)), code, message);
  });
}

for (const path of ['/app/', '/nowhere', '/app/main-key/more']) {
  test(`golden rule 3: a WebSocket on ${path} is refused with 4005`, async (t) => {
    const wire = openWire(t, `ws://127.0.0.1:${server.port}${path}?protocol=7`);
    await assertClosed(wire, 4005, 'Path not found');
  });
}

for (const query of ['protocol=5', 'protocol=6', 'protocol=7&client=swift&version=1.0-β', '', 'unknown=1&protocol=7']) {
  test(`a connection with the query "${query}" is accepted`, async (t) => {
    const wire = openWire(t, main.url(encodeURI(query)));
    await wire.next('pusher:connection_established');
    await wire.roundTrip();
  });
}

test('a plain GET on the WebSocket path is a client error', async () => {
  const response = await fetch(`http://127.0.0.1:${server.port}/app/${main.key}?protocol=7`);
  assert.ok([400, 426].includes(response.status), String(response.status));
});

// Only a browser sends an Origin, so this pusher-js is the web build inside a page.
const webBuild = readFileSync(createRequire(import.meta.url).resolve('pusher-js/dist/web/pusher.js'), 'utf8');

function clientOnPage(t, url, app) {
  const { window } = new JSDOM('', { url, runScripts: 'outside-only' });
  window.eval(webBuild);
  const pusher = new window.Pusher(app.key, {
    cluster: 'mt1', wsHost: '127.0.0.1', wsPort: app.port, forceTLS: false, enabledTransports: ['ws'],
  });
  t.after(() => {
    pusher.disconnect();
    window.close();
  });
  return pusher;
}

for (const [origin, allowed] of [
  ['http://eu.shop.test', true],
  ['http://till.test:8080', true],
  ['http://evil.test', false],
  ['http://shop.test.evil.test', false],
  ['http://nottill.test', false],
]) {
  test(`a page on ${origin} is ${allowed ? 'welcome' : 'refused with 4009'}`, async (t) => {
    const pusher = clientOnPage(t, `${origin}/page`, picky);
    const seen = events(pusher.connection, 'connection');
    if (allowed) {
      await seen.next('connected');
      await subscribe(pusher, 'orders');
    } else {
      await seen.next('disconnected');
      const [{ data: error }] = seen.seen('error');
      assert.deepEqual(
        JSON.parse(JSON.stringify(error.error.data)),
        { code: 4009, message: 'Origin not allowed' },
      );
    }
  });
}

test('without a list every origin is welcome', async (t) => {
  const pusher = clientOnPage(t, 'http://anywhere.test/', main);
  await nextEvent(pusher.connection, 'connected');
});

for (const [what, frame] of [
  ['broken JSON', '{"event":'],
  ['text that is not JSON', 'hello'],
  ['an array', '[]'],
  ['a number', '7'],
  ['null', 'null'],
  ['an object without an event', '{}'],
  ['an event that is not text', '{"event":7,"data":{}}'],
  ['an unknown pusher: event', '{"event":"pusher:dance","data":{}}'],
  ['an event only the server may send', '{"event":"pusher_internal:member_added","channel":"presence-x","data":"{}"}'],
  ['a subscription without data', '{"event":"pusher:subscribe"}'],
  ['a subscription without a channel', '{"event":"pusher:subscribe","data":{}}'],
  ['a subscription to a number', '{"event":"pusher:subscribe","data":{"channel":7}}'],
  ['a subscription whose data is text', '{"event":"pusher:subscribe","data":"orders"}'],
  ['a sign-in without data', '{"event":"pusher:signin"}'],
  ['deep nesting', `{"event":"pusher:subscribe","data":${'['.repeat(20_000)}${']'.repeat(20_000)}}`],
]) {
  test(`${what} is answered with an error that closes nothing`, async (t) => {
    const wire = openWire(t, main.url());
    await wire.next('pusher:connection_established');
    wire.send(frame);
    const { text } = await wire.next('pusher:error');
    const { event, data, ...rest } = JSON.parse(text);
    assert.equal(event, 'pusher:error');
    // A sign-in that fails has a code of its own.
    assert.equal(data.code, frame.includes('signin') ? 4009 : null);
    assert.equal(typeof data.message, 'string');
    assert.deepEqual(rest, {});
    await wire.roundTrip();
  });
}

test('a binary frame is ignored or read as text', async (t) => {
  const wire = openWire(t, main.url());
  await wire.next('pusher:connection_established');
  wire.send(Buffer.from(JSON.stringify({ event: 'pusher:subscribe', data: { channel: 'binary' } })));
  await wire.roundTrip();
  assert.deepEqual(wire.frames.seen('pusher:error'), []);
});

test('a frame far over the limit closes that connection with 1009 and no other', async (t) => {
  const other = await main.connect(t);
  const wire = openWire(t, main.url());
  await wire.next('pusher:connection_established');
  wire.send('x'.repeat(2 * 1024 * 1024));
  assert.equal((await wire.closed()).code, 1009);
  await wireOf(other).roundTrip();
});
