// Webhooks as a receiver sees them: what is sent, signed how, filtered by what.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { sdkFor } from './support/app.js';
import { subscribe } from './support/events.js';
import { TestServer } from './support/server.js';
import { WebhookReceiver } from './support/webhook_receiver.js';
import { wireOf } from './support/wire.js';

const receiver = await WebhookReceiver.start();
const filtered = await WebhookReceiver.start();
const server = await TestServer.start({
  // The debounce has a file of its own; here it would only cost time.
  webhooks: { vacated_delay: '100ms' },
  apps: {
    main: {
      webhooks: [
        {
          url: `${receiver.url}/all`,
          event_types: [
            'channel_occupied', 'channel_vacated', 'member_added', 'member_removed', 'client_event', 'cache_miss',
            'subscription_count',
          ],
        },
        {
          url: `${filtered.url}/filtered?team=till`,
          event_types: ['channel_occupied', 'client_event'],
          filter: { channel_name_starts_with: 'private-orders', channel_name_ends_with: '-eu' },
          headers: { 'X-Team': 'till', Authorization: 'Bearer 123' },
        },
      ],
    },
  },
});
after(async () => {
  await server.stop();
  receiver.close();
  filtered.close();
});
const { main } = server.apps;

const delivered = (channel) => receiver.deliveries.seen(({ events }) => events[0].channel === channel);

test('golden rule 14: content type, key, signature and time are what the SDK verifies', async (t) => {
  const begin = Date.now();
  await subscribe(await main.connect(t), 'verified');
  await receiver.next('channel_occupied', 'verified');
  const [{ path, headers, rawBody, valid, time_ms: time }] = delivered('verified');
  assert.equal(path, '/all');
  assert.equal(headers['content-type'], 'application/json');
  assert.equal(headers['x-pusher-key'], main.key);
  assert.match(headers['x-pusher-signature'], /^[0-9a-f]{64}$/);
  assert.ok(valid);
  assert.ok(Number.isInteger(time) && time >= begin && time <= Date.now(), String(time));
  assert.deepEqual(JSON.parse(rawBody), { time_ms: time, events: [{ name: 'channel_occupied', channel: 'verified' }] });
  const stranger = sdkFor('main', undefined, { secret: 'other' });
  assert.ok(!stranger.webhook({ headers, rawBody }).isValid());
});

test('channel_occupied and channel_vacated tell of the first and the last subscriber', async (t) => {
  const [alice, bob] = [await main.connect(t, { user: 'alice' }), await main.connect(t, { user: 'bob' })];
  for (const name of ['life', 'private-life', 'presence-life', 'cache-life', 'private-encrypted-life']) {
    for (const client of [alice, bob]) await subscribe(client, name);
    assert.deepEqual(await receiver.next('channel_occupied', name), { name: 'channel_occupied', channel: name });
    alice.unsubscribe(name);
    bob.unsubscribe(name);
    assert.deepEqual(await receiver.next('channel_vacated', name), { name: 'channel_vacated', channel: name });
    const lifecycle = receiver.namesOf(name).filter((event) => event.startsWith('channel_'));
    assert.deepEqual(lifecycle, ['channel_occupied', 'channel_vacated']);
  }
});

test('golden rule 9: member_added and member_removed are sent once per user, with string ids', async (t) => {
  const name = 'presence-hooked';
  const alice = await main.connect(t, { user: 'alice' });
  await subscribe(alice, name);
  const tabs = [await main.connect(t, { user: '7' }), await main.connect(t, { user: '7' })];
  for (const tab of tabs) await subscribe(tab, name);
  const added = await receiver.next('member_added', name);
  assert.deepEqual(added, { name: 'member_added', channel: name, user_id: 'alice' });
  assert.deepEqual(await receiver.next('member_added', name), { name: 'member_added', channel: name, user_id: '7' });
  for (const tab of tabs) tab.disconnect();
  assert.deepEqual(await receiver.next('member_removed', name), { name: 'member_removed', channel: name, user_id: '7' });
  alice.disconnect();
  await receiver.next('channel_vacated', name);
  assert.deepEqual(receiver.namesOf(name), [
    'channel_occupied', 'member_added', 'member_added', 'member_removed', 'member_removed', 'channel_vacated',
  ]);
});

