// Behind nginx: with the settings of the documentation, and with those of people who never heard of WebSockets. pusher-js
// has its default transports, and finds by itself what works.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { freePort } from '../ports.mjs';
import { openPage } from './support/chromium.js';
import { documentedSettings, replaceAll, startNginx } from './support/nginx.js';
import { PageClient } from './support/page_client.js';
import { startStage } from './support/stage.js';

/** pusher-js begins the HTTP transports beside a WebSocket after 5 seconds, and polling 4 seconds later. */
const RACE = { deadline: 40_000 };

const { server, main, site, browser } = await startStage();

/** A page whose pusher-js knows where nginx is, and nothing else. */
async function start(t, port, options = {}) {
  const page = await openPage(t, browser, site.url);
  page.sockets = [];
  page.on('websocket', (socket) => page.sockets.push(socket.url()));
  return PageClient.start(page, main.key, {
    cluster: 'mt1',
    wsHost: '127.0.0.1',
    wsPort: port,
    wssPort: port,
    httpHost: '127.0.0.1',
    httpPort: port,
    httpsPort: port,
    forceTLS: false,
    ...options,
  });
}

async function assertReceives(client, name) {
  const orders = await client.subscribe(name);
  for (let number = 0; number < 5; number += 1) {
    await main.sdk.trigger(name, 'created', { number });
    assert.deepEqual((await orders.next('created')).data, { number });
  }
}

test('the documented settings pass all transports on', async (t) => {
  const port = await freePort();
  const nginx = await startNginx(t, port, await documentedSettings(port, server.port));
  for (const transport of [undefined, 'xhr_streaming', 'xhr_polling']) {
    const client = await start(t, port, transport ? { enabledTransports: [transport] } : {});
    await client.connected();
    assert.equal(await client.transport(), transport ?? 'ws');
    await assertReceives(client, `documented-${transport}`);
    await client.page.context().close();
  }
  assert.doesNotMatch(await nginx.log(), /xhr/, 'the names of sessions are in no log');
});

test('where upgrades are blocked, the race ends with a stream', async (t) => {
  const port = await freePort();
  const settings = replaceAll(await documentedSettings(port, server.port), [
    [/ *proxy_set_header Upgrade .*\n/, '        if ($http_upgrade) { return 403; }\n'],
  ]);
  const nginx = await startNginx(t, port, settings);
  const client = await start(t, port);
  await client.connected(RACE);
  assert.equal(await client.transport(), 'xhr_streaming');
  assert.ok(client.page.sockets.length > 0, 'a WebSocket was tried');
  assert.match(await nginx.log(), /"GET \/app\/.* 403 /);
  await assertReceives(client, 'blocked');
});

test('where streams are held back, too, the race ends with polls', async (t) => {
  const port = await freePort();
  // No upgrades, and compression that waits for more to compress.
  const settings = `server {
    listen 127.0.0.1:${port};
    location / {
      proxy_pass http://127.0.0.1:${server.port};
      proxy_ignore_headers X-Accel-Buffering;
      gzip on; gzip_types *; gzip_proxied any; gzip_http_version 1.0;
    }
  }`;
  await startNginx(t, port, settings);
  const client = await start(t, port);
  await client.connected(RACE);
  assert.equal(await client.transport(), 'xhr_polling');
  await assertReceives(client, 'held-back');
});
