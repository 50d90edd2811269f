// Subscribing and leaving: counts, repeats, refusals.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { sdkFor } from './support/app.js';
import { Subscription, nextEvent, subscribe } from './support/events.js';
import { CLUSTER, TestServer } from './support/server.js';
import { openWire, wireOf } from './support/wire.js';

const server = await TestServer.start({ apps: { main: {}, uncounted: { subscription_count: false } } });
after(() => server.stop());
const { main, uncounted } = server.apps;

test('all subscribers learn the subscription count with each change', async (t) => {
  for (const name of ['counted', 'private-counted', 'cache-counted', 'private-encrypted-counted']) {
    const alice = await subscribe(await main.connect(t, { user: 'alice' }), name);
    assert.deepEqual(await alice.next('pusher:subscription_count'), { subscription_count: 1 }, name);
    const bob = await subscribe(await main.connect(t, { user: 'bob' }), name);
    assert.deepEqual(await bob.next('pusher:subscription_count'), { subscription_count: 2 });
    assert.deepEqual(await alice.next('pusher:subscription_count'), { subscription_count: 2 });
    assert.equal(alice.channel.subscriptionCount, 2);
    bob.pusher.unsubscribe(name);
    assert.deepEqual(await alice.next('pusher:subscription_count'), { subscription_count: 1 });
    alice.pusher.disconnect();
  }
});

test('the count comes after subscription_succeeded', async (t) => {
  const alice = await subscribe(await main.connect(t), 'count-order');
  await alice.next('pusher:subscription_count');
  const frames = wireOf(alice.pusher).frames.all.filter(({ channel }) => channel === 'count-order');
  assert.deepEqual(frames.map(({ text }) => JSON.parse(text)), [
    { event: 'pusher_internal:subscription_succeeded', channel: 'count-order', data: '{}' },
    { event: 'pusher_internal:subscription_count', channel: 'count-order', data: '{"subscription_count":1}' },
  ]);
});

test('presence channels have members and no subscription count', async (t) => {
  const alice = await subscribe(await main.connect(t, { user: 'alice' }), 'presence-uncounted');
  await subscribe(await main.connect(t, { user: 'bob' }), 'presence-uncounted');
  await alice.settled(main);
  assert.deepEqual(alice.seen('pusher:subscription_count'), []);
});

test('an app can switch subscription counts off', async (t) => {
  const alice = await subscribe(await uncounted.connect(t), 'uncounted');
  await subscribe(await uncounted.connect(t), 'uncounted');
  await alice.settled(uncounted);
  assert.deepEqual(alice.seen('pusher:subscription_count'), []);
});

test('in a crowd of more than 100 the count is sent now and then, and ends right', async (t) => {
  const alice = await subscribe(await main.connect(t), 'crowd');
  for (let n = 1; n < 130; n += 1) openWire(t, main.url()).send({ event: 'pusher:subscribe', data: { channel: 'crowd' } });
  await alice.inbox.next(({ data }) => data.subscription_count === 130, { deadline: 12_000 });
  const counts = alice.seen('pusher:subscription_count').map(({ subscription_count: count }) => count);
  // Several nodes tell Redis what holds by then: not each step, but in order.
  const steps = CLUSTER ? [...new Set(counts)].sort((a, b) => a - b) : Array.from({ length: 100 }, (_, n) => n + 1);
  assert.deepEqual(counts.slice(0, 100), steps.slice(0, 100));
  assert.ok(counts.length < 106, `${counts.length - 100} counts for 30 more subscribers`);
});

test('unsubscribe is silent and ends the channel’s events', async (t) => {
  const alice = await main.connect(t);
  const [left, stayed] = [await subscribe(alice, 'left'), await subscribe(alice, 'stayed')];
  alice.unsubscribe('left');
  await wireOf(alice).roundTrip();
  const frames = wireOf(alice).frames.all.length;
  await main.sdk.trigger(['left', 'stayed'], 'event', 1);
  await stayed.settled(main);
  assert.deepEqual(left.seen('event'), []);
  assert.deepEqual(wireOf(alice).frames.all.slice(frames).filter(({ channel }) => channel !== 'stayed'), []);
});

test('golden rule 10: leaving and joining again in one breath, as React StrictMode does, ends subscribed', async (t) => {
  const alice = await main.connect(t, { user: 'alice' });
  for (const name of ['strict', 'private-strict', 'presence-strict', 'cache-strict']) {
    await subscribe(alice, name);
    for (let round = 0; round < 20; round += 1) {
      alice.unsubscribe(name);
      const again = new Subscription(alice, name);
      await again.next('pusher:subscription_succeeded');
    }
    alice.unsubscribe(name);
    const last = await subscribe(alice, name);
    await last.settled(main);
  }
  assert.deepEqual(wireOf(alice).frames.seen('pusher:error'), []);
});

test('twenty leave-and-join pairs without waiting for any answer end subscribed', async (t) => {
  const wire = openWire(t, main.url());
  const subscribeFrame = { event: 'pusher:subscribe', data: { channel: 'flapping' } };
  wire.send(subscribeFrame);
  for (let round = 0; round < 20; round += 1) {
    wire.send({ event: 'pusher:unsubscribe', data: { channel: 'flapping' } });
    wire.send(subscribeFrame);
  }
  await wire.roundTrip();
  await main.sdk.trigger('flapping', 'event', 'x');
  await wire.next('event');
  assert.deepEqual(wire.frames.seen('pusher:error'), []);
  assert.equal(wire.frames.seen('pusher_internal:subscription_succeeded').length, 21);
  assert.equal(wire.frames.seen('event').length, 1);
});