test('client_event carries event, data, socket_id, and user_id on presence channels', async (t) => {
  for (const [name, extra] of [['private-said', {}], ['presence-said', { user_id: 'alice' }]]) {
    const alice = await subscribe(await main.connect(t, { user: 'alice' }), name);
    alice.channel.trigger('client-said', { text: 'é/' });
    assert.deepEqual(await receiver.next('client_event', name), {
      name: 'client_event', channel: name, event: 'client-said', data: '{"text":"é/"}',
      socket_id: alice.pusher.connection.socket_id, ...extra,
    });
  }
});

test('cache_miss tells the application to fill the cache', async (t) => {
  await subscribe(await main.connect(t), 'cache-hooked');
  assert.deepEqual(await receiver.next('cache_miss', 'cache-hooked'), { name: 'cache_miss', channel: 'cache-hooked' });
  await main.sdk.trigger('cache-hooked', 'price', 1);
  const second = await subscribe(await main.connect(t), 'cache-hooked');
  await second.next('price');
  await receiver.events.next(({ subscription_count: count, channel }) => channel === 'cache-hooked' && count === 2);
  assert.equal(receiver.namesOf('cache-hooked').filter((name) => name === 'cache_miss').length, 1);
});

test('subscription_count is sent with each change, but not for presence channels', async (t) => {
  const [alice, bob] = [await main.connect(t, { user: 'alice' }), await main.connect(t, { user: 'bob' })];
  await subscribe(alice, 'presence-counted');
  const counts = [];
  const next = async () => counts.push(await receiver.next('subscription_count', 'counted'));
  await subscribe(alice, 'counted').then(next);
  await subscribe(bob, 'counted').then(next);
  bob.unsubscribe('counted');
  await next();
  const event = (count) => ({ name: 'subscription_count', channel: 'counted', subscription_count: count });
  assert.deepEqual(counts, [1, 2, 1].map(event));
  assert.ok(!receiver.namesOf('presence-counted').includes('subscription_count'));
});

test('a webhook gets only its event types and channels, with its headers, signed over what it gets', async (t) => {
  const alice = await main.connect(t, { user: 'alice' });
  for (const name of ['orders-eu', 'private-orders-us', 'presence-private-orders-eu', 'private-orders-eu']) {
    const { channel } = await subscribe(alice, name);
    if (name.startsWith('p')) channel.trigger('client-x', name);
    await receiver.next('channel_occupied', name);
  }
  await filtered.next('client_event', 'private-orders-eu');
  assert.deepEqual(filtered.events.all.map(({ name, channel }) => [name, channel]), [
    ['channel_occupied', 'private-orders-eu'],
    ['client_event', 'private-orders-eu'],
  ]);
  for (const { path, headers, valid } of filtered.deliveries.all) {
    assert.equal(path, '/filtered?team=till');
    assert.equal(headers['x-team'], 'till');
    assert.equal(headers.authorization, 'Bearer 123');
    assert.ok(valid);
  }
});

test('server-to-user channels have no webhooks', async (t) => {
  const alice = await main.connect(t, { user: 'alice' });
  alice.signin();
  await wireOf(alice).next(({ event, channel }) => event.endsWith('subscription_succeeded') && channel.startsWith('#'));
  await subscribe(alice, 'after-signin');
  await receiver.next('channel_occupied', 'after-signin');
  assert.deepEqual(receiver.events.seen(({ channel }) => channel.startsWith('#')), []);
});

test('without batching each request holds one event, and every request was valid', () => {
  assert.ok(receiver.deliveries.all.length > 20);
  for (const { events, valid, rawBody } of receiver.deliveries.all) {
    assert.equal(events.length, 1);
    assert.ok(valid, rawBody);
  }
});
