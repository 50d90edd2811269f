// The HTTP API as the official SDK, and the SDKs of other languages, call it.

import assert from 'node:assert/strict';
import { createHash, createHmac } from 'node:crypto';
import { after, test } from 'node:test';

import { sdkFor } from './support/app.js';
import { subscribe } from './support/events.js';
import { eventually } from './support/inbox.js';
import { TestServer } from './support/server.js';

const server = await TestServer.start({
  apps: { main: {}, quiet: {}, strict: { max_event_bytes: 100, max_channels_per_trigger: 3, max_batch_events: 2 } },
});
after(() => server.stop());
const { main, quiet, strict } = server.apps;

/** A request that is not one of the SDK's own: `query` is sent as it is. */
const request = (path, query = '', init = {}) => fetch(`${server.url}${path}${query && `?${query}`}`, init);

/**
 * Signs by the published rules and sends. `wireQuery` is what goes over the wire where it differs from what is signed;
 * `params` overrides or, with undefined, removes a parameter.
 */
function signed(method, path, { body, params = {}, secret = main.secret, wireQuery = (query) => query, sentBody = body } = {}) {
  const all = {
    auth_key: main.key,
    auth_timestamp: Math.floor(Date.now() / 1000),
    auth_version: '1.0',
    ...(body === undefined ? {} : { body_md5: createHash('md5').update(body).digest('hex') }),
    ...params,
  };
  const names = Object.keys(all).filter((name) => all[name] !== undefined).sort();
  const query = names.map((name) => `${name}=${all[name]}`).join('&');
  const signature = createHmac('sha256', secret).update(`${method}\n${path}\n${query}`).digest('hex');
  return request(path, `${wireQuery(query)}&auth_signature=${signature}`, { method, body: sentBody });
}

const base = `/apps/${main.id}`;
const event = (fields = {}) => JSON.stringify({ name: 'event', channel: 'nobody', data: '{}', ...fields });
const post = (fields, options) => signed('POST', `${base}/events`, { body: event(fields), ...options });

async function assertAnswer(answer, status, body) {
  const response = await answer;
  const text = await response.text();
  assert.equal(response.status, status, text);
  if (body instanceof RegExp) assert.match(text, body);
  else if (body !== undefined) assert.equal(text, body);
  const type = response.headers.get('content-type');
  assert.match(type, status === 200 ? /^application\/json/ : /^text\/plain/);
}

