// Every kind of channel: who may subscribe, what subscribers get, and in which order.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { events, subscribe } from './support/events.js';
import { TestServer } from './support/server.js';
import { openWire, wireOf } from './support/wire.js';

const server = await TestServer.start();
after(() => server.stop());
const { main } = server.apps;

const PREFIXES = [
  '', 'private-', 'presence-', 'private-encrypted-',
  'cache-', 'private-cache-', 'presence-cache-', 'private-encrypted-cache-',
];

for (const prefix of PREFIXES) {
  test(`a subscriber of a "${prefix}" channel receives what the SDK triggers`, async (t) => {
    const alice = await main.connect(t, { user: 'alice' });
    const orders = await subscribe(alice, `${prefix}orders`);
    const order = { id: 7, note: 'Zoë’s "half/half" 🍕' };
    await main.sdk.trigger(orders.name, 'order-created', order);
    assert.deepEqual(await orders.next('order-created'), order);
  });
}

test('an encrypted channel carries only ciphertext, and its key never reaches the server', async (t) => {
  const alice = await main.connect(t, { user: 'alice' });
  const letters = await subscribe(alice, 'private-encrypted-letters');
  await main.sdk.trigger(letters.name, 'letter', { text: 'for your eyes only' });
  const { data, text } = await wireOf(alice).next('letter');
  assert.deepEqual(Object.keys(JSON.parse(data)), ['nonce', 'ciphertext']);
  assert.doesNotMatch(text, /eyes only/);
  assert.deepEqual(await letters.next('letter'), { text: 'for your eyes only' });
});

for (const name of ['private', 'privatefoo', 'presence_x', 'cached', 'my-cache-x', 'Private-x', 'a_-=@,.;Z9']) {
  test(`"${name}" is a plain public channel`, async (t) => {
    const wire = openWire(t, main.url());
    wire.send({ event: 'pusher:subscribe', data: { channel: name } });
    await wire.next('pusher_internal:subscription_succeeded');
    await main.sdk.trigger(name, 'event', 'x');
    await wire.next('event');
    assert.deepEqual(wire.frames.seen('pusher:cache_miss'), []);
  });
}

for (const auth of ['', null, 'main-key:nonsense', undefined]) {
  test(`auth ${JSON.stringify(auth)} does not matter on a public channel`, async (t) => {
    const wire = openWire(t, main.url());
    wire.send({ event: 'pusher:subscribe', data: { auth, channel: 'public' } });
    const { data } = await wire.next('pusher_internal:subscription_succeeded');
    assert.equal(data, '{}');
  });
}

for (const [what, name] of [
  ['with a space', 'two words'],
  ['with a slash', 'a/b'],
  ['that is empty', ''],
  ['beyond ASCII', 'zoë'],
  ['of 165 characters', 'x'.repeat(165)],
  ['that starts with #', '#news'],
]) {
  test(`a channel name ${what} is refused and the connection lives on`, async (t) => {
    const wire = openWire(t, main.url());
    wire.send({ event: 'pusher:subscribe', data: { auth: '', channel: name } });
    const { data } = await wire.next('pusher:error');
    assert.equal(data.code, null);
    assert.equal(typeof data.message, 'string');
    await wire.roundTrip();
    assert.deepEqual(wire.frames.seen('pusher_internal:subscription_succeeded'), []);
  });
}

test('a channel name of 164 characters is the longest', async (t) => {
  const alice = await main.connect(t);
  const long = await subscribe(alice, 'x'.repeat(164));
  await main.sdk.trigger(long.name, 'event', 'here');
  assert.equal(await long.next('event'), 'here');
});

test('golden rule 10: subscription_succeeded precedes every event of the channel, and none follows unsubscribe', async (t) => {
  const alice = await main.connect(t, { user: 'alice' });
  const other = await subscribe(alice, 'other');
  const wire = wireOf(alice);

  // A publisher that never pauses, so that subscribe and unsubscribe both fall in the middle of its events.
  let publishing = true;
  const publisher = (async () => {
    for (let id = 0; publishing; id += 1) await main.sdk.trigger('storm', 'gust', { id });
  })();
  const storms = (from) => wire.frames.all.slice(from).filter(({ channel }) => channel === 'storm');
  for (let round = 0; round < 10; round += 1) {
    const before = wire.frames.all.length;
    const storm = await subscribe(alice, 'storm');
    await storm.next('gust');
    assert.equal(storms(before)[0].event, 'pusher_internal:subscription_succeeded');
    alice.unsubscribe('storm');
    await wire.roundTrip();
    const unsubscribed = wire.frames.all.length;
    await other.settled(main);
    assert.deepEqual(storms(unsubscribed), []);
  }
  publishing = false;
  await publisher;
});

test('an event without a listener goes to the global handler only', async (t) => {
  const alice = await main.connect(t);
  const everything = events(alice, 'global');
  await subscribe(alice, 'chatter');
  await main.sdk.trigger('chatter', 'App\\Events\\Said', { text: 'hi' });
  const { data } = await everything.next('App\\Events\\Said');
  assert.deepEqual(data, { text: 'hi' });
  assert.deepEqual(everything.all.filter(({ event }) => event.startsWith('pusher_internal:')), []);
});
