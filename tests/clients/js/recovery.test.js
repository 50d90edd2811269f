// Stock pusher-js with the companion: what was published while it was away arrives, once and in order, or the page is told.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { recover } from '../../../packages/recover/dist/index.js';
import { nextEvent, subscribe } from './support/events.js';
import { Inbox, eventually } from './support/inbox.js';
import { Recovering, listen } from './support/recovering.js';
import { CLUSTER, TestServer } from './support/server.js';
import { wireOf } from './support/wire.js';

const server = await TestServer.start({
  apps: {
    main: {},
    small: { recovery: { max_events: 5 } },
    off: { recovery: { enabled: false } },
    feeds: { recovery: { channels: [{ pattern: '*feed', history: { last: 3 } }] } },
    prices: { recovery: { channels: [{ pattern: 'price*', history: { on_subscribe: 2 } }] } },
  },
});
after(() => server.stop());
const { main, small, off, feeds, prices } = server.apps;

const numbers = (from, to) => Array.from({ length: to - from + 1 }, (_, index) => from + index);

/** Publishes numbers, each when the one before is. */
async function publish(app, channel, from, to, options) {
  for (const number of numbers(from, to)) await app.sdk.trigger(channel, 'numbered', number, options);
}

/** Waits until so many numbers have come; all of them. */
async function received(inbox, count) {
  await eventually(() => inbox.all.length >= count, `${count} events; seen: ${JSON.stringify(inbox.all)}`);
  return inbox.all;
}

const KINDS = ['public', 'private', 'presence', 'private-encrypted', 'cache'];

for (const name of KINDS.map((kind) => `${kind}-orders`)) {
  test(`"${name}" gets what was published while its client was away`, async (t) => {
    const client = await Recovering.connect(t, main, { user: 'alice' });
    const { channel } = await client.subscribe(name);
    const inbox = listen(channel, 'numbered');
    await publish(main, name, 1, 2);
    await received(inbox, 2);
    await client.away();
    await publish(main, name, 3, 6);
    await client.back();
    assert.deepEqual(await client.recovered.next(), { channel: name, count: 4 });
    await publish(main, name, 7, 7);
    assert.deepEqual(await received(inbox, 7), numbers(1, 7));
    assert.deepEqual(client.gaps.all, []);
  });
}

// Over HTTP each session has to stay at its node, and there is nobody here who sees to that.
const skip = CLUSTER && 'sessions move';
const OVER_HTTP = ['xhr_streaming', 'xhr_polling'];

for (const transport of OVER_HTTP) {
  test(`the same holds over ${transport}`, { skip }, async (t) => {
    const client = await Recovering.connect(t, main, { enabledTransports: [transport], user: 'alice' });
    assert.equal(client.pusher.connection.connection.transport.name, transport);
    const names = KINDS.map((kind) => `${kind}-${transport}`);
    const inboxes = [];
    for (const name of names) inboxes.push(listen((await client.follow(name)).channel, 'numbered'));
    await client.away();
    for (const name of names) await publish(main, name, 1, 2);
    await client.back();
    for (const name of names) assert.equal((await client.recovered.next(({ channel }) => channel === name)).count, 2);
    for (const name of names) await publish(main, name, 3, 3);
    for (const inbox of inboxes) assert.deepEqual(await received(inbox, 3), [1, 2, 3]);
    assert.deepEqual(client.gaps.all, []);
  });
}

// There each thing that is sent goes its own way, and any of them may be late, or lost.
for (const fate of ['pass', 'lose']) {
  test(`a question that the subscription overtakes is asked again, and answered once: ${fate}`, { skip }, async (t) => {
    const client = await Recovering.connect(t, main, { enabledTransports: ['xhr_polling'] });
    const name = `overtaken-${fate}`;
    const inbox = listen((await client.follow(name)).channel, 'numbered');
    await client.away();
    await publish(main, name, 1, 2);
    const question = client.proxy.intercept('fanfare:recover');
    await client.back();
    assert.deepEqual(await client.recovered.next(), { channel: name, count: 2 });
    (await question)[fate]();
    await publish(main, name, 3, 3);
    assert.deepEqual(await received(inbox, 3), [1, 2, 3]);
    assert.deepEqual([client.recovered.all.length, client.gaps.all], [1, []]);
  });
}