/** Errors are one line of plain text, which SDKs show to the developer as they are. */
const assertError = (answer, status, line) =>
  assertAnswer(answer, status, typeof line === 'string' ? `${line}\n` : (line ?? /^[^\n{]+\n$/));

test('golden rule 6: success is 200 and a JSON object', async () => {
  await assertAnswer(post(), 200, '{}');
  await assertAnswer(post({ channel: undefined, channels: ['a', 'b'] }), 200, '{}');
  await assertAnswer(signed('POST', `${base}/batch_events`, { body: `{"batch":[${event()}]}` }), 200, '{}');
  await assertAnswer(signed('POST', `${base}/users/u/terminate_connections`, { body: '{}' }), 200, '{}');
  await assertAnswer(signed('POST', `${base}/users/u/terminate_connections`), 200, '{}');
});

test('golden rule 6: empty maps are objects, ids are strings, counts are numbers', async (t) => {
  assert.deepEqual(await quiet.get('/channels'), { channels: {} });
  assert.deepEqual(await quiet.get('/channels/presence-x/users'), { users: [] });
  assert.deepEqual(await quiet.get('/channels/x'), { occupied: false });
  const sdk = sdkFor('quiet', server.port);
  const answer = await sdk.trigger('x', 'event', {}, { info: 'subscription_count' });
  assert.deepEqual(await answer.json(), { channels: { x: { subscription_count: 0 } } });
  await subscribe(await quiet.connect(t, { user: '10' }), 'presence-x');
  assert.deepEqual(await quiet.get('/channels/presence-x/users'), { users: [{ id: '10' }] });
  assert.deepEqual(await quiet.get('/channels/presence-x', { info: 'user_count' }), { occupied: true, user_count: 1 });
});

test('channels lists the occupied ones, by prefix and with counts', async (t) => {
  const [alice, bob] = [await main.connect(t, { user: 'alice' }), await main.connect(t, { user: 'bob' })];
  for (const name of ['list-a', 'private-list', 'presence-list-a', 'presence-list-b']) await subscribe(alice, name);
  await subscribe(bob, 'presence-list-a');
  const { channels } = await main.get('/channels');
  for (const name of ['list-a', 'private-list', 'presence-list-a']) assert.deepEqual(channels[name], {}, name);
  assert.deepEqual(await main.get('/channels', { filter_by_prefix: 'list-' }), { channels: { 'list-a': {} } });
  assert.deepEqual(await main.get('/channels', { filter_by_prefix: 'presence-list-', info: 'user_count' }), {
    channels: { 'presence-list-a': { user_count: 2 }, 'presence-list-b': { user_count: 1 } },
  });
  alice.disconnect();
  bob.disconnect();
});

test('a channel answers the attributes it is asked for', async (t) => {
  const [alice, bob] = [await main.connect(t, { user: 'alice' }), await main.connect(t, { user: 'bob' })];
  for (const client of [alice, bob]) await subscribe(client, 'presence-cache-attributes');
  const tab = await main.connect(t, { user: 'bob' });
  await subscribe(tab, 'presence-cache-attributes');
  await main.sdk.trigger('presence-cache-attributes', 'event', '"a\\/b"');
  assert.deepEqual(await main.get('/channels/presence-cache-attributes'), { occupied: true });
  const { cache, ...counts } = await main.get('/channels/presence-cache-attributes', {
    info: 'user_count,subscription_count,cache',
  });
  assert.deepEqual(counts, { occupied: true, user_count: 2, subscription_count: 3 });
  assert.equal(cache.data, '"a\\/b"');
  assert.ok(Number.isInteger(cache.ttl) && cache.ttl > 1700 && cache.ttl <= 1800, String(cache.ttl));
  assert.deepEqual(await main.get('/channels/cache-never', { info: 'cache' }), { occupied: false, cache: null });
});

test('every character that a channel name may have works in a path', async (t) => {
  const alice = await main.connect(t);
  await subscribe(alice, 'a_-=@,.;Z9');
  await eventually(async () => (await main.get('/channels/a_-=@,.;Z9')).occupied, 'the channel is occupied');
  assert.deepEqual(await main.get('/channels/a_-=@,.;Z9'), { occupied: true });
  await assertAnswer(signed('GET', `${base}/channels/a_-=@,.;Z9`), 200, '{"occupied":true}');
});

test('users of a presence channel are listed once each', async (t) => {
  for (const user of ['alice', 'bob', 'bob']) await subscribe(await main.connect(t, { user }), 'presence-users');
  const { users } = await main.get('/channels/presence-users/users');
  assert.deepEqual(users.sort((a, b) => a.id.localeCompare(b.id)), [{ id: 'alice' }, { id: 'bob' }]);
});

test('Reverb’s connection count is answered', async (t) => {
  await subscribe(await quiet.connect(t), 'x');
  await subscribe(await quiet.connect(t), 'x');
  await eventually(async () => (await quiet.get('/connections')).connections === 2, 'both are counted');
});

test('golden rule 7: query values are decoded before the signature is checked', async () => {
  const params = { filter_by_prefix: 'presence-', info: 'user_count,subscription_count' };
  const encoded = (query) => query.replaceAll(',', '%2C');
  await assertAnswer(signed('GET', `${base}/channels`, { params }), 200);
  await assertAnswer(signed('GET', `${base}/channels`, { params, wireQuery: encoded }), 200);
  // Node signs and sends a plus as it is: it stands for itself, not for a space.
  await assertAnswer(signed('GET', `${base}/channels`, { params: { filter_by_prefix: 'a+b' } }), 200, '{"channels":{}}');
});

test('golden rule 7: a GET may carry the digest of its empty body', async () => {
  const params = { body_md5: 'd41d8cd98f00b204e9800998ecf8427e' };
  await assertAnswer(signed('GET', `${base}/channels/nobody`, { params }), 200, '{"occupied":false}');
});

test('golden rule 4: the body is verified as bytes', async () => {
  await assertAnswer(post({}, { body: ' {"data":"x" ,"name":"e","channel":"c"}\n' }), 200, '{}');
  await assertError(post({}, { sentBody: `${event()} ` }), 401);
  await assertError(post({}, { params: { body_md5: undefined } }), 401);
});

for (const [what, options, line] of [
  ['the wrong secret', { secret: 'wrong' }, /^Invalid signature: you should have sent HmacSHA256Hex\("POST\\n\/apps\//],
  ['no key', { params: { auth_key: undefined } }, 'Missing parameter: auth_key'],
  ['an unknown key', { params: { auth_key: 'nobody' } }],
  ['another app’s key', { params: { auth_key: 'quiet-key' }, secret: 'quiet-secret' }],
  ['no version', { params: { auth_version: undefined } }, 'Version required'],
  ['another version', { params: { auth_version: '2.0' } }, 'Version not supported'],
  ['no timestamp', { params: { auth_timestamp: undefined } }, 'Timestamp required'],
  [
    'an old timestamp', { params: { auth_timestamp: 1_000_000_000 } },
    /^Timestamp expired: Given timestamp \(2001-09-09T01:46:40Z\) not within 600s of server time \(.+\)\n$/,
  ],
  ['a timestamp from the future', { params: { auth_timestamp: Math.floor(Date.now() / 1000) + 700 } }, /^Timestamp expired/],
]) {
  test(`a request with ${what} is 401`, async () => {
    await assertError(post({}, options), 401, line);
  });
}

test('the SDK reports a refusal with status and text', async () => {
  const wrong = sdkFor('main', server.port, { secret: 'wrong' });
  await assert.rejects(wrong.trigger('x', 'event', {}), (error) => {
    assert.equal(error.status, 401);
    assert.match(error.body, /^Invalid signature: /);
    return true;
  });
});

test('an unknown app or route is 404', async () => {
  const nobody = sdkFor('main', server.port, { appId: '999' });
  await assert.rejects(nobody.trigger('x', 'event', {}), { status: 404 });
  await assertError(request('/nowhere'), 404, '404 NOT FOUND');
});

for (const [what, fields, status, line] of [
  ['no name', { name: undefined }, 400, 'Missing required parameter: name'],
  ['no channel', { channel: undefined }, 400, /^Missing required parameter: channels?\n$/],
  ['no data', { data: undefined }, 400, 'Missing required parameter: data'],
  ['a bad channel name', { channel: 'two words' }, 400, /Invalid channel name/],
  ['a bad socket id', { socket_id: '12' }, 400],
  ['a reserved name', { name: 'pusher:fake' }, 400],
  ['a reserved internal name', { name: 'pusher_internal:member_added' }, 400],
  ['a name of 201 characters', { name: 'x'.repeat(201) }, 400],
  ['101 channels', { channel: undefined, channels: Array.from({ length: 101 }, (_, n) => `c${n}`) }, 400, 'Too many channels (101 > 100)'],
  ['no channels at all', { channel: undefined, channels: [] }, 400],
  ['data over 10 KB', { data: 'x'.repeat(10_241) }, 413, /^The data content of this event exceeds the allowed maximum \(10240 bytes\)/],
  ['data over 10 KB of UTF-8', { data: 'é'.repeat(5121) }, 413],
]) {
  test(`a trigger with ${what} is ${status}`, async () => {
    await assertError(post(fields), status, line);
  });
}

test('limits count bytes of the decoded data and unknown fields are ignored', async () => {
  await assertAnswer(post({ data: 'é'.repeat(5120) }), 200, '{}');
  await assertAnswer(post({ data: '\u0001'.repeat(10_240), tags: { a: 1 } }), 200, '{}');
  const channels = Array.from({ length: 100 }, (_, n) => `c${n}`);
  await assertAnswer(post({ channel: undefined, channels, name: 'x'.repeat(200) }), 200, '{}');
});

test('data that is not a string is serialised compactly', async (t) => {
  const channel = await subscribe(await main.connect(t), 'objects');
  await assertAnswer(post({ channel: 'objects', data: { a: [1, 'x'] } }), 200, '{}');
  assert.deepEqual(await channel.next('event'), { a: [1, 'x'] });
});

test('limits can be set per app', async () => {
  const reject = (promise, status) => assert.rejects(promise, { status });
  await reject(strict.sdk.trigger('x', 'event', 'x'.repeat(101)), 413);
  await reject(strict.sdk.trigger(['a', 'b', 'c', 'd'], 'event', 'x'), 400);
  await reject(strict.sdk.triggerBatch([1, 2, 3].map(() => ({ channel: 'x', name: 'event', data: '' }))), 400);
  assert.equal((await strict.sdk.trigger(['a', 'b', 'c'], 'event', 'x'.repeat(100))).status, 200);
});

test('a body that is not the right JSON is 400', async () => {
  for (const body of ['', '{', '[]', 'null', '"x"', '{"name":7,"channel":"x","data":""}', '{"name":"e","channels":"x","data":""}']) {
    const response = await signed('POST', `${base}/events`, { body });
    assert.equal(response.status, 400, body);
  }
});

test('a batch is published as a whole or not at all', async (t) => {
  const channel = await subscribe(await main.connect(t), 'batched');
  const batch = (...events) => signed('POST', `${base}/batch_events`, { body: `{"batch":[${events}]}` });
  const good = event({ channel: 'batched' });
  await assertError(batch(...Array(11).fill(good)), 400, 'Batch too large (11 > 10)');
  await assertError(batch(good, event({ channel: undefined, channels: ['batched'] })), 400, 'Missing required parameter: channel');
  await assertError(batch(good, event({ channel: 'two words' })), 400);
  await assertError(batch(good, event({ data: 'x'.repeat(10_241) })), 413);
  await channel.settled(main);
  assert.deepEqual(channel.seen('event'), []);
  await assertAnswer(batch(good, good), 200, '{}');
});

for (const [what, path, params, line] of [
  [
    'user counts of all channels', '/channels', { info: 'user_count' },
    'user_count may only be requested for presence channels - please supply filter_by_prefix begining with presence-',
  ],
  [
    'the user count of a plain channel', '/channels/x', { info: 'user_count' },
    'Cannot retrieve the user count unless the channel is a presence channel',
  ],
  ['the cache of a plain channel', '/channels/x', { info: 'cache' }],
  ['the users of a plain channel', '/channels/x/users', {}, 'Users can only be retrieved for presence channels'],
]) {
  test(`asking for ${what} is 400`, async () => {
    await assertError(signed('GET', `${base}${path}`, { params }), 400, line);
  });
}

test('the server says that it is up, to machines and to people', async () => {
  await assertAnswer(request('/up'), 200, '{"health":"OK"}');
  const home = await request('/');
  assert.equal(home.status, 200);
  assert.match(await home.text(), /fanfare/i);
});
