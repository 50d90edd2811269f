// Laravel Echo's browser build without a WebSocket, with both broadcasters: channels, presence, whispers.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Inbox } from '../js/support/inbox.js';
import { openPage } from './support/chromium.js';
import { startStage } from './support/stage.js';

const { server, main, site, browser } = await startStage();

/** A page whose Echo has joined a channel of orders and a room; what it hears arrives in `page.heard`. */
async function openShop(t, options, user) {
  const page = await openPage(t, browser, site.url);
  page.heard = new Inbox(user);
  await page.exposeFunction('heard', (event, data) => page.heard.push({ event, data }));
  await page.evaluate(
    ([options]) => {
      window.echo = new window.Echo.default(options);
      window.orders = window.echo.private('orders');
      window.orders.subscribed(() => window.heard('subscribed')).listen('.created', (data) => window.heard('created', data));
      window.room = window.echo.join(`room-${options.broadcaster}`);
      window.room
        .here((members) => window.heard('here', members.map(({ name }) => name).sort()))
        .joining(({ name }) => window.heard('joining', name))
        .listenForWhisper('typing', (data) => window.heard('typing', data));
    },
    [
      {
        key: main.key,
        httpHost: '127.0.0.1',
        httpPort: server.port,
        forceTLS: false,
        authEndpoint: '/broadcasting/auth',
        bearerToken: user,
        ...options,
      },
    ],
  );
  await page.heard.next('subscribed');
  return page;
}

for (const [broadcaster, transport] of [['pusher', 'xhr_streaming'], ['reverb', 'xhr_polling']]) {
  test(`${broadcaster} over ${transport}: private and presence channels, whispers and toOthers`, async (t) => {
    const options = { broadcaster, cluster: 'mt1', enabledTransports: [transport] };
    const alice = await openShop(t, options, 'alice');
    assert.deepEqual((await alice.heard.next('here')).data, ['alice']);
    const bob = await openShop(t, options, 'bob');
    assert.deepEqual((await bob.heard.next('here')).data, ['alice', 'bob']);
    assert.equal((await alice.heard.next('joining')).data, 'bob');

    await bob.evaluate(() => window.room.whisper('typing', { order: 7 }));
    assert.deepEqual((await alice.heard.next('typing')).data, { order: 7 });

    // What Laravel does with the header that Echo adds: toOthers().
    const socketId = await alice.evaluate(() => window.echo.socketId());
    await main.sdk.trigger('private-orders', 'created', { id: 7 }, { socket_id: socketId });
    await main.sdk.trigger('private-orders', 'created', { id: 8 });
    assert.deepEqual((await bob.heard.next('created')).data, { id: 7 });
    assert.deepEqual((await alice.heard.next('created')).data, { id: 8 });
    for (const page of [alice, bob]) assert.deepEqual(page.errors, []);
  });
}
