// Publishing with the official server SDK.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { subscribe } from './support/events.js';
import { TestServer } from './support/server.js';
import { wireOf } from './support/wire.js';

const server = await TestServer.start();
after(() => server.stop());
const { main } = server.apps;

test('one trigger reaches every channel it names, once per name', async (t) => {
  const alice = await main.connect(t);
  const [red, blue] = [await subscribe(alice, 'red'), await subscribe(alice, 'blue')];
  const response = await main.sdk.trigger(['red', 'blue', 'red'], 'paint', { coats: 2 });
  assert.equal(response.status, 200);
  assert.deepEqual(await response.json(), {});
  await Promise.all([red.settled(main), blue.settled(main)]);
  assert.deepEqual(red.seen('paint'), [{ coats: 2 }]);
  assert.deepEqual(blue.seen('paint'), [{ coats: 2 }]);
});

test('the delivered frame holds event, channel and data and nothing else', async (t) => {
  const alice = await main.connect(t);
  await subscribe(alice, 'plain');
  await main.sdk.trigger('plain', 'hello', { a: 1 });
  const { text } = await wireOf(alice).next('hello');
  assert.deepEqual(JSON.parse(text), { event: 'hello', channel: 'plain', data: '{"a":1}' });
});

for (const [what, data] of [
  ['escaped slashes', '{"url":"https:\\/\\/example.test\\/"}'],
  ['unicode escapes', '{"name":"Zo\\u00eb \\ud83c\\udf55"}'],
  ['raw unicode', '{"name":"Zoë 🍕\u2028"}'],
  ['numbers as written', '{"price":1.0,"big":12345678901234567890,"exp":1E2}'],
  ['spaces and line breaks', ' { "a" : 1 ,\n\t"b":[ ] } '],
  ['keys in order, twice', '{"b":1,"a":2,"b":3}'],
  ['text that is not JSON', 'hello {world'],
  ['an empty string', ''],
  ['zero', '0'],
  ['null', 'null'],
  ['a JSON string', '"\\"quoted\\""'],
  ['control characters', 'bell\u0007 nul\u0000 del\u007f'],
]) {
  test(`golden rule 5: ${what} in data arrive byte for byte`, async (t) => {
    const alice = await main.connect(t);
    await subscribe(alice, 'bytes');
    await main.sdk.trigger('bytes', 'exact', data);
    const frame = await wireOf(alice).next('exact');
    assert.equal(frame.data, data);
  });
}

test('event names may hold anything a Laravel class name or a sentence holds', async (t) => {
  const alice = await main.connect(t);
  const names = ['App\\Events\\OrderShipped', 'order.shipped', 'a:b c', 'événement 🍕', 'x'.repeat(200), '"', 'client-x'];
  const channel = await subscribe(alice, 'names');
  for (const name of names) await main.sdk.trigger('names', name, { name });
  for (const name of names) assert.deepEqual(await channel.next(name), { name });
});

test('golden rule 8: the excluded socket gets nothing on any channel of the trigger', async (t) => {
  const [alice, bob] = [await main.connect(t), await main.connect(t)];
  const own = [await subscribe(alice, 'one'), await subscribe(alice, 'two')];
  const others = [await subscribe(bob, 'one'), await subscribe(bob, 'two')];
  await main.sdk.trigger(['one', 'two'], 'moved', {}, { socket_id: alice.connection.socket_id });
  for (const channel of others) assert.deepEqual(await channel.next('moved'), {});
  for (const channel of own) {
    await channel.settled(main);
    assert.deepEqual(channel.seen('moved'), []);
  }
});

test('golden rule 8: each event of a batch has its own excluded socket', async (t) => {
  const [alice, bob] = [await main.connect(t), await main.connect(t)];
  const [hers, his] = [await subscribe(alice, 'shared'), await subscribe(bob, 'shared')];
  await main.sdk.triggerBatch([
    { channel: 'shared', name: 'turn', data: 'not alice', socket_id: alice.connection.socket_id },
    { channel: 'shared', name: 'turn', data: 'not bob', socket_id: bob.connection.socket_id },
    { channel: 'shared', name: 'turn', data: 'everybody' },
  ]);
  await Promise.all([hers.settled(main), his.settled(main)]);
  assert.deepEqual(hers.seen('turn'), ['not bob', 'everybody']);
  assert.deepEqual(his.seen('turn'), ['not alice', 'everybody']);
});

