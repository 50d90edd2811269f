// Who is there, what they write, and what the manager sees of it.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { openShop } from '../support/scenario.js';

const { at } = await openShop();

test('staff see who is online, and who looks at or edits which order', async (t) => {
  const cashier = await at(t, 'cashier', '/cashier/pos');
  await cashier.reads('online', '1');
  const desk = await at(t, 'releasing', '/releasing/orders');
  await cashier.reads('online', '2');
  const [id] = await cashier.orders(1);
  await desk.sees(id, 'created');

  await desk.order(id).getByRole('link').click();
  const watchers = cashier.page.getByTestId(`watchers-${id}`);
  await watchers.and(cashier.page.getByLabel('Rosa is looking at this order')).waitFor();
  await desk.page.getByLabel('Write a comment').fill('x');
  await watchers.and(cashier.page.getByLabel('Rosa is editing this order')).waitFor();
  await cashier.order(id).getByRole('link').click();
  await desk.reads('looking', 'Carla is looking');

  await desk.page.context().close();
  await cashier.reads('online', '1');
  await cashier.page.getByTestId('looking').waitFor({ state: 'detached' });
});

test('comments come with a hint that somebody is typing', async (t) => {
  const cashier = await at(t, 'cashier', '/cashier/pos');
  const [id] = await cashier.orders(1);
  const desk = await at(t, 'releasing', `/releasing/orders?order=${id}`);
  await cashier.order(id).getByRole('link').click();
  await desk.reads('looking', 'Carla');

  await cashier.page.getByLabel('Write a comment').pressSequentially('Oat milk');
  await desk.reads('typing', 'Carla is typing');
  await cashier.page.getByRole('button', { name: 'Send' }).click();
  await desk.page.getByTestId('order-panel').locator('.comment', { hasText: 'Oat milk' }).waitFor();
  await desk.page.getByTestId('typing').filter({ hasNotText: 'typing' }).waitFor();
  for (const person of [cashier, desk]) await person.assertUntouched();
});

test('the manager watches sales, revenue and stock count along', async (t) => {
  const manager = await at(t, 'manager', '/dashboard');
  const cashier = await at(t, 'cashier', '/cashier/pos');
  const tile = (name) => manager.page.getByTestId(`tile-${name}`);
  await tile('sales').filter({ hasText: /^0$/ }).waitFor();
  const mugs = manager.page.getByTestId('stock-12').locator('strong');
  assert.equal(await mugs.textContent(), '12');

  const id = await cashier.takeOrder('Ada', [12, 12]);
  await mugs.filter({ hasText: /^10$/ }).waitFor();
  await cashier.press(id, 'Take payment');
  await cashier.press(id, 'Mark paid');
  await tile('sales').filter({ hasText: /^1$/ }).waitFor();
  await tile('revenue').filter({ hasText: '32.00' }).waitFor();
  await manager.sees(id, 'paid');
  await manager.assertUntouched();
});

test('a hidden window notifies of a new order', async (t) => {
  const desk = await at(t, 'releasing', '/releasing/orders', { permissions: ['notifications'] });
  const cashier = await at(t, 'cashier', '/cashier/pos');
  await desk.page.evaluate(() => {
    window.notified = [];
    window.Notification = class {
      static permission = 'granted';
      static requestPermission = async () => 'granted';
      constructor(title) {
        window.notified.push(title);
      }
    };
    Object.defineProperty(document, 'visibilityState', { get: () => 'hidden' });
    Object.defineProperty(document, 'hidden', { get: () => true });
  });
  const [id] = await cashier.orders(1);
  await desk.sees(id, 'created');
  await desk.page.waitForFunction(() => window.notified.some((title) => title.includes('Guest 1')));
});
