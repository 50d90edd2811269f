// Echo in a real page, with the companion as the server serves it: a cut brings everything back, a reload begins anew.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Proxy } from '../js/support/proxy.js';
import { openPage } from './support/chromium.js';
import { startStage } from './support/stage.js';

const { server, main, site, browser } = await startStage();

/** Makes the page's Echo, with `heard` and `verdicts` as what it got, once it is subscribed. */
async function begin(page, port, transport = 'ws') {
  await page.addScriptTag({ url: `${server.url}/recover.js` });
  await page.evaluate(
    ([key, port, transport]) => {
      window.echo = new window.Echo.default({
        broadcaster: 'pusher', key, cluster: 'mt1', wsHost: '127.0.0.1', wsPort: port, httpHost: '127.0.0.1', httpPort: port, forceTLS: false,
        enabledTransports: [transport], bearerToken: 'alice',
      });
      Object.assign(window, { heard: [], verdicts: [], gaps: [] });
      window.Fanfare.recover(window.echo.connector.pusher, { onGap: (channel) => window.gaps.push(channel) });
      window.echo
        .private('orders')
        .listen('.numbered', (number) => window.heard.push(number))
        .on('pusher:recovery', (verdict) => window.verdicts.push(verdict))
        .subscribed(() => (window.subscribed = true));
    },
    [main.key, port, transport],
  );
  await page.waitForFunction(() => window.subscribed);
}

const heard = (page, count) =>
  page.waitForFunction((count) => window.heard.length >= count && window.heard, count).then((handle) => handle.jsonValue());

test('Echo gets back what was published while the connection was cut, and a reload begins anew', async (t) => {
  const proxy = await Proxy.start(t, server.port);
  const page = await openPage(t, browser, site.url);
  await begin(page, proxy.port);
  await main.sdk.trigger('private-orders', 'numbered', 1);
  assert.deepEqual(await heard(page, 1), [1]);
  const socketId = await page.evaluate(() => window.echo.socketId());

  proxy.hold();
  proxy.cut();
  await page.waitForFunction(() => window.echo.connector.pusher.connection.state === 'connecting');
  await main.sdk.trigger('private-orders', 'numbered', 2);
  // Made by this page: not for it.
  await main.sdk.trigger('private-orders', 'numbered', 99, { socket_id: socketId });
  await main.sdk.trigger('private-orders', 'numbered', 3);
  proxy.release();
  await page.waitForFunction(() => window.verdicts.length === 1);
  assert.deepEqual(await page.evaluate(() => window.verdicts), [{ recovered: true, count: 2 }]);
  await main.sdk.trigger('private-orders', 'numbered', 4);
  assert.deepEqual(await heard(page, 4), [1, 2, 3, 4]);
  assert.deepEqual(await page.evaluate(() => window.gaps), []);

  await page.reload();
  await main.sdk.trigger('private-orders', 'numbered', 5);
  await begin(page, proxy.port);
  await main.sdk.trigger('private-orders', 'numbered', 6);
  assert.deepEqual(await heard(page, 1), [6]);
  assert.deepEqual(await page.evaluate(() => window.verdicts), []);
  assert.deepEqual(page.errors, []);
});

for (const transport of ['xhr_streaming', 'xhr_polling']) {
  test(`cuts over ${transport} lose nothing`, async (t) => {
    const proxy = await Proxy.start(t, server.port);
    const page = await openPage(t, browser, site.url);
    await begin(page, proxy.port, transport);
    await main.sdk.trigger('private-orders', 'numbered', 1);
    await heard(page, 1);
    proxy.cut();
    for (const number of [2, 3]) await main.sdk.trigger('private-orders', 'numbered', number);
    assert.deepEqual(await heard(page, 3), [1, 2, 3]);
    assert.deepEqual(await page.evaluate(() => window.gaps), []);
    assert.deepEqual(page.errors, []);
  });
}

// Chromium sends a poll again by itself when a connection that it has used before ends without an answer.
test('what a poll brings that is cut off is not lost', async (t) => {
  const proxy = await Proxy.start(t, server.port);
  const page = await openPage(t, browser, site.url);
  await begin(page, proxy.port, 'xhr_polling');
  const numbers = Array.from({ length: 10 }, (_, number) => number);
  for (const number of numbers) {
    const lost = proxy.loseAnswer();
    await main.sdk.trigger('private-orders', 'numbered', number);
    await lost;
    await heard(page, number + 1);
  }
  assert.deepEqual(await page.evaluate(() => [window.heard, window.gaps]), [numbers, []]);
  assert.deepEqual(page.errors, []);
});

test('a listener that throws changes nothing', async (t) => {
  const proxy = await Proxy.start(t, server.port);
  const page = await openPage(t, browser, site.url);
  await begin(page, proxy.port);
  await page.evaluate(() => {
    window.echo.private('orders').listen('.numbered', () => {
      throw new Error('of the page');
    });
  });
  await main.sdk.trigger('private-orders', 'numbered', 1);
  await heard(page, 1);
  proxy.cut();
  await page.waitForFunction(() => window.verdicts.length === 1);
  assert.deepEqual(await page.evaluate(() => [window.heard, window.verdicts]), [[1], [{ recovered: true, count: 0 }]]);
  assert.deepEqual(page.errors, ['Error: of the page']);
});

test('the module of the server works in a page of another origin', async (t) => {
  const page = await openPage(t, browser, site.url);
  const kind = await page.evaluate(async (url) => typeof (await import(url)).recover, `${server.url}/recover.mjs`);
  assert.equal(kind, 'function');
});
