// The browser build over a WebSocket: that pages, Chromium and server find each other.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { openPage } from './support/chromium.js';
import { PageClient } from './support/page_client.js';
import { startStage } from './support/stage.js';

const { server, main, site, browser } = await startStage();

test('a page receives an event over a WebSocket', async (t) => {
  const page = await openPage(t, browser, site.url);
  const client = await PageClient.start(page, main.key, {
    cluster: 'mt1', wsHost: '127.0.0.1', wsPort: server.port, forceTLS: false, enabledTransports: ['ws'],
  });
  await client.connected();
  assert.equal(await client.transport(), 'ws');
  const orders = await client.subscribe('orders');
  await main.sdk.trigger('orders', 'created', { id: 7 });
  assert.deepEqual((await orders.next('created')).data, { id: 7 });
  assert.deepEqual(page.errors, []);
});
