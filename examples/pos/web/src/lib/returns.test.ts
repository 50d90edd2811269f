import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { type Return, Returns } from './returns';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

test('the answers of all channels are one return, and the next is another', () => {
  const returns = new Returns();
  const told: Return[] = [];
  const stop = returns.subscribe((result) => told.push(result));
  returns.recovered(2);
  returns.recovered(0);
  returns.recovered(1);
  expect(told).toEqual([]);
  vi.runAllTimers();
  returns.recovered(4);
  returns.gap();
  vi.runAllTimers();
  expect(told).toEqual([{ count: 3, gap: false }, { count: 4, gap: true }]);
  stop();
  returns.gap();
  vi.runAllTimers();
  expect(told).toHaveLength(2);
});
