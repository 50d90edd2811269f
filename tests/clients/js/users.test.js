// Signed-in users: sign-in, events to a user, termination, watchlists.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { events, nextEvent, subscribe } from './support/events.js';
import { TestServer } from './support/server.js';
import { wireOf, wiresTo } from './support/wire.js';

const users = {
  member: { id: 'member', info: { name: 'By sign-in' }, presenceBySignin: true },
  watcher: { id: 'watcher', watchlist: ['bob', 'carol'] },
  tabWatcher: { id: 'tabWatcher', watchlist: ['tabs', 'dave'] },
  curious: { id: 'curious', watchlist: Array.from({ length: 101 }, (_, n) => `user-${n}`) },
};
const server = await TestServer.start({
  apps: { main: { users }, unwatched: { users, watchlist: false }, lenient: { terminate_code: 4200 } },
});
after(() => server.stop());
const { main, unwatched, lenient } = server.apps;

/** A connected client that has signed in and listens to its server-to-user channel, with what `pusher.user` emits. */
async function signIn(t, user, app = main) {
  const pusher = await app.connect(t, { user });
  const inbox = events(pusher.user, `user ${user}`);
  const watchlist = events(pusher.user.watchlist, `watchlist of ${user}`);
  pusher.signin();
  await wireOf(pusher).next(
    ({ event, channel }) => event === 'pusher_internal:subscription_succeeded' && channel?.startsWith('#server-to-user-'),
  );
  return { pusher, inbox, watchlist, wire: wireOf(pusher) };
}

test('signin answers with the user data exactly as it was signed', async (t) => {
  const { pusher, wire } = await signIn(t, 'alice');
  assert.deepEqual(pusher.user.user_data, { id: 'alice', user_info: { name: 'alice' } });
  const [{ text }] = wire.frames.seen('pusher:signin_success');
  const userData = JSON.stringify({ id: 'alice', user_info: { name: 'alice' } });
  const { event, data, ...rest } = JSON.parse(text);
  assert.equal(event, 'pusher:signin_success');
  assert.deepEqual(JSON.parse(data), { user_data: userData });
  assert.deepEqual(rest, {});
});

test('an event to a user reaches all his connections, once each, and nobody else', async (t) => {
  const [tab1, tab2, bob] = [await signIn(t, 'alice'), await signIn(t, 'alice'), await signIn(t, 'bob')];
  await main.sdk.sendToUser('alice', 'order-ready', { id: 7 });
  await main.sdk.sendToUser('bob', 'fence', {});
  await main.sdk.sendToUser('alice', 'fence', {});
  for (const { inbox } of [tab1, tab2]) {
    await inbox.next('fence');
    assert.deepEqual(inbox.seen('order-ready'), [{ event: 'order-ready', data: { id: 7 } }]);
  }
  await bob.inbox.next('fence');
  assert.deepEqual(bob.inbox.seen('order-ready'), []);
  const { text } = await tab1.wire.next('order-ready');
  assert.deepEqual(JSON.parse(text), { event: 'order-ready', channel: '#server-to-user-alice', data: '{"id":7}' });
});

test('server-to-user channels are not listed', async (t) => {
  await signIn(t, 'alice');
  const { channels } = await main.get('/channels');
  assert.deepEqual(Object.keys(channels).filter((name) => name.startsWith('#')), []);
});

test('nobody subscribes to another user’s events', async (t) => {
  const { pusher, wire } = await signIn(t, 'alice');
  pusher.send_event('pusher:subscribe', { auth: '', channel: '#server-to-user-bob' });
  const { data } = await wire.next('pusher:error');
  assert.equal(data.code, null);
  const stranger = await main.connect(t);
  stranger.send_event('pusher:subscribe', { auth: '', channel: '#server-to-user-alice' });
  await wireOf(stranger).next('pusher:error');
});

test('a forged sign-in is an error with code 4009, and the connection lives on', async (t) => {
  const pusher = await main.connect(t, {
    userAuthentication: {
      customHandler: (_, callback) => callback(null, { auth: `${main.key}:${'0'.repeat(64)}`, user_data: '{"id":"root"}' }),
    },
  });
  pusher.signin();
  const { data } = await wireOf(pusher).next('pusher:error');
  assert.equal(data.code, 4009);
  await wireOf(pusher).roundTrip();
  assert.equal(pusher.connection.state, 'connected');
  assert.deepEqual(wireOf(pusher).frames.seen('pusher:signin_success'), []);
});

test('a connection that belongs to a user cannot become another, but may sign in again', async (t) => {
  const { pusher, wire } = await signIn(t, 'alice');
  const signInAs = (id) => pusher.send_event('pusher:signin', main.sdk.authenticateUser(pusher.connection.socket_id, { id }));
  signInAs('bob');
  assert.equal((await wire.next('pusher:error')).data.code, 4009);
  signInAs('alice');
  await wire.next(({ event, data }) => event === 'pusher:signin_success' && !data.includes('user_info'));
});

test('a signed-in user joins presence channels without channel_data', async (t) => {
  const alice = await subscribe(await main.connect(t, { user: 'alice' }), 'presence-by-signin');
  const { pusher } = await signIn(t, 'member');
  const member = await subscribe(pusher, 'presence-by-signin');
  assert.deepEqual(member.channel.members.me, { id: 'member', info: { name: 'By sign-in' } });
  assert.deepEqual(await alice.next('pusher:member_added'), { id: 'member', info: { name: 'By sign-in' } });
});

