// All nodes are replaced, one after the other, under load: stock clients lose what falls into their own gap, and with the companion nobody
// loses anything.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { events } from './support/events.js';
import { eventually, within } from './support/inbox.js';
import { Recovering, listen } from './support/recovering.js';
import { CLUSTER, TestServer } from './support/server.js';

const CHANNEL = 'private-orders';
const EACH = 4;
const PACE_MS = 10;
/** What is published so shortly before a goodbye may still be on its way then, and a busy page hears of the goodbye late. */
const ON_THE_WAY_MS = 250;

/** When each event was asked for and answered, by its number. */
async function publish(sdk, until) {
  const triggered = [];
  while (!until.aborted) {
    const asked = performance.now();
    // Nothing but 200 is an answer.
    await sdk.trigger(CHANNEL, 'numbered', triggered.length);
    triggered.push({ asked, answered: performance.now() });
    await new Promise((resolve) => setTimeout(resolve, PACE_MS));
  }
  return triggered;
}

/** What a stock client gets on each of its connections. */
function watch(pusher, channel) {
  const stays = [];
  channel.bind('pusher:subscription_succeeded', () => stays.push({ from: performance.now(), to: Infinity, received: [] }));
  channel.bind('numbered', (number) => stays.at(-1).received.push(number));
  pusher.connection.bind('state_change', ({ previous }) => {
    if (previous === 'connected') stays.at(-1).to = performance.now();
  });
  return stays;
}

/** Each connection has a row without holes, no number comes twice, and what is missing was published in the client's own gap. */
function examine(stays, triggered) {
  const has = stays.flatMap(({ received }) => received);
  for (const { received } of stays) {
    received.forEach((number, index) => assert.equal(number, received[0] + index, 'a row without holes'));
  }
  assert.equal(new Set(has).size, has.length, 'none twice');
  assert.deepEqual(has, has.toSorted((a, b) => a - b), 'in order');
  const missing = [...triggered.keys()].filter((number) => number >= has[0] && !has.includes(number));
  for (const number of missing) {
    const { asked, answered } = triggered[number];
    const owed = ({ from, to }) => asked >= from && answered + ON_THE_WAY_MS < to;
    assert.ok(!stays.some(owed), `${number} was published while the client was there`);
  }
  return missing.length;
}

test('a rolling deploy loses nothing but what falls into a client\'s own gap, and nothing with the companion', { skip: !CLUSTER && 'one node' }, async (t) => {
  const server = await TestServer.start({ server: { shutdown_grace: '1s' } });
  t.after(() => server.stop());
  const { main } = server.apps;
  const stock = [];
  for (let count = 0; count < EACH; count += 1) {
    const pusher = await main.connect(t, { user: 'alice' });
    const channel = pusher.subscribe(CHANNEL);
    stock.push(watch(pusher, channel));
    const echo = main.echo(t, { user: 'alice' });
    stock.push(watch(echo.connector.pusher, echo.private('orders').subscription));
  }
  const recovering = [];
  for (let count = 0; count < EACH; count += 1) {
    const client = await Recovering.connect(t, main, { user: 'alice' });
    const connection = events(client.pusher.connection);
    recovering.push({ client, connection, inbox: listen((await client.subscribe(CHANNEL)).channel, 'numbered') });
  }
  await eventually(() => stock.every((stays) => stays.length > 0), 'all are subscribed');

  const over = new AbortController();
  t.after(() => over.abort());
  const publishing = publish(main.sdk, over.signal);
  server.process.kill('SIGUSR2');
  await eventually(() => server.log.includes('all nodes were replaced'), 'all nodes were replaced', 60_000);
  over.abort();
  const triggered = await within(publishing, () => 'the last trigger');
  const last = triggered.length - 1;
  const everybody = [...stock.map((stays) => () => stays.at(-1).received.at(-1)), ...recovering.map(({ inbox }) => () => inbox.all.at(-1))];
  await eventually(() => everybody.every((newest) => newest() === last), 'the last event came to everybody', 20_000);

  const all = triggered.map((_, number) => number);
  for (const { client, inbox } of recovering) {
    assert.deepEqual(inbox.all, all);
    assert.deepEqual(client.gaps.all, []);
  }
  const missed = stock.map((stays) => examine(stays, triggered));
  const moves = [...stock.map((stays) => stays.length - 1), ...recovering.map(({ connection }) => connection.seen('connected').length)];
  assert.ok(moves.every((count) => count > 0), `every node was replaced, so everybody had to move: ${moves}`);
  const gaps = stock.flatMap((stays) => stays.slice(1).map(({ from }, index) => from - stays[index].to)).sort((a, b) => a - b);
  t.diagnostic(`${triggered.length} events; gaps of stock clients p50 ${gaps[gaps.length >> 1].toFixed(0)} ms, longest ${gaps.at(-1).toFixed(0)} ms, `
    + `in which they missed ${missed.reduce((a, b) => a + b)}; the companion gave back ${recovering.flatMap(({ client }) => client.recovered.all).reduce((sum, { count }) => sum + count, 0)}`);
});
