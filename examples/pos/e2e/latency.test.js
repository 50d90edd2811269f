// From a click in one window to the visible change in the other one.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { openShop } from './support/scenario.js';

const { at } = await openShop();

const CHANGES = 200;
const ROUNDS = 5;
const LIMIT_MS = 100;
/** A machine that was busy with something else for a moment gets another chance. */
const MEASUREMENTS = 3;
/** When an idle page waits longer than this for its next frame, the machine is too busy to tell anything. */
const BUSY_MS = 50;

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

/** How long a page waits for a frame in which nothing changes. */
const frame = () => {
  const start = performance.now();
  return new Promise((resolve) => requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - start))));
};

async function measure(cashier, desk, manager) {
  const times = [];
  const frames = [];
  const steps = [['Take payment', 'payment'], ['Mark paid', 'paid']];
  for (let round = 0; round < ROUNDS; round += 1) {
    const ids = await manager.orders(CHANGES / ROUNDS / steps.length);
    for (const id of ids) {
      await desk.sees(id, 'created');
      for (const [button, status] of steps) {
        frames.push(await desk.page.evaluate(frame));
        const shown = desk.page.evaluate(seen, [id, status]);
        await cashier.press(id, button);
        times.push((await shown) - (await cashier.page.evaluate(() => window.clicked)));
      }
    }
    for (const id of ids) await manager.move(id, 'released');
  }
  return { times, frames };
}

const percentile = (times, part) => times.sort((a, b) => a - b)[Math.ceil(part * times.length) - 1];
const distribution = (times) => {
  const parts = Object.entries({ p50: 0.5, p95: 0.95, p99: 0.99, max: 1 });
  return parts.map(([name, part]) => `${name} ${percentile(times, part).toFixed(1)} ms`).join(', ');
};

test(`${CHANGES} changes are seen in the other window within ${LIMIT_MS} ms`, async (t) => {
  const cashier = await at(t, 'cashier', '/cashier/pos');
  const desk = await at(t, 'releasing', '/releasing/orders');
  const manager = await at(t, 'manager', '/dashboard');
  await cashier.page.evaluate(noteClicks);
  const results = [];
  do {
    const { times, frames } = await measure(cashier, desk, manager);
    assert.equal(times.length, CHANGES);
    console.log(`click to visible change, ${CHANGES} changes: ${distribution(times)}; an empty frame: ${distribution(frames)}`);
    results.push({ p99: percentile(times, 0.99), busy: percentile(frames, 0.99) > BUSY_MS });
  } while (results.at(-1).p99 >= LIMIT_MS && results.length < MEASUREMENTS);
  for (const person of [cashier, desk]) await person.assertUntouched();
  const judged = results.filter(({ p99, busy }) => p99 < LIMIT_MS || !busy);
  if (judged.length === 0) {
    t.skip('not judged: the machine is so busy that empty frames are late, too');
    return;
  }
  assert.ok(judged.at(-1).p99 < LIMIT_MS, `the p99 of ${results.length} measurements is ${LIMIT_MS} ms or more`);
});