test('who is cut off before its question was answered has everything or is told of a gap', { skip }, async (t) => {
  const client = await Recovering.connect(t, main, { enabledTransports: ['xhr_polling'] });
  // More than fit into one question: with the other one the server begins to tell positions.
  const names = numbers(1, 101).map((number) => `unanswered-${number}-`);
  await Promise.all(names.map((name) => client.follow(name)));
  const [name] = names;
  const inbox = listen(client.pusher.channel(name), 'numbered');
  await client.away();
  await publish(main, name, 1, 2);
  const asks = `\\"${name}\\":`;
  const first = client.proxy.intercept(asks);
  const second = first.then(() => client.proxy.intercept(asks));
  await client.back();
  for (const question of await Promise.all([first, second])) question.lose();
  await client.away();
  await client.back();
  const isTold = () => client.gaps.all.includes(name);
  await eventually(() => isTold() || client.recovered.all.some(({ channel }) => channel === name), 'an answer');
  assert.deepEqual(inbox.all, isTold() ? [] : [1, 2]);
});

test('who is cut off before it has any position is told of a gap', { skip }, async (t) => {
  const client = await Recovering.connect(t, main, { enabledTransports: ['xhr_polling'] });
  await client.away();
  const inbox = listen(client.pusher.subscribe('none-yet'), 'numbered');
  const question = client.proxy.intercept('fanfare:recover');
  const subscribed = nextEvent(client.pusher.channel('none-yet'), 'pusher:subscription_succeeded');
  await client.back();
  await subscribed;
  await publish(main, 'none-yet', 1, 1);
  await received(inbox, 1);
  (await question).lose();
  await client.away();
  await publish(main, 'none-yet', 2, 2);
  await client.back();
  assert.equal(await client.gaps.next(), 'none-yet');
  await publish(main, 'none-yet', 3, 3);
  assert.deepEqual(await received(inbox, 2), [1, 3]);
});

test('the question is on the wire before any subscription, at first and on each return', async (t) => {
  const client = await Recovering.connect(t, main, { user: 'alice' });
  await client.subscribe('first');
  await client.subscribe('private-second');
  const order = () => wireOf(client.pusher).sent.map(({ event }) => event).slice(0, 3);
  const expected = ['fanfare:recover', 'pusher:subscribe', 'pusher:subscribe'];
  assert.deepEqual(order(), expected);
  await client.away();
  await client.back();
  await eventually(() => order().length === 3, 'both channels are subscribed again');
  assert.deepEqual(order(), expected);
});

test('a channel that had no event yet is recovered too, and a second cut without news brings nothing again', async (t) => {
  const client = await Recovering.connect(t, main);
  const inbox = listen((await client.subscribe('quiet')).channel, 'numbered');
  await client.away();
  await publish(main, 'quiet', 1, 3);
  await client.back();
  assert.deepEqual(await client.recovered.next(), { channel: 'quiet', count: 3 });
  await client.away();
  await client.back();
  assert.deepEqual(await client.recovered.next(), { channel: 'quiet', count: 0 });
  assert.deepEqual(inbox.all, [1, 2, 3]);
});

test('a cut while events are given back continues where it stopped', async (t) => {
  const client = await Recovering.connect(t, main);
  const inbox = listen((await client.subscribe('long')).channel, 'numbered');
  await client.away();
  await publish(main, 'long', 1, 60);
  await client.back({ bytes: 2_000 });
  await nextEvent(client.pusher.connection, 'connecting');
  assert.ok(inbox.all.length > 0 && inbox.all.length < 60, `${inbox.all.length} arrived`);
  assert.deepEqual(await client.recovered.next(), { channel: 'long', count: 60 - inbox.all.length + client.recovered.all.at(-1).count });
  assert.deepEqual(inbox.all, numbers(1, 60));
});

test('a client comes back before the server has missed its old connection', async (t) => {
  const client = await Recovering.connect(t, main, { activityTimeout: 300, pongTimeout: 300 });
  const inbox = listen((await client.subscribe('half-open')).channel, 'numbered');
  client.proxy.blackHole();
  await publish(main, 'half-open', 1, 3);
  assert.deepEqual(await client.recovered.next(), { channel: 'half-open', count: 3 });
  const { subscription_count: connections } = await main.get('/channels/half-open', { info: 'subscription_count' });
  assert.equal(connections, 2, 'the old one is still there');
  assert.deepEqual(inbox.all, [1, 2, 3]);
});

