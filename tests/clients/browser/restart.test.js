// A deploy, seen from pages without a WebSocket: they are told 4200 and come back to the next server by themselves.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { loadBalancer } from '../js/support/load_balancer.js';
import { TestServer } from '../js/support/server.js';
import { launch, openPage } from './support/chromium.js';
import { PageClient } from './support/page_client.js';
import { startSite } from './support/site.js';

const browser = await launch();
after(() => browser.close());

for (const transport of ['xhr_streaming', 'xhr_polling']) {
  test(`${transport}: SIGTERM closes with 4200, and pusher-js returns to the restarted server with its channels`, async (t) => {
    const server = await TestServer.start({ server: { shutdown_grace: '2s' } });
    t.after(() => server.stop());
    const { main } = server.apps;
    const site = await startSite(main);
    t.after(() => site.close());
    const page = await openPage(t, browser, site.url);
    const client = await PageClient.start(page, main.key, {
      cluster: 'mt1',
      httpHost: '127.0.0.1',
      httpPort: await loadBalancer(t, server.port),
      forceTLS: false,
      enabledTransports: [transport],
      channelAuthorization: { endpoint: '/broadcasting/auth', headers: { Authorization: 'Bearer alice' } },
    });
    const socketId = await client.connected();
    const orders = await client.subscribe('private-orders');
    const room = await client.subscribe('presence-room');

    await server.terminate();
    const { data: error } = await client.connection.next('error');
    assert.deepEqual(error.data ?? error.error.data, { code: 4200, message: 'Generic reconnect immediately' });
    await server.startAgain();

    assert.notEqual(await client.connected({ deadline: 30_000 }), socketId);
    await orders.next('pusher:subscription_succeeded');
    assert.deepEqual(Object.keys((await room.next('pusher:subscription_succeeded')).data.members), ['alice']);
    await main.sdk.trigger('private-orders', 'created', { id: 7 });
    assert.deepEqual((await orders.next('created')).data, { id: 7 });
  });
}
