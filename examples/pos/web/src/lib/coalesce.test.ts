import { expect, test } from 'vitest';

import { coalesce } from './coalesce';

test('calls during a run become one more run', async () => {
  let runs = 0;
  let finish = () => {};
  const call = coalesce(() => {
    runs += 1;
    return new Promise<void>((resolve) => (finish = resolve));
  });
  call();
  call();
  call();
  expect(runs).toBe(1);
  finish();
  await expect.poll(() => runs).toBe(2);
  finish();
  await new Promise((resolve) => setImmediate(resolve));
  expect(runs).toBe(2);
});
