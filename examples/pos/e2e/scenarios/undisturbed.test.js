// Updates leave alone what a person is doing.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { openShop } from '../support/scenario.js';

const { at } = await openShop();

/** What would be lost if the page were drawn anew. */
const state = (page) =>
  page.evaluate(() => {
    const { activeElement: field } = document;
    const list = document.querySelector('[data-testid=orders]');
    return {
      focus: field.name, text: field.value, cursor: [field.selectionStart, field.selectionEnd],
      page: window.scrollY, list: list?.scrollTop, column: list?.parentElement.scrollTop,
    };
  });

test('scroll position, half-typed form and cursor stay while orders come and go', async (t) => {
  const colleague = await at(t, 'manager', '/cashier/pos');
  const ids = await colleague.orders(30);
  const cashier = await at(t, 'cashier', '/cashier/pos', { viewport: { width: 1024, height: 600 } });
  await cashier.sees(ids.at(-1), 'created');
  await cashier.page.getByTestId('product-3').click();
  await cashier.page.getByTestId('product-3').click();
  await cashier.page.getByLabel('Customer').fill('Marie Cu');
  await cashier.page.evaluate(() => {
    document.querySelector('[name=customer]').setSelectionRange(2, 5);
    // Whatever can be scrolled, is.
    for (const element of document.querySelectorAll('*')) if (element.scrollHeight > element.clientHeight) element.scrollTop = 90;
  });
  const before = await state(cashier.page);
  assert.ok(before.page + before.list + before.column > 0, 'something is scrolled');

  // Behind the visible part of the list: rows above it would have to move what is seen.
  const [moved, cancelled] = [ids.at(-2), ids.at(-1)];
  await colleague.move(moved, 'payment');
  await colleague.move(cancelled, 'cancelled');
  const [added] = await colleague.orders(1);
  await cashier.sees(moved, 'payment');
  await cashier.seesNoMore(cancelled);
  await cashier.sees(added, 'created');
  assert.deepEqual(await state(cashier.page), before);
  assert.equal(await cashier.page.getByLabel('Flat White, quantity').textContent(), '2');

  await cashier.page.keyboard.type('x');
  assert.equal((await state(cashier.page)).text, 'Max Cu', 'the cursor is where it was');
  await cashier.assertUntouched();
});

test('a half-typed registration and comment survive an update', async (t) => {
  const colleague = await at(t, 'cashier2', '/cashier/registrations');
  const [id] = await colleague.orders(1);
  const cashier = await at(t, 'cashier', '/cashier/registrations');
  await cashier.page.getByLabel('Name').fill('Grace Ho');
  await colleague.api('POST', '/api/registrations', { name: 'Edsger' });
  await cashier.reads('waiting', 'Edsger');
  assert.equal((await state(cashier.page)).text, 'Grace Ho');

  const desk = await at(t, 'releasing', `/releasing/orders?order=${id}`);
  await desk.page.getByLabel('Write a comment').fill('half a sent');
  await colleague.move(id, 'payment', 'paid');
  await desk.page.getByTestId('order-panel').getByRole('button', { name: 'Release' }).waitFor();
  assert.equal((await state(desk.page)).text, 'half a sent');
  for (const person of [cashier, desk]) await person.assertUntouched();
});
