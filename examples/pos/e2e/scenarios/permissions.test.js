// A cashier cannot do a manager's action, neither on the pages nor around them.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { openShop } from '../support/scenario.js';

const { shop, at } = await openShop();

test('the pages offer each role only what it may do', async (t) => {
  const cashier = await at(t, 'cashier', '/cashier/pos');
  const manager = await at(t, 'manager', '/cashier/pos');
  const [paid] = await cashier.orders(1);
  await cashier.move(paid, 'payment', 'paid');
  await cashier.sees(paid, 'paid');
  await manager.sees(paid, 'paid');
  assert.equal(await cashier.order(paid).getByRole('button').count(), 0);
  assert.equal(await manager.order(paid).getByRole('button', { name: 'Cancel order' }).count(), 1);
  assert.equal(await cashier.page.getByRole('link', { name: 'Dashboard' }).count(), 0);
  assert.equal(await manager.page.getByRole('link', { name: 'Dashboard' }).count(), 1);

  for (const path of ['/dashboard', '/releasing/orders', '/']) {
    await cashier.page.goto(shop.url + path);
    assert.equal(new URL(cashier.page.url()).pathname, '/cashier/pos', path);
  }
  await cashier.page.goto(`${shop.url}/cashier/pos?order=${paid}`);
  const panel = cashier.page.getByTestId('order-panel');
  await panel.getByText('For release').waitFor();
  assert.equal(await panel.getByRole('button', { name: /Cancel order|Release/ }).count(), 0);
});

test('the back end refuses a cashier what is for the manager or the desk', async (t) => {
  const cashier = await at(t, 'cashier', '/cashier/pos');
  const [paid] = await cashier.orders(1);
  await cashier.move(paid, 'payment', 'paid');
  for (const status of ['cancelled', 'released']) {
    assert.equal((await cashier.api('POST', `/api/orders/${paid}/status`, { status })).status, 403);
  }
  assert.equal((await cashier.api('GET', '/api/dashboard')).status, 403);
  const refused = await cashier.page.evaluate(async () => {
    const body = new URLSearchParams({ socket_id: '1.1', channel_name: 'private-dashboard' });
    return (await fetch('/broadcasting/auth', { method: 'POST', body })).status;
  });
  assert.equal(refused, 403);
  assert.equal((await cashier.api('GET', `/api/orders/${paid}`)).order.status, 'paid');
});
