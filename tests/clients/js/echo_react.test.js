// @laravel/echo-react's hooks in a rendered page.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { Inbox, eventually } from './support/inbox.js';
import { configure, echoReact, mount } from './support/react.js';
import { TestServer } from './support/server.js';
import { wireOf } from './support/wire.js';

const {
  useConnectionStatus, useEcho, useEchoModel, useEchoNotification, useEchoPresence, useEchoPublic, usePresenceChannel,
  useSocketId,
} = echoReact;

const server = await TestServer.start();
after(() => server.stop());
const { main } = server.apps;

/** Waits until this page's connection is subscribed. */
const subscribed = (echo, name) =>
  eventually(() => echo.connector.pusher.channel(name)?.subscribed, `${name} is subscribed`);
const vacated = (name) => eventually(async () => !(await main.get(`/channels/${name}`)).occupied, `${name} is vacated`);

/** Triggers `event`; what the page hears next. */
async function heard(inbox, channel, event, data) {
  await main.sdk.trigger(channel, event, data);
  return inbox.next();
}

const wire = (echo) => wireOf(echo.connector.pusher);

for (const broadcaster of ['reverb', 'pusher']) {
  test(`${broadcaster}: useEcho hears a private channel once per event, although StrictMode mounts twice`, async (t) => {
    const echo = configure(t, main, { broadcaster, user: 'alice' });
    const inbox = new Inbox('useEcho');
    mount(t, () => useEcho('orders.1', 'OrderShipped', (payload) => inbox.push(payload)));
    await subscribed(echo, 'private-orders.1');
    await main.sdk.trigger('private-orders.1', 'App\\Events\\OrderShipped', { id: 1 });
    await main.sdk.trigger('private-orders.1', 'App\\Events\\OrderShipped', { id: 2 });
    assert.deepEqual(await inbox.next(), { id: 1 });
    assert.deepEqual(await inbox.next(), { id: 2 });
    assert.equal(inbox.all.length, 2);
    assert.deepEqual(wire(echo).frames.seen('pusher:error'), []);
  });
}

for (const [what, hook, channel, event] of [
  ['useEchoPublic', (heard) => useEchoPublic('news', 'Posted', heard), 'news', 'App\\Events\\Posted'],
  ['useEchoPresence', (heard) => useEchoPresence('room', ['.a', '.b'], heard), 'presence-room', 'b'],
  ['useEchoModel', (heard) => useEchoModel('App.Models.User', 7, 'UserUpdated', heard), 'private-App.Models.User.7', 'UserUpdated'],
  [
    'useEchoNotification', (heard) => useEchoNotification('App.Models.User.8', heard, 'InvoicePaid'),
    'private-App.Models.User.8', 'Illuminate\\Notifications\\Events\\BroadcastNotificationCreated',
  ],
]) {
  test(`${what} hears its channel until it is unmounted`, async (t) => {
    const echo = configure(t, main, { user: 'alice' });
    const inbox = new Inbox(what);
    const page = mount(t, () => hook((payload) => inbox.push(payload)));
    await subscribed(echo, channel);
    const payload = { id: 'n1', type: 'InvoicePaid' };
    assert.deepEqual(await heard(inbox, channel, event, payload), payload);
    assert.equal(inbox.all.length, 1);
    page.unmount();
    await vacated(channel);
    assert.deepEqual(wire(echo).frames.seen('pusher:error'), []);
  });
}

test('usePresenceChannel knows who is here and who comes', async (t) => {
  configure(t, main, { user: 'alice' });
  const [here, joining] = [new Inbox('here'), new Inbox('joining')];
  let channel;
  mount(t, () => ({ channel } = usePresenceChannel('lobby')));
  await eventually(() => channel?.(), 'the channel exists');
  channel().here((members) => here.push(members)).joining((member) => joining.push(member));
  assert.deepEqual(await here.next(), [{ name: 'alice' }]);
  const bob = await main.connect(t, { user: 'bob' });
  bob.subscribe('presence-lobby');
  assert.deepEqual(await joining.next(), { name: 'bob' });
});

test('useConnectionStatus and useSocketId follow the connection', async (t) => {
  const echo = configure(t, main, { user: 'alice' });
  const page = mount(t, () => `${useConnectionStatus()} ${useSocketId()}`);
  assert.match(page.text, /^connecting /);
  await eventually(() => page.text === `connected ${echo.socketId()}`, 'the page shows "connected"');
  echo.disconnect();
  await eventually(() => page.text.startsWith('disconnected'), 'the page shows "disconnected"');
});

test('two components share one subscription, and the last one to go leaves it', async (t) => {
  const echo = configure(t, main, { user: 'alice' });
  const [first, second] = [new Inbox('first'), new Inbox('second')];
  const pages = [first, second].map((inbox) => mount(t, () => useEcho('shared', '.event', (payload) => inbox.push(payload))));
  await subscribed(echo, 'private-shared');
  await main.sdk.trigger('private-shared', 'event', 1);
  assert.equal(await first.next(), 1);
  assert.equal(await second.next(), 1);
  pages[0].unmount();
  await main.sdk.trigger('private-shared', 'event', 2);
  assert.equal(await second.next(), 2);
  assert.deepEqual(first.all, [1]);
  pages[1].unmount();
  await vacated('private-shared');
  assert.deepEqual(wire(echo).frames.seen('pusher:error'), []);
});

test('golden rule 10: a component that flips between channels ends subscribed to the last one only', async (t) => {
  const echo = configure(t, main, { user: 'alice' });
  const inbox = new Inbox('flipping');
  const page = mount(t, ({ id }) => useEchoPublic(`table.${id}`, '.event', (payload) => inbox.push(payload)), { id: 0 });
  await subscribed(echo, 'table.0');
  // Each flip leaves one channel and joins the other again while the frames of the flip before are still under way.
  for (let flip = 1; flip <= 21; flip += 1) page.render({ id: flip % 2 });
  await vacated('table.0');
  await subscribed(echo, 'table.1');
  assert.deepEqual(await heard(inbox, 'table.1', 'event', 'here'), 'here');
  assert.deepEqual(wire(echo).frames.seen('pusher:error'), []);
});