test('more than is kept is a gap: nothing of it comes, and the next cut is recovered again', async (t) => {
  const client = await Recovering.connect(t, small);
  const { channel } = await client.subscribe('busy');
  const inbox = listen(channel, 'numbered');
  const verdicts = listen(channel, 'pusher:recovery');
  await client.away();
  await publish(small, 'busy', 1, 6);
  await client.back();
  assert.equal(await client.gaps.next(), 'busy');
  assert.deepEqual(inbox.all, []);
  await client.away();
  await publish(small, 'busy', 7, 11);
  await client.back();
  assert.deepEqual(await client.recovered.next(), { channel: 'busy', count: 5 });
  assert.deepEqual(inbox.all, numbers(7, 11));
  assert.deepEqual(verdicts.all, [{ recovered: false, count: 0 }, { recovered: true, count: 5 }]);
});

test('events that exclude a socket of this page stay away from it, by any of its sockets', async (t) => {
  const client = await Recovering.connect(t, main);
  const inbox = listen((await client.subscribe('others')).channel, 'numbered');
  const ids = [client.pusher.connection.socket_id];
  await client.away();
  await publish(main, 'others', 1, 1, { socket_id: ids[0] });
  await publish(main, 'others', 2, 2);
  await client.back();
  assert.deepEqual(await client.recovered.next(), { channel: 'others', count: 1 });
  // Requests that left before the cut arrive only now.
  await publish(main, 'others', 3, 3, { socket_id: ids[0] });
  ids.push(client.pusher.connection.socket_id);
  await client.away();
  await publish(main, 'others', 4, 4, { socket_id: ids[0] });
  await publish(main, 'others', 5, 5, { socket_id: ids[1] });
  await client.back();
  await client.recovered.next();
  await publish(main, 'others', 6, 6, { socket_id: ids[0] });
  await publish(main, 'others', 7, 7);
  assert.deepEqual(await received(inbox, 2), [2, 7]);
});

test('who leaves and joins begins anew, connected or not', async (t) => {
  const client = await Recovering.connect(t, main);
  await client.subscribe('anew');
  client.pusher.unsubscribe('anew');
  await publish(main, 'anew', 1, 1);
  const inbox = listen((await client.subscribe('anew')).channel, 'numbered');
  await client.away();
  client.pusher.unsubscribe('anew');
  const again = listen(client.pusher.subscribe('anew'), 'numbered');
  await publish(main, 'anew', 2, 2);
  await client.back();
  await nextEvent(client.pusher.channel('anew'), 'pusher:subscription_succeeded');
  await publish(main, 'anew', 3, 3);
  assert.deepEqual(await received(again, 1), [3]);
  assert.deepEqual(inbox.all, []);
  assert.deepEqual([client.recovered.all, client.gaps.all], [[], []]);
});

test('access that is withdrawn brings nothing, and given back brings what is still kept', async (t) => {
  let allowed = true;
  const customHandler = ({ socketId, channelName }, answer) =>
    allowed ? answer(null, main.sdk.authorizeChannel(socketId, channelName)) : answer(new Error('forbidden'), null);
  const client = await Recovering.connect(t, main, { channelAuthorization: { customHandler } });
  const { channel } = await client.subscribe('private-members');
  const inbox = listen(channel, 'numbered');
  await client.away();
  await publish(main, 'private-members', 1, 2);
  allowed = false;
  const refused = nextEvent(channel, 'pusher:subscription_error');
  await client.back();
  await refused;
  await wireOf(client.pusher).roundTrip();
  assert.deepEqual([inbox.all, client.recovered.all], [[], []]);
  allowed = true;
  await client.away();
  await client.back();
  assert.deepEqual(await client.recovered.next(), { channel: 'private-members', count: 2 });
  assert.deepEqual(inbox.all, [1, 2]);
});

test('a cache channel repeats its event only where something is missing', async (t) => {
  const client = await Recovering.connect(t, small);
  const subscription = await client.subscribe('cache-price');
  const inbox = listen(subscription.channel, 'numbered');
  await subscription.next('pusher:cache_miss');
  await publish(small, 'cache-price', 1, 1);
  await received(inbox, 1);
  await client.away();
  await client.back();
  assert.deepEqual(await client.recovered.next(), { channel: 'cache-price', count: 0 });
  await client.away();
  await publish(small, 'cache-price', 2, 8);
  await client.back();
  await client.gaps.next();
  assert.deepEqual(inbox.all, [1, 8], 'the last one, as for everybody who comes');
  assert.equal(subscription.seen('pusher:cache_miss').length, 1);
});