test('a socket id nobody has excludes nobody', async (t) => {
  const alice = await main.connect(t);
  const channel = await subscribe(alice, 'open');
  await main.sdk.trigger('open', 'event', 'x', { socket_id: '1.1' });
  assert.equal(await channel.next('event'), 'x');
});

test('a batch reaches plain and encrypted channels in one request', async (t) => {
  const alice = await main.connect(t, { user: 'alice' });
  const plain = await subscribe(alice, 'plain-batch');
  const encrypted = await subscribe(alice, 'private-encrypted-batch');
  const response = await main.sdk.triggerBatch([
    { channel: plain.name, name: 'event', data: { n: 1 } },
    { channel: encrypted.name, name: 'event', data: { n: 2 } },
  ]);
  assert.equal(response.status, 200);
  assert.deepEqual(await response.json(), {});
  assert.deepEqual(await plain.next('event'), { n: 1 });
  assert.deepEqual(await encrypted.next('event'), { n: 2 });
});

test('a trigger answers the attributes asked for by info', async (t) => {
  const [alice, bob] = [await main.connect(t, { user: 'alice' }), await main.connect(t, { user: 'bob' })];
  await subscribe(alice, 'presence-info');
  await subscribe(bob, 'presence-info');
  // Several nodes know it when it is told.
  await (await subscribe(alice, 'info')).next('pusher:subscription_count');
  const response = await main.sdk.trigger(['presence-info', 'info', 'nobody'], 'event', {}, {
    info: 'user_count,subscription_count',
  });
  assert.deepEqual(await response.json(), {
    channels: {
      'presence-info': { user_count: 2, subscription_count: 2 },
      info: { subscription_count: 1 },
      nobody: { subscription_count: 0 },
    },
  });
});

test('a batch answers info by position', async (t) => {
  const alice = await main.connect(t, { user: 'alice' });
  await subscribe(alice, 'presence-batch-info');
  await (await subscribe(alice, 'batch-info')).next('pusher:subscription_count');
  const response = await main.sdk.triggerBatch([
    { channel: 'presence-batch-info', name: 'event', data: '', info: 'user_count' },
    { channel: 'batch-info', name: 'event', data: '' },
    { channel: 'batch-info', name: 'event', data: '', info: 'subscription_count' },
  ]);
  assert.deepEqual(await response.json(), { batch: [{ user_count: 1 }, {}, { subscription_count: 1 }] });
});

test('golden rule 15: sequential triggers arrive in this order at each subscriber', async (t) => {
  const clients = await Promise.all(Array.from({ length: 4 }, () => main.connect(t)));
  const channels = await Promise.all(clients.map((client) => subscribe(client, 'ordered')));
  const sent = Array.from({ length: 60 }, (_, id) => id);
  // Single triggers and batches mixed: they share the channel's order.
  for (let id = 0; id < sent.length; id += 6) {
    await main.sdk.trigger('ordered', 'step', id);
    await main.sdk.triggerBatch([1, 2, 3, 4].map((n) => ({ channel: 'ordered', name: 'step', data: id + n })));
    await main.sdk.trigger('ordered', 'step', id + 5);
  }
  for (const channel of channels) {
    await channel.settled(main);
    assert.deepEqual(channel.seen('step'), sent);
  }
});

test('concurrent publishers are seen in one and the same order by all subscribers', async (t) => {
  const clients = await Promise.all(Array.from({ length: 4 }, () => main.connect(t)));
  const channels = await Promise.all(clients.map((client) => subscribe(client, 'contended')));
  await Promise.all(Array.from({ length: 40 }, (_, id) => main.sdk.trigger('contended', 'step', id)));
  await Promise.all(channels.map((channel) => channel.settled(main)));
  const [first, ...rest] = channels.map((channel) => channel.seen('step'));
  assert.equal(new Set(first).size, 40);
  for (const order of rest) assert.deepEqual(order, first);
});
