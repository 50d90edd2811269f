// From a click in one window to the visible change in the other one.

import assert from 'node:assert/strict';
import { availableParallelism, loadavg } from 'node:os';
import { test } from 'node:test';

import { openShop } from './support/scenario.js';

const { at } = await openShop();

const CHANGES = 200;
const ROUNDS = 5;
const LIMIT_MS = 100;
/** A machine that was busy with something else for a moment gets another chance. */
const MEASUREMENTS = 3;
/** Runnable processes for each core. Three windows and two servers alone stay below. */
const BUSY = 3;

/** Notes the time of each click, as the page's own handlers see it. */
const noteClicks = () => {
  const note = () => {
    window.clicked = performance.timeOrigin + performance.now();
  };
  document.addEventListener('click', note, { capture: true });
};

/** Resolves with the time at which the page shows an order with a status: in the frame that follows the change. */
const seen = ([id, status]) =>
  new Promise((resolve) => {
    const selector = `[data-testid=order-${id}][data-status=${status}]`;
    const look = () => {
      if (!document.querySelector(selector)) return;
      observer.disconnect();
      requestAnimationFrame(() => resolve(performance.timeOrigin + performance.now()));
    };
    const observer = new MutationObserver(look);
    observer.observe(document.body, { subtree: true, childList: true, attributes: true });
    look();
  });

async function measure(cashier, desk, manager) {
  const times = [];
  const steps = [['Take payment', 'payment'], ['Mark paid', 'paid']];
  for (let round = 0; round < ROUNDS; round += 1) {
    const ids = await manager.orders(CHANGES / ROUNDS / steps.length);
    for (const id of ids) {
      await desk.sees(id, 'created');
      for (const [button, status] of steps) {
        const shown = desk.page.evaluate(seen, [id, status]);
        await cashier.press(id, button);
        times.push((await shown) - (await cashier.page.evaluate(() => window.clicked)));
      }
    }
    for (const id of ids) await manager.move(id, 'released');
  }
  return times.sort((a, b) => a - b);
}

test(`${CHANGES} changes are seen in the other window within ${LIMIT_MS} ms`, async (t) => {
  const cashier = await at(t, 'cashier', '/cashier/pos');
  const desk = await at(t, 'releasing', '/releasing/orders');
  const manager = await at(t, 'manager', '/dashboard');
  await cashier.page.evaluate(noteClicks);
  const p99s = [];
  do {
    const times = await measure(cashier, desk, manager);
    assert.equal(times.length, CHANGES);
    const at = (part) => times[Math.ceil(part * times.length) - 1];
    const shown = Object.entries({ p50: at(0.5), p95: at(0.95), p99: at(0.99), max: times.at(-1) });
    console.log(`click to visible change, ${CHANGES} changes: ${shown.map(([name, ms]) => `${name} ${ms.toFixed(1)} ms`).join(', ')}`);
    p99s.push(at(0.99));
  } while (p99s.at(-1) >= LIMIT_MS && p99s.length < MEASUREMENTS);
  for (const person of [cashier, desk]) await person.assertUntouched();
  const result = `p99 of ${p99s.length} measurements: ${p99s.map((ms) => ms.toFixed(1)).join(', ')} ms`;
  const load = loadavg()[0] / availableParallelism();
  if (p99s.at(-1) >= LIMIT_MS && load > BUSY) {
    t.skip(`not judged, as the machine is busy with ${load.toFixed(1)} processes for each core; ${result}`);
    return;
  }
  assert.ok(p99s.at(-1) < LIMIT_MS, result);
});