test('events to a signed-in user are recovered', async (t) => {
  const client = await Recovering.connect(t, main, { user: 'alice' });
  const inbox = new Inbox('user');
  client.pusher.user.bind('numbered', (data) => inbox.push(data));
  client.pusher.signin();
  const subscribed = ({ event, channel }) =>
    event === 'pusher_internal:subscription_succeeded' && channel === '#server-to-user-alice';
  await wireOf(client.pusher).next(subscribed);
  for (const count of [3, 2]) {
    await client.away();
    for (const number of numbers(1, count)) await main.sdk.sendToUser('alice', 'numbered', number);
    await client.back();
    assert.deepEqual(await client.recovered.next(), { channel: '#server-to-user-alice', count });
  }
  assert.deepEqual(inbox.all, [1, 2, 3, 1, 2]);
});

test("members' own events keep their metadata, and positions are none", async (t) => {
  const client = await Recovering.connect(t, main, { user: 'alice' });
  const { channel } = await client.subscribe('presence-room');
  const metadata = new Inbox('metadata');
  for (const event of ['client-typing', 'numbered']) channel.bind(event, (_, given) => metadata.push(given));
  const bob = await subscribe(await main.connect(t, { user: '@bob' }), 'presence-room');
  bob.channel.trigger('client-typing', {});
  assert.equal((await metadata.next()).user_id, '@bob');
  await client.away();
  await publish(main, 'presence-room', 1, 1);
  await client.back();
  assert.equal((await metadata.next())?.user_id, undefined);
  assert.deepEqual(channel.members.get('alice').info, { name: 'alice' });
});

test('attached late, a client is told where it is and recovers from then on', async (t) => {
  const client = await Recovering.connect(t, main);
  const stock = main.client(t, { wsPort: client.proxy.port });
  await nextEvent(stock.connection, 'connected');
  const inbox = listen((await subscribe(stock, 'attached')).channel, 'numbered');
  await publish(main, 'attached', 1, 1);
  await received(inbox, 1);
  const counts = new Inbox('counts');
  recover(stock, { onRecovered: (_, count) => counts.push(count) });
  await wireOf(stock).next('pusher_internal:position');
  await client.away();
  await publish(main, 'attached', 2, 3);
  client.proxy.release();
  assert.equal(await counts.next(), 2);
  assert.deepEqual(inbox.all, [1, 2, 3]);
});

test('attached late, a client that is cut off before it knows where it is hears of the gap', { skip }, async (t) => {
  const client = await Recovering.connect(t, main);
  const stock = main.client(t, { wsPort: client.proxy.port, httpHost: '127.0.0.1', httpPort: client.proxy.port, enabledTransports: ['xhr_polling'] });
  await nextEvent(stock.connection, 'connected');
  const inbox = listen((await subscribe(stock, 'attached-in-vain')).channel, 'numbered');
  const gaps = new Inbox('gaps');
  const question = client.proxy.intercept('fanfare:recover');
  recover(stock, { onGap: (name) => gaps.push(name) });
  (await question).lose();
  await publish(main, 'attached-in-vain', 1, 1);
  await received(inbox, 1);
  await client.away();
  await publish(main, 'attached-in-vain', 2, 2);
  client.proxy.release();
  assert.equal(await gaps.next(), 'attached-in-vain');
});

test('a page goes on from the position its data was rendered at', async (t) => {
  const { position } = await main.get('/channels/private-orders-7', { info: 'position' });
  await publish(main, 'private-orders-7', 1, 2);
  const client = await Recovering.connect(t, main, { user: 'alice', from: { 'private-orders-7': position } });
  const inbox = listen(client.pusher.subscribe('private-orders-7'), 'numbered');
  assert.deepEqual(await client.recovered.next(), { channel: 'private-orders-7', count: 2 });
  assert.deepEqual(inbox.all, [1, 2]);
  // Of several nodes none knows an event's place when it takes it.
  if (CLUSTER) return;
  const answer = await (await main.sdk.trigger('private-orders-7', 'numbered', 3, { info: 'position' })).json();
  assert.equal(answer.channels['private-orders-7'].position.split('.')[0], position.split('.')[0]);
});

