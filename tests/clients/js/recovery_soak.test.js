// Cuts at random, half of them inside a frame, while events go on: nothing is lost, doubled or disordered for clients with the companion,
// and a stock client gets, byte for byte, what a server without recovery sends it.
//
//   FANFARE_SOAK_SECONDS=600 node --test recovery_soak.test.js      longer

import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { subscribe } from './support/events.js';
import { eventually } from './support/inbox.js';
import { Recovering, listen } from './support/recovering.js';
import { TestServer } from './support/server.js';
import { wireOf } from './support/wire.js';

const SECONDS = Number(process.env.FANFARE_SOAK_SECONDS ?? 20);
const CHANNELS = ['soak', 'private-soak', 'presence-soak', 'private-encrypted-soak', 'cache-soak'];
const PAUSE_MS = 4;

// Members come and go with each cut, which is no part of the comparison.
const app = { subscription_count: false };
const [server, plain] = await Promise.all([
  TestServer.start({ apps: { main: app } }),
  TestServer.start({ apps: { main: app }, recovery: { enabled: false } }),
]);
after(() => Promise.all([server.stop(), plain.stop()]));

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Cuts a client off, again and again; resolves to how often. */
async function cutter(client, end) {
  let cuts = 0;
  while (Date.now() < end) {
    await pause(300 + Math.random() * 1200);
    if (client.pusher.connection.state !== 'connected') continue;
    if (Math.random() < 0.5) client.proxy.cut();
    else client.proxy.cutAfter(1 + Math.floor(Math.random() * 800));
    cuts += 1;
  }
  return cuts;
}

/** The published events in a client's frames, by channel. */
function textsOf(pusher) {
  const frames = wireOf(pusher).frames.seen('numbered');
  return Object.fromEntries(CHANNELS.map((name) => [name, frames.filter(({ channel }) => channel === name).map(({ text }) => text)]));
}

test(`${SECONDS} s of cuts`, { timeout: (SECONDS + 60) * 1000 }, async (t) => {
  const clients = await Promise.all(['alice', 'bob'].map((user) => Recovering.connect(t, server.apps.main, { user })));
  const inboxes = [];
  for (const client of clients) {
    for (const name of CHANNELS) {
      const { channel } = await client.subscribe(name);
      inboxes.push({ name, inbox: listen(channel, 'numbered') });
    }
  }
  const stock = await Promise.all([server, plain].map(({ apps }) => apps.main.connect(t, { user: 'carol' })));
  for (const pusher of stock) for (const name of CHANNELS) await subscribe(pusher, name);

  const end = Date.now() + SECONDS * 1000;
  const cutting = clients.map((client) => cutter(client, end));
  const published = Object.fromEntries(CHANNELS.map((name) => [name, 0]));
  while (Date.now() < end) {
    const name = CHANNELS[Math.floor(Math.random() * CHANNELS.length)];
    published[name] += 1;
    const number = published[name];
    // Encrypted once, so that both servers get the same text.
    const body = await encoded(name, number);
    await Promise.all([server, plain].map((to) => to.apps.main.sdk.post({ path: '/events', body })));
    await pause(PAUSE_MS);
  }
  const cuts = (await Promise.all(cutting)).reduce((sum, count) => sum + count);
  const complete = () => inboxes.every(({ name, inbox }) => inbox.all.at(-1) === published[name]);
  await eventually(complete, 'the last event of each channel arrives', 20_000);

  const total = Object.values(published).reduce((sum, count) => sum + count);
  t.diagnostic(`${total} events, ${cuts} cuts, ${clients.map(({ recovered }) => recovered.all.length)} subscriptions recovered`);
  for (const { name, inbox } of inboxes) {
    assert.deepEqual(inbox.all, Array.from({ length: published[name] }, (_, index) => index + 1), name);
  }
  for (const client of clients) assert.deepEqual(client.gaps.all, []);
  assert.ok(cuts >= SECONDS / 4, `${cuts} cuts`);
  const given = clients.flatMap(({ recovered }) => recovered.all.map(({ count }) => count));
  assert.ok(given.some((count) => count > 0), 'something was given back');

  const whole = () => stock.every((pusher) => CHANNELS.every((name) => textsOf(pusher)[name].length === published[name]));
  await eventually(whole, 'the stock clients have everything');
  assert.deepEqual(...stock.map(textsOf));
});

/** What the SDK posts to trigger a number. */
async function encoded(channel, data) {
  let sent;
  const { sdk } = server.apps.main;
  const capture = Object.create(sdk, { post: { value: ({ body }) => (sent = body) } });
  await capture.trigger(channel, 'numbered', data);
  return sent;
}
