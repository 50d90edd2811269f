// Three nodes behind nginx, as docs/transports.md has it for several: a WebSocket goes anywhere, and all requests of a session over
// HTTP to one node. Needs FANFARE_BIN=../cluster.mjs and FANFARE_NODE; see `scripts/test cluster`.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { CLUSTER } from '../js/support/server.js';
import { freePort } from '../ports.mjs';
import { openPage } from './support/chromium.js';
import { documentedSettings, startNginx } from './support/nginx.js';
import { PageClient } from './support/page_client.js';
import { startStage } from './support/stage.js';

const EVENTS = 20;

test('pages on all nodes and over all transports get all events, in order', { skip: !CLUSTER && 'needs several nodes' }, async (t) => {
  const { server, main, site, browser } = await startStage();
  const nodes = [...server.log.matchAll(/a node listens on http:\/\/127\.0\.0\.1:(\d+)/g)].map(([, port]) => port);
  assert.equal(nodes.length, 3);
  const port = await freePort();
  const nginx = await startNginx(t, port, await documentedSettings(port, ...nodes));

  const transports = [undefined, 'xhr_streaming', 'xhr_polling'];
  const clients = [];
  for (const transport of [...transports, ...transports]) {
    const client = await PageClient.start(await openPage(t, browser, site.url), main.key, {
      cluster: 'mt1',
      wsHost: '127.0.0.1',
      wsPort: port,
      httpHost: '127.0.0.1',
      httpPort: port,
      forceTLS: false,
      ...(transport ? { enabledTransports: [transport] } : {}),
    });
    await client.connected();
    assert.equal(await client.transport(), transport ?? 'ws');
    client.orders = await client.subscribe('orders');
    clients.push(client);
  }
  // Triggers go to the nodes in turns.
  for (let number = 0; number < EVENTS; number += 1) await main.sdk.trigger('orders', 'created', { number });
  for (const { orders } of clients) {
    for (let number = 0; number < EVENTS; number += 1) assert.deepEqual((await orders.next('created')).data, { number });
  }
  // Nobody had to begin anew: every session stayed at its node.
  for (const client of clients) {
    assert.equal(await client.page.evaluate(() => window.pusher.connection.state), 'connected');
    assert.equal(client.connection.all.filter(({ event }) => event === 'connected').length, 1);
  }
  assert.doesNotMatch(await nginx.log(), / 404 /);
});
