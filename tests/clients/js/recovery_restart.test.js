// A deploy keeps what clients have to catch up on, if there is a place for it; a crash is told.

import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { test } from 'node:test';

import { nextEvent } from './support/events.js';
import { eventually, within } from './support/inbox.js';
import { Recovering, listen } from './support/recovering.js';
import { CLUSTER, TestServer } from './support/server.js';
import { wireOf } from './support/wire.js';

// Inside somebody else's application it is not ours to know when the last event was published, and several nodes have it in Redis.
const skip = CLUSTER ? 'Redis has it' : basename(process.env.FANFARE_BIN ?? 'fanfare') === 'embed' && 'the binary saves';

/** A server, and a client of it that has a channel and a user. */
async function start(t, recovery) {
  const server = await TestServer.start({ recovery });
  t.after(() => server.stop());
  const { main } = server.apps;
  const client = await Recovering.connect(t, main, { user: 'alice' });
  client.pusher.signin();
  await wireOf(client.pusher).next(({ event, channel }) => event.endsWith('succeeded') && channel === '#server-to-user-alice');
  const inbox = listen((await client.subscribe('private-orders')).channel, 'numbered');
  await main.sdk.trigger('private-orders', 'numbered', 1);
  await eventually(() => inbox.all.length === 1, 'the first event');
  return { server, main, client, inbox };
}

function place(t) {
  const directory = mkdtempSync(join(tmpdir(), 'fanfare-kept-'));
  t.after(() => rmSync(directory, { recursive: true }));
  return join(directory, 'kept');
}

test('a deploy loses nothing, not even what is published while it drains', { skip }, async (t) => {
  const file = place(t);
  const { server, main, client, inbox } = await start(t, { file });
  const closed = nextEvent(client.pusher.connection, 'connecting');
  client.proxy.hold();
  const drained = server.terminate();
  await closed;
  // Triggers are taken until the end; this one may come too late, and is then refused.
  const late = await main.sdk.trigger('private-orders', 'numbered', 2).then(() => true, () => false);
  await drained;
  assert.equal(statSync(file).mode & 0o777, 0o600);
  await server.startAgain();
  assert.ok(!existsSync(file), 'it is used once');
  await client.back();
  assert.deepEqual(await client.recovered.next(({ channel }) => channel === 'private-orders'), { channel: 'private-orders', count: late ? 1 : 0 });
  await client.recovered.next(({ channel }) => channel === '#server-to-user-alice');
  assert.deepEqual(inbox.all, late ? [1, 2] : [1]);
  assert.deepEqual(client.gaps.all, []);
});

test('a restart without a place for it is a gap on every channel', async (t) => {
  const { server, main, client, inbox } = await start(t, {});
  const closed = nextEvent(client.pusher.connection, 'connecting');
  client.proxy.hold();
  await server.terminate();
  await closed;
  await server.startAgain();
  await client.back();
  assert.deepEqual([await client.gaps.next(), await client.gaps.next()].sort(), ['#server-to-user-alice', 'private-orders']);
  await client.away();
  await main.sdk.trigger('private-orders', 'numbered', 2);
  await client.back();
  assert.deepEqual(await client.recovered.next(({ channel }) => channel === 'private-orders'), { channel: 'private-orders', count: 1 });
  assert.deepEqual(inbox.all, [1, 2]);
});

test('a crash is told, also when an earlier deploy was saved', { skip }, async (t) => {
  const file = place(t);
  const { server, client } = await start(t, { file });
  const closed = nextEvent(client.pusher.connection, 'connecting');
  client.proxy.hold();
  await server.terminate();
  await closed;
  await server.startAgain();
  server.process.kill('SIGKILL');
  await within(server.exited, () => 'exit after SIGKILL');
  await server.startAgain();
  await client.back();
  assert.deepEqual([await client.gaps.next(), await client.gaps.next()].sort(), ['#server-to-user-alice', 'private-orders']);
});
