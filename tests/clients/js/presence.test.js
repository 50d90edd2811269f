// Presence: members are users, not connections.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { after, test } from 'node:test';

import { subscribe } from './support/events.js';
import { eventually } from './support/inbox.js';
import { TestServer } from './support/server.js';
import { openWire, wireOf } from './support/wire.js';

const users = {
  seven: { id: 7, info: { name: 'Seven' } },
  nobody: { id: 'nobody', info: null },
  plain: { id: 'plain' },
  list: { id: 'list', info: ['a', 1, { b: null }] },
};
const server = await TestServer.start({ apps: { main: { users }, small: { max_presence_members: 2 } } });
after(() => server.stop());
const { main, small } = server.apps;

const join = async (t, user, channel, app = main) => subscribe(await app.connect(t, { user }), channel);

test('a joining user is told who is here, including himself', async (t) => {
  await join(t, 'alice', 'presence-room');
  const bob = await join(t, 'bob', 'presence-room');
  const { members } = bob.channel;
  assert.equal(members.count, 2);
  assert.deepEqual(members.members, { alice: { name: 'alice' }, bob: { name: 'bob' } });
  assert.deepEqual(members.me, { id: 'bob', info: { name: 'bob' } });
  const { data } = wireOf(bob.pusher).frames.seen('pusher_internal:subscription_succeeded')[0];
  const { presence } = JSON.parse(data);
  assert.deepEqual([...presence.ids].sort(), ['alice', 'bob']);
  assert.deepEqual(Object.keys(presence).sort(), ['count', 'hash', 'ids']);
});

test('the others see a user come and go; he himself does not', async (t) => {
  const alice = await join(t, 'alice', 'presence-door');
  const bob = await join(t, 'bob', 'presence-door');
  assert.deepEqual(await alice.next('pusher:member_added'), { id: 'bob', info: { name: 'bob' } });
  assert.equal(alice.channel.members.count, 2);
  await bob.settled(main);
  assert.deepEqual(bob.seen('pusher:member_added'), []);

  bob.pusher.unsubscribe('presence-door');
  assert.deepEqual(await alice.next('pusher:member_removed'), { id: 'bob', info: { name: 'bob' } });
  assert.equal(alice.channel.members.count, 1);
});

test('member frames carry user_id as text and user_info as given', async (t) => {
  const alice = await join(t, 'alice', 'presence-frames');
  const seven = await join(t, 'seven', 'presence-frames');
  const wire = wireOf(alice.pusher);
  const added = await wire.next('pusher_internal:member_added');
  assert.deepEqual(JSON.parse(added.data), { user_id: '7', user_info: { name: 'Seven' } });
  assert.equal(added.channel, 'presence-frames');
  seven.pusher.disconnect();
  const removed = await wire.next('pusher_internal:member_removed');
  assert.deepEqual(JSON.parse(removed.data), { user_id: '7' });
});

test('a numeric user id is a string everywhere', async (t) => {
  const seven = await join(t, 'seven', 'presence-numeric');
  const { data } = wireOf(seven.pusher).frames.seen('pusher_internal:subscription_succeeded')[0];
  assert.deepEqual(JSON.parse(data), { presence: { count: 1, ids: ['7'], hash: { 7: { name: 'Seven' } } } });
  assert.deepEqual(await main.get('/channels/presence-numeric/users'), { users: [{ id: '7' }] });
});

for (const [user, what, info] of [
  ['nobody', 'null', null],
  ['plain', 'left out', null],
  ['list', 'not an object', ['a', 1, { b: null }]],
]) {
  test(`user_info that is ${what} is kept so`, async (t) => {
    const alice = await join(t, 'alice', `presence-info-${user}`);
    const other = await join(t, user, `presence-info-${user}`);
    assert.deepEqual(other.channel.members.members, { alice: { name: 'alice' }, [user]: info });
    const { info: seen } = await alice.next('pusher:member_added');
    assert.deepEqual(seen ?? null, info);
  });
}

test('golden rule 9: a user with two connections joins once and leaves with the last one', async (t) => {
  const alice = await join(t, 'alice', 'presence-tabs');
  const firstTab = await join(t, 'bob', 'presence-tabs');
  const secondTab = await join(t, 'bob', 'presence-tabs');
  assert.equal(secondTab.channel.members.count, 2);
  await alice.settled(main);
  assert.equal(alice.seen('pusher:member_added').length, 1);

  firstTab.pusher.disconnect();
  await eventually(async () => {
    const { subscription_count: count } = await main.get('/channels/presence-tabs', { info: 'subscription_count' });
    return count === 2;
  }, 'the first tab has left');
  await alice.settled(main);
  assert.deepEqual(alice.seen('pusher:member_removed'), []);

  secondTab.pusher.disconnect();
  assert.equal((await alice.next('pusher:member_removed')).id, 'bob');
  await alice.settled(main);
  assert.equal(alice.seen('pusher:member_removed').length, 1);
});

