import { expect, test } from 'vitest';

import { ceiling } from './scale';
import { ago, count, money } from './format';

test.each([[0, '$0.00'], [5, '$0.05'], [123456, '$1,234.56']])('%i cents are %s', (cents, text) => {
  expect(money(cents)).toBe(text);
});

test.each([[30, 'now'], [59 * 60, '59 min'], [3600, '1 h'], [3 * 86_400, '3 d'], [-5, 'now']])('%i seconds ago is %s', (seconds, text) => {
  const now = Date.parse('2026-01-31T12:00:00Z');
  expect(ago(new Date(now - seconds * 1000).toISOString(), now)).toBe(text);
});

test('one is not a plural', () => {
  expect([count(1, 'order'), count(2, 'order'), count(0, 'person', 'people')]).toEqual(['1 order', '2 orders', '0 people']);
});

test.each([[0, 1000], [999, 1000], [1000, 1000], [1001, 2000], [8290, 10_000], [310_000, 400_000]])('the scale for %i ends at %i', (value, top) => {
  expect(ceiling(value)).toBe(top);
});
