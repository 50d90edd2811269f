// "Open two windows": what one does, the other sees.

import { test } from 'node:test';

import { openShop } from '../support/scenario.js';

const { at } = await openShop();

test('an order goes from the cashier to the releasing desk, and each sees every step of the other', async (t) => {
  const cashier = await at(t, 'cashier', '/cashier/pos');
  const colleague = await at(t, 'cashier2', '/cashier/pos');
  const desk = await at(t, 'releasing', '/releasing/orders');
  const everybody = [cashier, colleague, desk];

  const id = await cashier.takeOrder('Ada', [1, 2, 2]);
  for (const person of everybody) await person.sees(id, 'created');
  await colleague.reads('toasts', 'for Ada');
  await cashier.press(id, 'Take payment');
  for (const person of everybody) await person.sees(id, 'payment');
  await colleague.press(id, 'Mark paid');
  for (const person of everybody) await person.sees(id, 'paid');
  await desk.page.getByTestId('for-release').getByTestId(`order-${id}`).getByText('2 × Cappuccino').waitFor();
  await desk.press(id, 'Release');
  for (const person of everybody) await person.seesNoMore(id);
  for (const person of everybody) await person.assertUntouched();
});

test('a registration goes from the cashier to the releasing desk', async (t) => {
  const cashier = await at(t, 'cashier', '/cashier/registrations');
  const desk = await at(t, 'releasing', '/releasing/registrations');
  await cashier.page.getByLabel('Name').fill('Grace Hopper');
  await cashier.page.getByLabel('E-mail').fill('grace@example.test');
  await cashier.page.getByRole('button', { name: 'Register' }).click();

  const row = desk.page.getByTestId('waiting').locator('[data-testid^=registration-]').filter({ hasText: 'Grace Hopper' });
  await row.getByRole('button', { name: 'Release' }).click();
  for (const person of [cashier, desk]) {
    await person.reads('released', 'Grace Hopper');
    await person.page.getByTestId('waiting').getByText('Grace Hopper').waitFor({ state: 'detached' });
    await person.assertUntouched();
  }
});

test('a cancelled order leaves all views', async (t) => {
  const cashier = await at(t, 'cashier', '/cashier/pos');
  const manager = await at(t, 'manager', '/cashier/pos');
  const desk = await at(t, 'releasing', '/releasing/orders');
  const everybody = [cashier, manager, desk];
  const [unpaid, paid] = await cashier.orders(2);
  await cashier.move(paid, 'payment', 'paid');
  for (const person of everybody) {
    await person.sees(unpaid, 'created');
    await person.sees(paid, 'paid');
  }
  await cashier.press(unpaid, 'Cancel order');
  await manager.press(paid, 'Cancel order');
  for (const person of everybody) {
    await person.seesNoMore(unpaid);
    await person.seesNoMore(paid);
    await person.assertUntouched();
  }
});
