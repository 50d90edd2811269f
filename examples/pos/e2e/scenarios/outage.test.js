// Fanfare is stopped and started again.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { openShop } from '../support/scenario.js';

const { shop, at } = await openShop();

test('pages say that they are not live, lose no sale, and recover by themselves', async (t) => {
  const cashier = await at(t, 'cashier', '/cashier/pos');
  const desk = await at(t, 'releasing', '/releasing/orders');
  const [waiting, gone] = await cashier.orders(2);
  await cashier.move(waiting, 'payment');
  await desk.sees(waiting, 'payment');
  await desk.sees(gone, 'created');

  await shop.fanfare.stop();
  for (const person of [cashier, desk]) await person.page.locator('[data-testid=connection]:not([data-state=connected])').waitFor();

  // The till goes on, and says that nobody else knows.
  const sold = await cashier.takeOrder('Alan', [5]);
  await cashier.sees(sold, 'created');
  await cashier.reads('not-live', 'Not live');
  await cashier.press(waiting, 'Mark paid');
  await cashier.sees(waiting, 'paid');
  await cashier.press(gone, 'Cancel order');
  await cashier.seesNoMore(gone);
  assert.equal((await cashier.api('GET', '/api/live')).live, false);
  for (const person of [cashier, desk]) await person.connection('unavailable');
  assert.equal(await desk.order(waiting).getAttribute('data-status'), 'payment');

  await shop.startFanfare();
  for (const person of [cashier, desk]) await person.connection('connected');
  await desk.sees(waiting, 'paid');
  await desk.sees(sold, 'created');
  await desk.seesNoMore(gone);
  await cashier.page.getByTestId('not-live').waitFor({ state: 'detached' });
  const { live, waiting: left } = await cashier.api('GET', '/api/live');
  assert.deepEqual({ live, left }, { live: true, left: 0 });

  // And it is live again.
  await desk.press(waiting, 'Release');
  await cashier.seesNoMore(waiting);
  for (const person of [cashier, desk]) await person.assertUntouched();
});
