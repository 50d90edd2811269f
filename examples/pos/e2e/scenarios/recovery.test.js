// One window loses its connection for some seconds, while the others go on.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Proxy } from '../../../../tests/clients/js/support/proxy.js';
import { openShop } from '../support/scenario.js';

const { shop, at } = await openShop();

/** The desk, whose events come through a network that can be cut; and what it asks the back end for. */
async function deskBehind(t, proxy) {
  const desk = await at(t, 'releasing', '/releasing/orders', { proxy });
  const asked = [];
  desk.page.on('request', (request) => {
    const { pathname, search } = new URL(request.url());
    if (pathname.startsWith('/api/')) asked.push(pathname + search);
  });
  return { desk, asked };
}

async function cut(desk, proxy) {
  proxy.hold();
  proxy.cut();
  await desk.page.locator('[data-testid=connection]:not([data-state=connected])').waitFor();
}

/** Lists of what changed, which are asked for where something may be missing. */
const lists = (asked) => asked.filter((path) => path.includes('after='));

test('what happened meanwhile is there again, and no list is asked for anew', async (t) => {
  const proxy = await Proxy.start(t, shop.fanfare.port);
  const cashier = await at(t, 'cashier', '/cashier/pos');
  const { desk, asked } = await deskBehind(t, proxy);
  const [paid, gone] = await cashier.orders(2);
  await cashier.move(paid, 'payment');
  await desk.sees(paid, 'payment');
  await desk.sees(gone, 'created');

  await cut(desk, proxy);
  asked.length = 0;
  await cashier.press(paid, 'Mark paid');
  await cashier.press(gone, 'Cancel order');
  const fresh = await cashier.takeOrder('Grace', [3]);
  await cashier.sees(fresh, 'created');
  await cashier.page.getByTestId('not-live').waitFor({ state: 'detached' });
  assert.equal(await desk.order(paid).getAttribute('data-status'), 'payment');

  proxy.release();
  await desk.connection('connected');
  await desk.sees(paid, 'paid');
  await desk.seesNoMore(gone);
  await desk.sees(fresh, 'created');
  await desk.reads('toasts', 'Back online: 3 missed events came after all.');
  assert.deepEqual(lists(asked), [], 'events that came after all name what has changed');

  // A cut in which nothing happens costs the back end nothing.
  await cut(desk, proxy);
  asked.length = 0;
  proxy.release();
  await desk.connection('connected');
  await desk.reads('toasts', 'Back online: nothing was missed.');
  assert.deepEqual(asked.filter((path) => path.startsWith('/api/orders') || path.startsWith('/api/registrations')), []);
  await desk.assertUntouched();
});

test('what cannot be given back is asked for', async (t) => {
  const proxy = await Proxy.start(t, shop.fanfare.port);
  const cashier = await at(t, 'cashier', '/cashier/pos');
  const { desk, asked } = await deskBehind(t, proxy);
  const [order] = await cashier.orders(1);
  await desk.sees(order, 'created');

  await cut(desk, proxy);
  asked.length = 0;
  // A Fanfare that is started again without a file has forgotten everything.
  await shop.fanfare.stop();
  await cashier.move(order, 'payment');
  await shop.startFanfare();
  await cashier.connection('connected');

  proxy.release();
  await desk.connection('connected');
  await desk.sees(order, 'payment');
  await desk.reads('toasts', 'Back online: not all that was missed could be given back');
  assert.ok(lists(asked).length > 0, `a list was asked for, not only ${asked}`);
  for (const person of [cashier, desk]) await person.assertUntouched();
});
