// Client events: from one subscriber to the others, without the application in between.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { nextEvent, subscribe } from './support/events.js';
import { eventually } from './support/inbox.js';
import { TestServer } from './support/server.js';
import { wireOf } from './support/wire.js';

const server = await TestServer.start({
  apps: { main: {}, muted: { client_events: false }, slow: { max_client_events_per_second: 3 } },
});
after(() => server.stop());
const { main, muted, slow } = server.apps;

/** Two users on one channel. */
async function pair(t, name, app = main) {
  const [alice, bob] = await Promise.all(['alice', 'bob'].map((user) => app.connect(t, { user })));
  return [await subscribe(alice, name), await subscribe(bob, name)];
}

test('golden rule 11: a client event reaches the other subscribers and never its sender', async (t) => {
  for (const name of ['private-talk', 'presence-talk', 'private-cache-talk', 'presence-cache-talk']) {
    const [alice, bob] = await pair(t, name);
    assert.equal(alice.channel.trigger('client-typing', { n: 1 }), true);
    assert.deepEqual(await bob.next('client-typing'), { n: 1 });
    await alice.settled(main);
    assert.deepEqual(alice.seen('client-typing'), [], name);
  }
});

test('golden rule 11: the sender’s other connection is a subscriber like any', async (t) => {
  const tabs = [await main.connect(t, { user: 'alice' }), await main.connect(t, { user: 'alice' })];
  const [first, second] = [await subscribe(tabs[0], 'presence-own'), await subscribe(tabs[1], 'presence-own')];
  first.channel.trigger('client-typing', 'x');
  assert.equal(await second.next('client-typing'), 'x');
});

test('golden rule 11: on presence channels the listener learns who sent it', async (t) => {
  const [alice, bob] = await pair(t, 'presence-who');
  const typing = nextEvent(bob.channel, 'client-typing');
  alice.channel.trigger('client-typing', { n: 1 });
  assert.deepEqual(await typing, { data: { n: 1 }, metadata: { user_id: 'alice' } });
});

test('golden rule 11: user_id comes from the server, and no other key of the sender passes', async (t) => {
  const [alice, bob] = await pair(t, 'presence-spoof');
  const forged = { event: 'client-x', channel: 'presence-spoof', data: {}, user_id: 'root', socket_id: '1.1', extra: 1 };
  wireOf(alice.pusher).send(forged);
  const { text } = await wireOf(bob.pusher).next('client-x');
  assert.deepEqual(JSON.parse(text), { event: 'client-x', channel: 'presence-spoof', data: '{}', user_id: 'alice' });
});

test('on private channels there is no user_id', async (t) => {
  const [alice, bob] = await pair(t, 'private-anonymous');
  wireOf(alice.pusher).send({ event: 'client-x', channel: 'private-anonymous', data: {}, user_id: 'root' });
  const { text } = await wireOf(bob.pusher).next('client-x');
  assert.deepEqual(JSON.parse(text), { event: 'client-x', channel: 'private-anonymous', data: '{}' });
});

for (const [what, data, relayed] of [
  ['an object', { a: 1, b: [true, null] }, '{"a":1,"b":[true,null]}'],
  ['text', 'hello', 'hello'],
  ['text that is JSON', '{ "a": 1.0 }', '{ "a": 1.0 }'],
  ['an empty text', '', ''],
  ['a number', 7, '7'],
  ['null', null, 'null'],
  ['nothing at all', undefined, 'null'],
  ['an array', [1, 'é/'], '[1,"é/"]'],
]) {
  test(`${what} as data of a client event is relayed as a string`, async (t) => {
    const [alice, bob] = await pair(t, 'private-data');
    wireOf(alice.pusher).send({ event: 'client-data', channel: 'private-data', data });
    const frame = await wireOf(bob.pusher).next('client-data');
    assert.equal(frame.data, relayed);
  });
}

test('over the rate limit the sender gets 4301 and stays connected', async (t) => {
  const [alice, bob] = await pair(t, 'private-flood', slow);
  for (let n = 0; n < 8; n += 1) alice.channel.trigger('client-n', n);
  const { data } = await wireOf(alice.pusher).next('pusher:error');
  assert.deepEqual(data, { code: 4301, message: 'Client event rejected due to rate limit' });
  await wireOf(alice.pusher).roundTrip();
  await bob.settled(slow);
  assert.deepEqual(bob.seen('client-n').slice(0, 3), [0, 1, 2]);
  const rejected = wireOf(alice.pusher).frames.seen('pusher:error').length;
  assert.equal(bob.seen('client-n').length + rejected, 8, 'each event is either relayed or rejected');
  assert.ok(rejected >= 4, `only ${rejected} of 8 at once were rejected under a limit of 3`);

  // The limit is per second and per connection: bob is not affected, and alice may speak again.
  bob.channel.trigger('client-n', 'bob');
  assert.equal(await alice.next('client-n'), 'bob');
  await eventually(() => {
    alice.channel.trigger('client-again', 1);
    return bob.seen('client-again').length > 0;
  }, 'a client event is accepted again');
  assert.equal(alice.pusher.connection.state, 'connected');
});

/** Asserts that `frame`, sent by `sender`, is answered by an error with code null, and reaches nobody. */
async function assertRejected(sender, listener, app, frame, message) {
  wireOf(sender).send(frame);
  const { data, channel } = await wireOf(sender).next('pusher:error');
  assert.equal(data.code, null);
  assert.equal(channel, undefined);
  if (message) assert.equal(data.message, message);
  await listener.settled(app);
  assert.deepEqual(listener.seen(frame.event), []);
  assert.equal(sender.connection.state, 'connected');
}

test('an app can forbid client events', async (t) => {
  const [alice, bob] = await pair(t, 'private-muted', muted);
  const frame = { event: 'client-x', channel: 'private-muted', data: {} };
  const message = 'To send client events, you must enable this feature in the Settings page of your dashboard.';
  await assertRejected(alice.pusher, bob, muted, frame, message);
});

test('client events are rejected on public channels', async (t) => {
  for (const name of ['public-square', 'cache-square']) {
    const [alice, bob] = await pair(t, name);
    await assertRejected(alice.pusher, bob, main, { event: 'client-x', channel: name, data: {} });
  }
});

test('client events are rejected from those who have not subscribed', async (t) => {
  const [, bob] = await pair(t, 'private-members-only');
  const mallory = await main.connect(t, { user: 'mallory' });
  await assertRejected(mallory, bob, main, { event: 'client-x', channel: 'private-members-only', data: {} });
});

test('client events are rejected after unsubscribe', async (t) => {
  const [alice, bob] = await pair(t, 'private-left');
  alice.pusher.unsubscribe('private-left');
  await assertRejected(alice.pusher, bob, main, { event: 'client-x', channel: 'private-left', data: {} });
});

for (const [what, frame] of [
  ['without the client- prefix', { event: 'order-created', data: {} }],
  ['with a name of 201 characters', { event: `client-${'x'.repeat(194)}`, data: {} }],
  ['with more than 10 KB of data', { event: 'client-big', data: 'x'.repeat(10_241) }],
]) {
  test(`an event ${what} is rejected`, async (t) => {
    const [alice, bob] = await pair(t, 'private-rules');
    await assertRejected(alice.pusher, bob, main, { ...frame, channel: 'private-rules' });
  });
}

test('a client event without a channel is rejected', async (t) => {
  const alice = await main.connect(t);
  wireOf(alice).send({ event: 'client-x', data: {} });
  const { data } = await wireOf(alice).next('pusher:error');
  assert.deepEqual(data, { code: null, message: 'Invalid client event (must contain channel and data)' });
});
