// echo-react's hooks with the companion: components get what they missed, and StrictMode's two mounts change nothing.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { recover } from '../../../packages/recover/dist/index.js';
import { nextEvent } from './support/events.js';
import { Inbox, eventually } from './support/inbox.js';
import { Proxy } from './support/proxy.js';
import { configure, echoReact, mount } from './support/react.js';
import { TestServer } from './support/server.js';

const server = await TestServer.start();
after(() => server.stop());
const { main } = server.apps;

test('useEcho hears the events of a gap once each, in a page that mounts everything twice', async (t) => {
  const proxy = await Proxy.start(t, server.port);
  const echo = configure(t, { ...main, port: proxy.port }, { user: 'alice' });
  const gaps = new Inbox('gaps');
  recover(echo.connector.pusher, { onGap: (channel) => gaps.push(channel) });
  const inbox = new Inbox('useEcho');
  const page = mount(t, () => echoReact.useEcho('orders', '.numbered', (number) => inbox.push(number)));
  const { connection } = echo.connector.pusher;
  const subscribed = () => eventually(() => echo.connector.pusher.channel('private-orders')?.subscribed, 'it is subscribed');
  await subscribed();
  await main.sdk.trigger('private-orders', 'numbered', 1);
  assert.equal(await inbox.next(), 1);
  for (const number of [2, 3]) {
    const lost = nextEvent(connection, 'connecting');
    proxy.hold();
    proxy.cut();
    await lost;
    await main.sdk.trigger('private-orders', 'numbered', number);
    proxy.release();
    assert.equal(await inbox.next(), number);
  }
  // Mounted anew, it begins anew.
  page.unmount();
  await eventually(async () => !(await main.get('/channels/private-orders')).occupied, 'the page has left');
  await main.sdk.trigger('private-orders', 'numbered', 4);
  mount(t, () => echoReact.useEcho('orders', '.numbered', (number) => inbox.push(number)));
  await subscribed();
  await main.sdk.trigger('private-orders', 'numbered', 5);
  assert.equal(await inbox.next(), 5);
  assert.deepEqual([inbox.all, gaps.all], [[1, 2, 3, 5], []]);
});