test('a subscription that is cancelled while pending leaves nothing behind', async (t) => {
  const alice = await main.connect(t);
  alice.subscribe('regretted');
  alice.unsubscribe('regretted');
  // pusher-js waits for the confirmation and only then leaves.
  await wireOf(alice).next('pusher_internal:subscription_succeeded');
  await wireOf(alice).roundTrip();
  assert.deepEqual(await main.get('/channels/regretted'), { occupied: false });
});

test('subscribing twice is an error, and nothing else is sent', async (t) => {
  const [alice, bob] = [await main.connect(t, { user: 'alice' }), await main.connect(t, { user: 'bob' })];
  const presence = await subscribe(bob, 'presence-twice');
  await subscribe(alice, 'presence-twice');
  await presence.next('pusher:member_added');
  const auth = main.sdk.authorizeChannel(alice.connection.socket_id, 'presence-twice', { user_id: 'alice' });
  const frames = wireOf(alice).frames.all.length;
  alice.send_event('pusher:subscribe', { ...auth, channel: 'presence-twice' });
  const { text } = await wireOf(alice).next('pusher:error');
  assert.deepEqual(JSON.parse(text), {
    event: 'pusher:error',
    data: { code: null, message: 'Existing subscription to channel presence-twice' },
  });
  await wireOf(alice).roundTrip();
  assert.deepEqual(wireOf(alice).frames.all.slice(frames).map(({ event }) => event), ['pusher:error', 'pusher:pong']);
  await presence.settled(main);
  assert.equal(presence.seen('pusher:member_added').length, 1);
});

test('leaving a channel one is not in is an error', async (t) => {
  const alice = await main.connect(t);
  alice.send_event('pusher:unsubscribe', { channel: 'elsewhere' });
  const { data } = await wireOf(alice).next('pusher:error');
  const message = 'No current subscription to channel elsewhere, or subscription in progress';
  assert.deepEqual(data, { code: null, message });
});

/** Subscribes with `auth` and expects the refusal: an error for the connection and one the channel can act on. */
async function assertRefused(t, channelName, authorize, message) {
  const alice = await main.connect(t, {
    channelAuthorization: { customHandler: ({ socketId }, callback) => callback(null, authorize(socketId)) },
  });
  const channel = alice.subscribe(channelName);
  const refused = nextEvent(channel, 'pusher:subscription_error');
  const { data } = await wireOf(alice).next('pusher:error');
  assert.equal(data.code, null);
  const expected = typeof message === 'function' ? message(alice.connection.socket_id) : message;
  if (expected) assert.equal(data.message, expected);
  const { type, error, status, ...rest } = (await refused).data;
  assert.deepEqual({ type, status, rest }, { type: 'AuthError', status: 401, rest: {} });
  assert.ok(error.length > 0);
  const frame = wireOf(alice).frames.seen('pusher:subscription_error')[0];
  assert.equal(frame.channel, channelName);
  assert.equal(typeof frame.data, 'string');
  await wireOf(alice).roundTrip();
  assert.equal(channel.subscribed, false);
  assert.equal(alice.connection.state, 'connected');
  assert.deepEqual(await main.get(`/channels/${channelName}`), { occupied: false });
}

test('a subscription with a wrong signature is refused', async (t) => {
  const forged = 'f'.repeat(64);
  await assertRefused(t, 'private-forged', () => ({ auth: `${main.key}:${forged}` }), (socketId) =>
    `Invalid signature: Expected HMAC SHA256 hex digest of ${socketId}:private-forged, but got ${forged}`);
});

test('a subscription signed for another channel is refused', async (t) => {
  await assertRefused(t, 'private-mine', (socketId) => main.sdk.authorizeChannel(socketId, 'private-yours'));
});

test('a subscription signed for another socket is refused', async (t) => {
  await assertRefused(t, 'private-socket', () => main.sdk.authorizeChannel('1.1', 'private-socket'));
});

test('a subscription signed with the right secret but another key is refused', async (t) => {
  const other = sdkFor('main', undefined, { key: 'other-key' });
  await assertRefused(
    t, 'private-key', (socketId) => other.authorizeChannel(socketId, 'private-key'),
    "Invalid key in subscription auth data: 'other-key'",
  );
});

for (const auth of ['', 'nonsense', ':', undefined, null]) {
  test(`a private subscription with auth ${JSON.stringify(auth)} is refused`, async (t) => {
    await assertRefused(t, 'private-unsigned', () => ({ auth }));
  });
}

test('golden rule 4: channel_data that was changed after signing is refused', async (t) => {
  await assertRefused(t, 'presence-changed', (socketId) => {
    const signed = main.sdk.authorizeChannel(socketId, 'presence-changed', { user_id: 'bob' });
    return { ...signed, channel_data: signed.channel_data.replace('bob', 'eve') };
  });
});

test('a refusal by the auth endpoint never reaches the server', async (t) => {
  const alice = await main.connect(t, { user: 'alice' });
  const { data } = await nextEvent(alice.subscribe('private-forbidden'), 'pusher:subscription_error');
  assert.equal(data.status, 403);
  await wireOf(alice).roundTrip();
  assert.deepEqual(wireOf(alice).frames.seen('pusher:error'), []);
});