test('terminate closes the user’s signed-in connections with 4009 for good, and no others', async (t) => {
  const [tab1, tab2, bob] = [await signIn(t, 'kicked'), await signIn(t, 'kicked'), await signIn(t, 'bob')];
  // Uses the same id on a presence channel but has not signed in: not terminated.
  const guest = await subscribe(await main.connect(t, { user: 'kicked' }), 'presence-guests');
  const states = events(tab1.pusher.connection, 'connection');
  const opened = wiresTo(main).length;

  const response = await main.sdk.terminateUserConnections('kicked');
  assert.equal(response.status, 200);
  assert.deepEqual(await response.json(), {});
  for (const { pusher, wire } of [tab1, tab2]) {
    assert.equal((await wire.closed()).code, 4009);
    assert.equal(pusher.connection.state, 'disconnected');
    assert.ok(!pusher.connection.retryTimer, 'pusher-js does not try again');
  }
  assert.equal((await states.next('error')).data.data.code, 4009);
  await bob.wire.roundTrip();
  await guest.settled(main);
  assert.equal(wiresTo(main).length, opened);

  const back = await signIn(t, 'kicked');
  await main.sdk.sendToUser('kicked', 'welcome', 'back');
  assert.equal((await back.inbox.next('welcome')).data, 'back');
});

test('an app can let terminated users come back at once', async (t) => {
  const { pusher, wire } = await signIn(t, 'alice', lenient);
  const reconnected = nextEvent(pusher.connection, 'connected');
  await lenient.sdk.terminateUserConnections('alice');
  assert.equal((await wire.closed()).code, 4200);
  await reconnected;
  assert.notEqual(wireOf(pusher), wire);
});

test('terminating an unknown user is a success', async () => {
  const response = await main.sdk.terminateUserConnections('never-seen');
  assert.equal(response.status, 200);
  assert.deepEqual(await response.json(), {});
});

test('a watchlist tells who is online, then who comes and goes', async (t) => {
  await signIn(t, 'bob');
  const { watchlist, wire } = await signIn(t, 'watcher');
  assert.deepEqual((await watchlist.next('online')).data, { name: 'online', user_ids: ['bob'] });
  assert.deepEqual((await watchlist.next('offline')).data, { name: 'offline', user_ids: ['carol'] });
  const [{ text }] = wire.frames.seen('pusher_internal:watchlist_events');
  const { data, ...rest } = JSON.parse(text);
  assert.deepEqual(rest, { event: 'pusher_internal:watchlist_events' });
  assert.deepEqual(JSON.parse(data), {
    events: [{ name: 'online', user_ids: ['bob'] }, { name: 'offline', user_ids: ['carol'] }],
  });
  const names = wire.frames.all.map(({ event }) => event);
  assert.ok(names.indexOf('pusher:signin_success') < names.indexOf('pusher_internal:watchlist_events'));

  const carol = await signIn(t, 'carol');
  assert.deepEqual((await watchlist.next('online')).data, { name: 'online', user_ids: ['carol'] });
  carol.pusher.disconnect();
  // Held for 3 s in case he only reloads the page.
  const gone = await watchlist.next('offline', { deadline: 8000 });
  assert.deepEqual(gone.data, { name: 'offline', user_ids: ['carol'] });
});

test('a watched user is offline when his last connection has been gone for a while', async (t) => {
  const [tab1, tab2, dave] = [await signIn(t, 'tabs'), await signIn(t, 'tabs'), await signIn(t, 'dave')];
  const { watchlist } = await signIn(t, 'tabWatcher');
  await watchlist.next(({ data }) => data.user_ids.includes('tabs'));
  const seenFirst = watchlist.all.length;
  tab1.pusher.disconnect();
  tab2.pusher.disconnect();
  await Promise.all([tab1.wire.closed(), tab2.wire.closed()]);
  const reloaded = await signIn(t, 'tabs');
  // dave leaves later than tabs did, so tabs would have been reported before him.
  dave.pusher.disconnect();
  assert.deepEqual((await watchlist.next('offline', { deadline: 8000 })).data.user_ids, ['dave']);
  assert.equal(watchlist.all.length, seenFirst + 1, JSON.stringify(watchlist.all));
  reloaded.pusher.disconnect();
  assert.deepEqual((await watchlist.next('offline', { deadline: 8000 })).data.user_ids, ['tabs']);
});

test('being a presence member is not being online', async (t) => {
  await subscribe(await main.connect(t, { user: 'carol' }), 'presence-not-online');
  const { watchlist } = await signIn(t, 'watcher');
  assert.ok((await watchlist.next('offline')).data.user_ids.includes('carol'));
});

test('a watchlist of more than 100 ids signs in, keeps the first 100 and says so', async (t) => {
  const { wire, watchlist } = await signIn(t, 'curious');
  const { data } = await wire.next('pusher:error');
  assert.deepEqual(data, { code: 4302, message: 'Watchlist limit exceeded. Only the first 100 user IDs are accepted.' });
  const { user_ids: ids } = (await watchlist.next('offline')).data;
  assert.equal(ids.length, 100);
  assert.ok(!ids.includes('user-100'));
});

test('an app without watchlists sends none', async (t) => {
  const { wire } = await signIn(t, 'watcher', unwatched);
  await signIn(t, 'bob', unwatched);
  await wire.roundTrip();
  assert.deepEqual(wire.frames.seen('pusher_internal:watchlist_events'), []);
});

test('sign-in is repeated after a reconnect', async (t) => {
  const { pusher, inbox } = await signIn(t, 'alice');
  const first = pusher.connection.socket_id;
  pusher.disconnect();
  pusher.connect();
  await nextEvent(pusher.connection, 'connected');
  assert.notEqual(pusher.connection.socket_id, first);
  await wireOf(pusher).next(({ channel }) => channel === '#server-to-user-alice');
  await main.sdk.sendToUser('alice', 'hello', 'again');
  assert.equal((await inbox.next('hello')).data, 'again');
});