test('every connection of a user receives the channel’s events', async (t) => {
  const tabs = [await join(t, 'bob', 'presence-both'), await join(t, 'bob', 'presence-both')];
  await main.sdk.trigger('presence-both', 'news', 'x');
  for (const tab of tabs) assert.equal(await tab.next('news'), 'x');
});

/** Subscribes a bare socket with `channelData` byte for byte as given, signed as it is. */
async function joinWith(t, app, channel, channelData) {
  const wire = openWire(t, app.url());
  await wire.next('pusher:connection_established');
  const signed = `${wire.socketId}:${channel}:${channelData}`;
  const auth = `${app.key}:${createHmac('sha256', app.secret).update(signed).digest('hex')}`;
  wire.send({ event: 'pusher:subscribe', data: { auth, channel, channel_data: channelData } });
  return wire;
}

test('the first user_info of a user stays until he has left entirely', async (t) => {
  const first = await joinWith(t, main, 'presence-rename', '{"user_id":"bob","user_info":"old"}');
  await first.next('pusher_internal:subscription_succeeded');
  const second = await joinWith(t, main, 'presence-rename', '{"user_id":"bob","user_info":"new"}');
  const { data } = await second.next('pusher_internal:subscription_succeeded');
  assert.deepEqual(JSON.parse(data).presence.hash, { bob: 'old' });
});

test('10 and "10" are the same user', async (t) => {
  const alice = await join(t, 'alice', 'presence-ten');
  await (await joinWith(t, main, 'presence-ten', '{"user_id":10}')).next('pusher_internal:subscription_succeeded');
  await (await joinWith(t, main, 'presence-ten', '{"user_id":"10"}')).next('pusher_internal:subscription_succeeded');
  await alice.settled(main);
  assert.deepEqual(alice.seen('pusher:member_added').map(({ id }) => id), ['10']);
  assert.equal(alice.channel.members.count, 2);
});

for (const [language, channelData, info] of [
  [
    'PHP', '{"user_id":"1","user_info":{"name":"Zo\\u00eb","page":"https:\\/\\/example.test"}}',
    { name: 'Zoë', page: 'https://example.test' },
  ],
  ['Python', '{"user_id": "1", "user_info": {"a": 1, "b": [1, 2]}}', { a: 1, b: [1, 2] }],
  ['a hand-written library', ' {\n"user_info":{},"user_id":"1","extra":true } ', {}],
]) {
  test(`golden rule 4: channel_data is verified as the bytes that ${language} signed`, async (t) => {
    const wire = await joinWith(t, main, `presence-bytes-${language.length}`, channelData);
    const { data } = await wire.next('pusher_internal:subscription_succeeded');
    assert.deepEqual(JSON.parse(data).presence, { count: 1, ids: ['1'], hash: { 1: info } });
  });
}

for (const [what, channelData] of [
  ['without a user id', '{"user_info":{"name":"x"}}'],
  ['with an empty user id', '{"user_id":""}'],
  ['with a null user id', '{"user_id":null}'],
  ['that is not JSON', 'bob'],
  ['that is empty', ''],
  ['with a user id of 129 characters', JSON.stringify({ user_id: 'x'.repeat(129) })],
  ['with user_info over 1 KB', JSON.stringify({ user_id: 'x', user_info: 'x'.repeat(1100) })],
]) {
  test(`channel_data ${what} is refused and the connection lives on`, async (t) => {
    const wire = await joinWith(t, main, 'presence-refused', channelData);
    const { data } = await wire.next('pusher:error');
    assert.equal(data.code, null);
    await wire.roundTrip();
    assert.deepEqual(await main.get('/channels/presence-refused'), { occupied: false });
  });
}

test('a channel takes no more members than the app allows, but more connections of them', async (t) => {
  await join(t, 'alice', 'presence-full', small);
  await join(t, 'bob', 'presence-full', small);
  await join(t, 'bob', 'presence-full', small);
  const carol = await small.connect(t, { user: 'carol' });
  carol.subscribe('presence-full');
  const { data } = await wireOf(carol).next('pusher:error');
  assert.equal(data.code, null);
  const { users: members } = await small.get('/channels/presence-full/users');
  assert.deepEqual(members.map(({ id }) => id).sort(), ['alice', 'bob']);
});
