// Cache channels: the last published event waits for those who come later.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { nextEvent, subscribe } from './support/events.js';
import { eventually } from './support/inbox.js';
import { TestServer } from './support/server.js';
import { wireOf } from './support/wire.js';

const server = await TestServer.start({ apps: { main: {}, forgetful: { cache_ttl: '1s' } } });
after(() => server.stop());
const { main, forgetful } = server.apps;

const PREFIXES = ['cache-', 'private-cache-', 'presence-cache-', 'private-encrypted-cache-'];

for (const prefix of PREFIXES) {
  test(`golden rule 12: a "${prefix}" channel replays its last event after subscription_succeeded`, async (t) => {
    const name = `${prefix}replay`;
    await main.sdk.trigger(name, 'price', { value: 1 });
    await main.sdk.trigger(name, 'price', { value: 2 });
    const alice = await main.connect(t, { user: 'alice' });
    const prices = await subscribe(alice, name);
    assert.deepEqual(await prices.next('price'), { value: 2 });
    await prices.settled(main);
    assert.deepEqual(prices.seen('price'), [{ value: 2 }]);
    assert.deepEqual(prices.seen('pusher:cache_miss'), []);
    const order = wireOf(alice).frames.all.filter(({ channel }) => channel === name).map(({ event }) => event);
    assert.deepEqual(order.slice(0, 2), ['pusher_internal:subscription_succeeded', 'price']);
  });

  test(`a "${prefix}" channel without an event answers cache_miss`, async (t) => {
    const alice = await main.connect(t, { user: 'alice' });
    const empty = await subscribe(alice, `${prefix}empty`);
    assert.deepEqual(await empty.next('pusher:cache_miss'), {});
    const { text } = await wireOf(alice).next('pusher:cache_miss');
    assert.deepEqual(JSON.parse(text), { event: 'pusher:cache_miss', channel: `${prefix}empty`, data: '{}' });
  });
}

test('the replayed frame is the published one, byte for byte', async (t) => {
  const data = ' {"url":"https:\\/\\/example.test","n":1.0} ';
  await main.sdk.trigger('cache-bytes', 'App\\Events\\Priced', data);
  const alice = await main.connect(t);
  await subscribe(alice, 'cache-bytes');
  const { text } = await wireOf(alice).next('App\\Events\\Priced');
  assert.deepEqual(JSON.parse(text), { event: 'App\\Events\\Priced', channel: 'cache-bytes', data });
});

test('golden rule 12: the replay goes only to the socket that subscribes', async (t) => {
  await main.sdk.trigger('cache-private-replay', 'price', 1);
  const early = await subscribe(await main.connect(t), 'cache-private-replay');
  await early.next('price');
  const late = await subscribe(await main.connect(t), 'cache-private-replay');
  await late.next('price');
  await early.settled(main);
  assert.deepEqual(early.seen('price'), [1]);
});

test('golden rule 12: client events are not cached', async (t) => {
  const name = 'private-cache-whispers';
  await main.sdk.trigger(name, 'price', 1);
  const alice = await subscribe(await main.connect(t, { user: 'alice' }), name);
  const bob = await subscribe(await main.connect(t, { user: 'bob' }), name);
  alice.channel.trigger('client-price', 2);
  assert.equal(await bob.next('client-price'), 2);
  const carol = await subscribe(await main.connect(t, { user: 'carol' }), name);
  assert.equal(await carol.next('price'), 1);
  assert.deepEqual(carol.seen('client-price'), []);
});

test('member events are not cached', async (t) => {
  const name = 'presence-cache-members';
  await main.sdk.trigger(name, 'price', 1);
  const alice = await subscribe(await main.connect(t, { user: 'alice' }), name);
  const bob = await main.connect(t, { user: 'bob' });
  await subscribe(bob, name);
  bob.disconnect();
  await alice.next('pusher:member_removed');
  const carol = await subscribe(await main.connect(t, { user: 'carol' }), name);
  assert.equal(await carol.next('price'), 1);
});

test('a trigger caches on each of its channels, whoever is excluded and whether anybody listens', async (t) => {
  const alice = await main.connect(t);
  const first = await subscribe(alice, 'cache-multi-1');
  await main.sdk.trigger(['cache-multi-1', 'cache-multi-2'], 'price', 5, { socket_id: alice.connection.socket_id });
  await first.settled(main);
  assert.deepEqual(first.seen('price'), []);
  const bob = await main.connect(t);
  // The fence of `settled` was published to the first channel as well, so it is what that one has cached.
  assert.equal(await (await subscribe(bob, 'cache-multi-2')).next('price'), 5);
  assert.deepEqual((await main.get('/channels/cache-multi-1', { info: 'cache' })).cache.data, '{}');
});

test('the cached event outlives the last subscriber', async (t) => {
  const alice = await main.connect(t);
  const channel = await subscribe(alice, 'cache-survivor');
  await main.sdk.trigger('cache-survivor', 'price', 9);
  await channel.next('price');
  alice.unsubscribe('cache-survivor');
  await wireOf(alice).roundTrip();
  await eventually(async () => !(await main.get('/channels/cache-survivor')).occupied, 'the channel is vacated');
  const again = await subscribe(alice, 'cache-survivor');
  assert.equal(await again.next('price'), 9);
});

test('an expired event is a miss', async (t) => {
  await forgetful.sdk.trigger('cache-brief', 'price', 1);
  await eventually(
    async () => (await forgetful.get('/channels/cache-brief', { info: 'cache' })).cache === null,
    'the cached event expires',
  );
  const channel = await subscribe(await forgetful.connect(t), 'cache-brief');
  assert.deepEqual(await channel.next('pusher:cache_miss'), {});
  assert.deepEqual(channel.seen('price'), []);
});

test('a miss is answered to each subscriber that finds the channel empty', async (t) => {
  for (const user of ['alice', 'bob']) {
    const pusher = await main.connect(t, { user });
    const missed = nextEvent(pusher.subscribe('cache-still-empty'), 'pusher:cache_miss');
    assert.deepEqual((await missed).data, {});
  }
});
