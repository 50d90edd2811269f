// Webhooks when things go wrong or fast: retries, order, batches, and the debounce of those who come right back.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { subscribe } from './support/events.js';
import { TestServer } from './support/server.js';
import { WebhookReceiver } from './support/webhook_receiver.js';
import { wireOf } from './support/wire.js';

const event_types = ['channel_occupied', 'channel_vacated', 'member_added', 'member_removed', 'client_event'];

/** A server with one webhook for all of `event_types`, and its receiver. */
async function start(t, webhooks = { retry_initial: '200ms' }) {
  const receiver = await WebhookReceiver.start();
  const server = await TestServer.start({ webhooks, apps: { main: { webhooks: [{ url: receiver.url, event_types }] } } });
  t.after(async () => {
    await server.stop();
    receiver.close();
  });
  return { receiver, server, main: server.apps.main };
}

test('golden rule 14: a failed webhook is sent again with a fresh time and signature, and the channel’s order is kept', async (t) => {
  const { receiver, main } = await start(t);
  let failures = 2;
  receiver.answer = () => (failures-- > 0 ? 500 : 200);
  const alice = await subscribe(await main.connect(t, { user: 'alice' }), 'presence-retried');
  alice.channel.trigger('client-x', 1);
  await receiver.next('client_event', 'presence-retried');
  assert.deepEqual(receiver.namesOf('presence-retried'), ['channel_occupied', 'member_added', 'client_event']);
  const attempts = receiver.deliveries.all;
  assert.equal(attempts.length, 5, 'two refused and three accepted requests');
  for (const { valid, rawBody } of attempts) assert.ok(valid, rawBody);
  assert.deepEqual(attempts[1].events, attempts[0].events);
  assert.deepEqual(attempts[2].events, attempts[0].events);
  assert.ok(attempts[1].time_ms > attempts[0].time_ms);
  // Twice the first pause of 200 ms, less what jitter may take off; a lower bound holds on a busy machine, too.
  assert.ok(attempts[2].time_ms - attempts[1].time_ms >= 250, 'it backs off');
});

test('redirects are failures, and any 2xx is a success', async (t) => {
  const { receiver, main } = await start(t);
  const statuses = [302, 204];
  receiver.answer = () => statuses.shift() ?? 200;
  await subscribe(await main.connect(t), 'statuses');
  await receiver.next('channel_occupied', 'statuses');
  await subscribe(await main.connect(t), 'next');
  await receiver.next('channel_occupied', 'next');
  assert.equal(receiver.deliveries.all.length, 3);
});

test('a slow endpoint delays no other app', async (t) => {
  const receivers = [await WebhookReceiver.start('stuck'), await WebhookReceiver.start('swift')];
  const hook = ({ url }) => ({ webhooks: [{ url, event_types }] });
  const server = await TestServer.start({ apps: { stuck: hook(receivers[0]), swift: hook(receivers[1]) } });
  let release;
  receivers[0].answer = () => new Promise((resolve) => (release = () => resolve(200)));
  t.after(async () => {
    receivers[0].answer = () => 200;
    release();
    await server.stop();
    for (const receiver of receivers) receiver.close();
  });
  const { stuck, swift } = server.apps;
  await subscribe(await stuck.connect(t), 'one');
  await receivers[0].deliveries.next();
  await subscribe(await swift.connect(t), 'two');
  await receivers[1].next('channel_occupied', 'two');
  assert.deepEqual(receivers[0].events.all, []);
});

test('with batching one request holds what piled up meanwhile, in order', async (t) => {
  const { receiver, main } = await start(t, { batching: true });
  let release;
  const held = new Promise((resolve) => (release = resolve));
  receiver.answer = async () => {
    await held;
    return 200;
  };
  const alice = await subscribe(await main.connect(t, { user: 'alice' }), 'private-piled');
  await receiver.deliveries.next();
  for (let n = 0; n < 5; n += 1) alice.channel.trigger('client-n', n);
  await wireOf(alice.pusher).roundTrip();
  release();
  await receiver.events.next(({ data }) => data === '4');
  const sent = receiver.events.seen(({ name }) => name === 'client_event').map(({ data }) => data);
  assert.deepEqual(sent, ['0', '1', '2', '3', '4']);
  assert.ok(receiver.deliveries.all.length < 6, 'fewer requests than events');
  assert.ok(receiver.deliveries.all.every(({ valid }) => valid));
});

test('golden rule 14: whoever comes back within the delay is neither reported gone nor come', async (t) => {
  const { receiver, main } = await start(t, { vacated_delay: '3s' });
  const alice = await main.connect(t, { user: 'alice' });
  await subscribe(alice, 'presence-reloaded');
  await receiver.next('member_added', 'presence-reloaded');
  const begin = Date.now();
  alice.disconnect();
  const back = await main.connect(t, { user: 'alice' });
  await subscribe(back, 'presence-reloaded');
  // Another channel goes through the whole delay afterwards; what the reload caused would have come before.
  const bob = await main.connect(t, { user: 'bob' });
  await subscribe(bob, 'presence-left');
  const left = Date.now();
  bob.disconnect();
  await receiver.next('channel_vacated', 'presence-left', { deadline: 8000 });
  const delay = Date.now() - left;
  assert.ok(delay >= 2500 && delay < 5000, `vacated after ${delay} ms`);
  assert.ok(Date.now() - begin >= 3000);
  assert.deepEqual(receiver.namesOf('presence-reloaded'), ['channel_occupied', 'member_added']);
  assert.deepEqual(receiver.namesOf('presence-left').sort(), [
    'channel_occupied', 'channel_vacated', 'member_added', 'member_removed',
  ]);
});

test('shutdown flushes what is waiting', async () => {
  const receiver = await WebhookReceiver.start();
  const server = await TestServer.start({
    webhooks: { vacated_delay: '100ms' },
    apps: { main: { webhooks: [{ url: receiver.url, event_types }] } },
  });
  const { main } = server.apps;
  let release;
  const held = new Promise((resolve) => (release = resolve));
  receiver.answer = async () => {
    await held;
    return 200;
  };
  const clean = { after: () => {} };
  const alice = await subscribe(await main.connect(clean, { user: 'alice' }), 'private-last');
  alice.channel.trigger('client-x', 'last words');
  await receiver.deliveries.next();
  const stopped = server.stop();
  alice.pusher.disconnect();
  release();
  await stopped;
  assert.ok(receiver.namesOf('private-last').includes('client_event'));
  receiver.close();
});
