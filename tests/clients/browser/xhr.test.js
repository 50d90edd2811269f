// pusher-js's browser build without a WebSocket, over both of its HTTP transports.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { eventually } from '../js/support/inbox.js';
import { WebhookReceiver } from '../js/support/webhook_receiver.js';
import { openPage } from './support/chromium.js';
import { PageClient } from './support/page_client.js';
import { startStage } from './support/stage.js';

/** Long enough for a page that a busy machine lets wait between two polls. */
const GRACE = '3s';
const EVENTS = 2_000;
const DEADLINE = { deadline: 60_000 };

const webhooks = await WebhookReceiver.start();
after(() => webhooks.close());
const { server, main, site, browser } = await startStage({
  apps: {
    main: { webhooks: [{ url: webhooks.url, event_types: ['member_added', 'member_removed', 'client_event'] }] },
    picky: { allowed_origins: ['shop.test'] },
  },
  xhr: { grace: GRACE },
  webhooks: { vacated_delay: '0s' },
});
const { picky } = server.apps;

/** A page with a pusher-js that has only this transport. */
async function start(t, transport, { app = main, key = app.key, user, ...options } = {}) {
  const page = await openPage(t, browser, site.url);
  const headers = user ? { Authorization: `Bearer ${user}` } : {};
  return PageClient.start(page, key, {
    cluster: 'mt1',
    httpHost: '127.0.0.1',
    httpPort: server.port,
    forceTLS: false,
    enabledTransports: [transport],
    channelAuthorization: { endpoint: '/broadcasting/auth', headers },
    userAuthentication: { endpoint: '/broadcasting/user-auth', headers },
    ...options,
  });
}

for (const transport of ['xhr_streaming', 'xhr_polling']) {
  test(`${transport}: 2,000 events arrive in order, over more than one stream's length`, async (t) => {
    const client = await start(t, transport);
    const socketId = await client.connected();
    assert.equal(await client.transport(), transport);
    const name = `volume-${transport}`;
    await client.subscribe(name);
    await client.page.evaluate((name) => {
      window.numbers = [];
      window.pusher.channel(name).bind('number', ({ number }) => window.numbers.push(number));
    }, name);
    const receives = [];
    client.page.on('request', (request) => /\/xhr(_streaming)?\?/.test(request.url()) && receives.push(request.url()));
    const padding = 'é'.repeat(300);
    for (let number = 0; number < EVENTS; number += 10) {
      const batch = Array.from({ length: 10 }, (_, index) => ({ channel: name, name: 'number', data: { number: number + index, padding } }));
      await main.sdk.triggerBatch(batch);
    }
    await client.page.waitForFunction((count) => window.numbers.length >= count, EVENTS, { timeout: DEADLINE.deadline });
    const numbers = await client.page.evaluate(() => window.numbers);
    assert.deepEqual(numbers, Array.from({ length: EVENTS }, (_, number) => number));
    // It is still the first session, and no second connection was established.
    assert.equal(await client.page.evaluate(() => window.pusher.connection.socket_id), socketId);
    assert.equal(client.connection.seen('connected').length, 1);
    assert.equal(new Set(receives.map((url) => url.match(/\/app\/[^/]+\/(\d+\/\w+)\//)[1])).size, 1);
    assert.ok(receives.length >= 2, `${receives.length} more receive requests`);
    assert.deepEqual(client.page.errors, []);
  });

  test(`${transport}: presence, client events and the exclusion of the sender`, async (t) => {
    const name = `presence-room-${transport}`;
    const [alice, bob] = [await start(t, transport, { user: 'alice' }), await start(t, transport, { user: 'bob' })];
    const aliceId = await alice.connected();
    const room = await alice.subscribe(name);
    assert.deepEqual(Object.keys(room.succeeded.members), ['alice']);
    await bob.connected();
    const theirs = await bob.subscribe(name);
    assert.deepEqual(Object.keys(theirs.succeeded.members).sort(), ['alice', 'bob']);
    assert.equal((await room.next('pusher:member_added')).data.id, 'bob');

    await bob.trigger(name, 'client-typing', { in: 'order 7' });
    assert.deepEqual((await room.next('client-typing')).data, { in: 'order 7' });
    await webhooks.next('client_event', name);

    await main.sdk.trigger(name, 'to-others', { id: 7 }, { socket_id: aliceId });
    await main.sdk.trigger(name, 'to-all', {});
    await room.next('to-all');
    await theirs.next('to-all');
    assert.deepEqual(room.seen('to-others'), []);
    assert.deepEqual((await theirs.next('to-others')).data, { id: 7 });
    assert.deepEqual(theirs.seen('client-typing'), []);

    // A closed tab says nothing; its member leaves when its requests have been away for the grace time.
    await bob.page.context().close();
    assert.equal((await room.next('pusher:member_removed', { deadline: 15_000 })).data.id, 'bob');
    await webhooks.next('member_removed', name, { deadline: 15_000 });
    const { users } = await main.get(`/channels/${name}/users`);
    assert.deepEqual(users, [{ id: 'alice' }]);
  });

  test(`${transport}: sign-in, events to the user, and its termination`, async (t) => {
    const client = await start(t, transport, { user: `carol-${transport}` });
    await client.connected();
    await client.call('signin');
    const subscribed = () => client.page.evaluate(() => window.pusher.user.serverToUserChannel?.subscribed);
    await eventually(subscribed, 'pusher-js is signed in, and subscribed to what is for its user');
    await main.sdk.sendToUser(`carol-${transport}`, 'greeting', { text: 'hello' });
    assert.deepEqual((await client.user.next('greeting')).data, { text: 'hello' });
    await main.sdk.terminateUserConnections(`carol-${transport}`);
    await client.connection.next('disconnected');
    const error = client.connection.seen('error').at(-1).data;
    assert.equal(error.error.data?.code ?? error.data?.code, 4009);
  });

  test(`${transport}: a channel that keeps its event, and leaving it`, async (t) => {
    const client = await start(t, transport, { user: 'alice' });
    await client.connected();
    const cache = await client.subscribe(`cache-price-${transport}`);
    await cache.next('pusher:cache_miss');
    await main.sdk.trigger(`cache-price-${transport}`, 'price', { eur: 3 });
    assert.deepEqual((await cache.next('price')).data, { eur: 3 });
    await client.call('unsubscribe', `cache-price-${transport}`);
    const occupied = async () => (await main.get(`/channels/cache-price-${transport}`)).occupied;
    await eventually(async () => !(await occupied()), 'it has left');
  });

  test(`${transport}: an unknown key is refused with 4001, for good`, async (t) => {
    const client = await start(t, transport, { key: 'no-such-key' });
    await client.connection.next('disconnected');
    const [{ data: error }] = client.connection.seen('error');
    const message = 'App key no-such-key not in this cluster. Did you forget to specify the cluster?';
    assert.deepEqual(error.error?.data ?? error.data, { code: 4001, message });
    assert.ok(await client.page.evaluate(() => !window.pusher.connection.retryTimer), 'pusher-js does not try again');
  });

  test(`${transport}: a page of another origin is refused with 4009`, async (t) => {
    const client = await start(t, transport, { app: picky });
    await client.connection.next('disconnected');
    const [{ data: error }] = client.connection.seen('error');
    assert.deepEqual(error.error?.data ?? error.data, { code: 4009, message: 'Origin not allowed' });
  });
}
