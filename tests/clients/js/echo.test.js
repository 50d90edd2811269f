// Laravel Echo, with both broadcaster names, against what a Laravel application publishes.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { Inbox, eventually } from './support/inbox.js';
import { TestServer } from './support/server.js';
import { wireOf } from './support/wire.js';

const users = {
  alice: { id: '1', info: { id: 1, name: 'Alice' } },
  bob: { id: '2', info: { id: 2, name: 'Bob' } },
};
const server = await TestServer.start({ apps: { main: { users } } });
after(() => server.stop());
const { main } = server.apps;

/** Collects what an Echo callback is called with. */
function calls(label) {
  const inbox = new Inbox(label);
  const callback = (value) => inbox.push(value);
  return Object.assign(callback, { inbox, next: () => inbox.next() });
}

/** Resolves when the Echo channel is subscribed. */
function ready(channel) {
  const subscribed = calls(`${channel.name} subscribed`);
  channel.subscribed(() => subscribed(true));
  return subscribed.next().then(() => channel);
}

/** What `toOthers` and `broadcastAs` become in the SDK call that Laravel makes. */
const broadcast = (channel, name, payload, except) =>
  main.sdk.trigger(channel, name, payload, except && { socket_id: except.socketId() });

for (const broadcaster of ['pusher', 'reverb']) {
  const echoFor = (t, user) => main.echo(t, { broadcaster, user });

  for (const [call, prefix] of [
    ['channel', ''], ['private', 'private-'], ['encryptedPrivate', 'private-encrypted-'], ['join', 'presence-'],
  ]) {
    test(`${broadcaster}: ${call}() hears namespaced, dotted and absolute event names`, async (t) => {
      const echo = echoFor(t, 'alice');
      const [shipped, dotted, absolute] = [calls('shipped'), calls('dotted'), calls('absolute')];
      const channel = echo[call]('orders.1');
      channel.listen('OrderShipped', shipped).listen('.order.shipped', dotted).listen('\\Other\\Event', absolute);
      await ready(channel);
      await broadcast(`${prefix}orders.1`, 'App\\Events\\OrderShipped', { order: { id: 1 } });
      await broadcast(`${prefix}orders.1`, 'order.shipped', { order: { id: 2 } });
      await broadcast(`${prefix}orders.1`, 'Other\\Event', { order: { id: 3 } });
      assert.deepEqual(await shipped.next(), { order: { id: 1 } });
      assert.deepEqual(await dotted.next(), { order: { id: 2 } });
      assert.deepEqual(await absolute.next(), { order: { id: 3 } });
    });
  }

  test(`${broadcaster}: toOthers() leaves out the page that made the request`, async (t) => {
    const [alice, bob] = [echoFor(t, 'alice'), echoFor(t, 'bob')];
    const [hers, his] = [calls('alice'), calls('bob')];
    for (const [echo, heard] of [[alice, hers], [bob, his]]) {
      await ready(echo.private('desk').listen('Moved', heard));
    }
    await broadcast('private-desk', 'App\\Events\\Moved', { n: 1 }, alice);
    await broadcast('private-desk', 'App\\Events\\Moved', { n: 2 });
    assert.deepEqual(await hers.next(), { n: 2 });
    assert.deepEqual(await his.next(), { n: 1 });
    assert.deepEqual(await his.next(), { n: 2 });
  });

  test(`${broadcaster}: whispers reach the other listeners on private and presence channels`, async (t) => {
    const [alice, bob] = [echoFor(t, 'alice'), echoFor(t, 'bob')];
    for (const call of ['private', 'join']) {
      const [hers, his] = [calls('alice'), calls('bob')];
      const from = await ready(alice[call]('chat').listenForWhisper('typing', hers));
      await ready(bob[call]('chat').listenForWhisper('typing', his));
      from.whisper('typing', { name: 'Alice' });
      assert.deepEqual(await his.next(), { name: 'Alice' });
      bob[call]('chat').whisper('typing', { name: 'Bob' });
      // Hers would be first if the sender got it back.
      assert.deepEqual(await hers.next(), { name: 'Bob' });
    }
  });

  test(`${broadcaster}: here, joining and leaving hand over the user info`, async (t) => {
    const [alice, bob] = [echoFor(t, 'alice'), echoFor(t, 'bob')];
    const [here, joining, leaving, hereToo] = ['here', 'joining', 'leaving', 'here too'].map(calls);
    alice.join('team').here(here).joining(joining).leaving(leaving);
    assert.deepEqual(await here.next(), [{ id: 1, name: 'Alice' }]);
    bob.join('team').here(hereToo);
    assert.deepEqual(await hereToo.next(), [{ id: 1, name: 'Alice' }, { id: 2, name: 'Bob' }]);
    assert.deepEqual(await joining.next(), { id: 2, name: 'Bob' });
    bob.leave('team');
    assert.deepEqual(await leaving.next(), { id: 2, name: 'Bob' });
  });

  test(`${broadcaster}: leave() leaves the public, private, encrypted and presence channel of the name`, async (t) => {
    const echo = echoFor(t, 'alice');
    for (const call of ['channel', 'private', 'encryptedPrivate', 'join']) await ready(echo[call]('desk.9'));
    const occupied = async () => Object.keys((await main.get('/channels')).channels).filter((name) => name.endsWith('desk.9'));
    assert.equal((await occupied()).length, 4);
    echo.leave('desk.9');
    await eventually(async () => (await occupied()).length === 0, 'all four are left');
    assert.deepEqual(wireOf(echo.connector.pusher).frames.seen('pusher:error'), []);
  });

  test(`${broadcaster}: error() is called when the application denies a channel`, async (t) => {
    const error = calls('error');
    echoFor(t, 'alice').private('forbidden.1').error(error);
    const { type, status } = await error.next();
    assert.deepEqual({ type, status }, { type: 'AuthError', status: 403 });
  });

  test(`${broadcaster}: error() is called when the server denies a channel`, async (t) => {
    const error = calls('error');
    const echo = main.echo(t, {
      broadcaster,
      channelAuthorization: { customHandler: (_, callback) => callback(null, { auth: `${main.key}:${'0'.repeat(64)}` }) },
    });
    echo.private('orders.1').error(error);
    const { type, status } = await error.next();
    assert.deepEqual({ type, status }, { type: 'AuthError', status: 401 });
    assert.equal(echo.connectionStatus(), 'connected');
  });

  test(`${broadcaster}: notification() hears broadcast notifications`, async (t) => {
    const notified = calls('notification');
    await ready(echoFor(t, 'alice').private('App.Models.User.1').notification(notified));
    const payload = { id: 'f3c0', type: 'App\\Notifications\\InvoicePaid', amount: 1000 };
    const name = 'Illuminate\\Notifications\\Events\\BroadcastNotificationCreated';
    await broadcast('private-App.Models.User.1', name, payload);
    assert.deepEqual(await notified.next(), payload);
  });

  test(`${broadcaster}: listenToAll and stopListening`, async (t) => {
    const [everything, stopped] = [calls('all'), calls('stopped')];
    const channel = await ready(echoFor(t, 'alice').channel('feed').listen('Posted', stopped));
    channel.stopListening('Posted', stopped).listenToAll((event, data) => everything({ event, data }));
    await broadcast('feed', 'App\\Events\\Posted', { id: 1 });
    await broadcast('feed', 'feed.closed', { id: 2 });
    assert.deepEqual(await everything.next(), { event: 'Posted', data: { id: 1 } });
    assert.deepEqual(await everything.next(), { event: '.feed.closed', data: { id: 2 } });
    assert.deepEqual(stopped.inbox.all, []);
  });

  test(`${broadcaster}: connection status and socket id follow the connection`, async (t) => {
    const echo = echoFor(t, 'alice');
    assert.equal(echo.connectionStatus(), 'connecting');
    const status = new Inbox('status');
    t.after(echo.connector.onConnectionChange((value) => status.push(value)));
    await status.next((value) => value === 'connected');
    assert.match(echo.socketId(), /^\d+\.\d+$/);
    echo.disconnect();
    await status.next((value) => value === 'disconnected');
  });
}