test('a history is for channels whose pattern allows it', async (t) => {
  await publish(feeds, 'feed', 1, 5);
  await publish(feeds, 'private-feed', 1, 5);
  const from = { feed: { last: 20 }, 'private-feed': { last: 20 }, news: { last: 1 } };
  const client = await Recovering.connect(t, feeds, { user: 'alice', from });
  const inbox = listen(client.pusher.subscribe('feed'), 'numbered');
  assert.deepEqual(await client.recovered.next(), { channel: 'feed', count: 3 });
  assert.deepEqual(inbox.all, [3, 4, 5]);
  for (const refused of ['private-feed', 'news']) {
    const channel = client.pusher.subscribe(refused);
    const none = listen(channel, 'numbered');
    assert.equal(await client.gaps.next(), refused);
    assert.deepEqual(none.all, []);
  }
  // It was for the first subscription: a return goes on.
  await client.away();
  await publish(feeds, 'feed', 6, 6);
  await client.back();
  assert.deepEqual(await client.recovered.next(({ channel }) => channel === 'feed'), { channel: 'feed', count: 1 });
  assert.deepEqual(inbox.all, [3, 4, 5, 6]);
});

test('a history for everybody repeats for stock clients, and not for those that recover', async (t) => {
  await publish(prices, 'price', 1, 3);
  const client = await Recovering.connect(t, prices);
  const stock = prices.client(t, { wsPort: client.proxy.port });
  await nextEvent(stock.connection, 'connected');
  const [mine, theirs] = [client.pusher, stock].map((pusher) => listen(pusher.subscribe('price'), 'numbered'));
  for (const inbox of [mine, theirs]) assert.deepEqual(await received(inbox, 2), [2, 3]);
  await client.away();
  await client.back();
  assert.deepEqual(await client.recovered.next(), { channel: 'price', count: 0 });
  assert.deepEqual(await received(theirs, 4), [2, 3, 2, 3]);
  assert.deepEqual(mine.all, [2, 3]);
});

test('250 channels come back in frames of a hundred', async (t) => {
  const client = await Recovering.connect(t, main, { from: { 'never-subscribed': 'x' } });
  const names = numbers(1, 250).map((number) => `many-${number}`);
  const done = Promise.all(names.map((name) => nextEvent(client.pusher.subscribe(name), 'pusher:subscription_succeeded')));
  await done;
  await client.away();
  await main.sdk.triggerBatch(names.slice(0, 10).map((channel) => ({ channel, name: 'numbered', data: 1 })));
  await client.back();
  await eventually(() => client.recovered.all.length === 250, '250 channels are recovered');
  assert.deepEqual(client.recovered.all.filter(({ count }) => count === 1).map(({ channel }) => channel).sort(), names.slice(0, 10).sort());
  const frames = wireOf(client.pusher).sent.filter(({ event }) => event === 'fanfare:recover');
  assert.deepEqual(frames.map(({ data }) => Object.keys(data.from).length), [100, 100, 51]);
  const largest = Math.max(...frames.map((frame) => JSON.stringify(frame).length));
  assert.ok(largest < 3_500, `${largest} bytes`);
});

test('a server that keeps nothing says so to who asks, and is as usual otherwise', async (t) => {
  const client = await Recovering.connect(t, off, { from: { orders: 'from somewhere' } });
  client.pusher.subscribe('orders');
  assert.equal(await client.gaps.next(), 'orders');
  const inbox = listen((await client.subscribe('others')).channel, 'numbered');
  await publish(off, 'others', 1, 1);
  assert.deepEqual(await received(inbox, 1), [1]);
  await client.away();
  await publish(off, 'others', 2, 2);
  await client.back();
  await client.gaps.next((channel) => channel === 'others');
  assert.deepEqual(inbox.all, [1]);
});

test('a stock client beside one that recovers gets what it always got', async (t) => {
  const client = await Recovering.connect(t, main, { user: 'alice' });
  const stock = await main.connect(t, { user: 'bob' });
  for (const name of ['beside', 'presence-beside']) {
    await client.subscribe(name);
    await subscribe(stock, name);
    await publish(main, name, 1, 2);
  }
  await wireOf(stock).next(({ event, channel, data }) => event === 'numbered' && channel === 'presence-beside' && data === '2');
  for (const { text } of wireOf(stock).frames.all) assert.doesNotMatch(text, /user_id":\[|pusher_internal:(recovery|position)/);
  const [{ text }] = wireOf(stock).frames.seen('numbered');
  assert.equal(text, '{"event":"numbered","channel":"beside","data":"1"}');
});
