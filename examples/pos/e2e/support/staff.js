// Somebody of the staff at a window, and what they do and see there.

import assert from 'node:assert/strict';

import { openPage } from '../../../../tests/clients/browser/support/chromium.js';

/** How long anything may take to be seen. Generous, as it is only waited for when something is broken. */
const PATIENCE = 20_000;

export class Staff {
  /** Signs in at a window with a session of its own, and goes to a page. `proxy`: what its events come through. */
  static async at(t, browser, shop, username, path, { proxy, ...options } = {}) {
    const self = new Staff();
    self.page = await openPage(t, browser, `${shop.url}/login`, { viewport: { width: 1280, height: 800 }, ...options });
    self.page.setDefaultTimeout(PATIENCE);
    if (proxy) await self.#listenThrough(proxy);
    await self.page.getByLabel('User name').fill(username);
    await self.page.getByLabel('Password').fill(`${username}-demo`);
    await self.page.getByRole('button', { name: 'Sign in', exact: true }).click();
    await self.page.getByTestId('connection').waitFor();
    if (path) await self.page.goto(shop.url + path);
    await self.connection('connected');
    await self.page.evaluate(() => {
      window.untouched = true;
    });
    return self;
  }

  async #listenThrough({ port }) {
    await this.page.route('**/api/session', async (route) => {
      if (route.request().method() !== 'GET') return route.continue();
      const response = await route.fetch();
      if (!response.ok()) return route.fulfill({ response });
      const session = await response.json();
      Object.assign(session.realtime, { wsPort: port });
      return route.fulfill({ response, json: session });
    });
  }

  /** Waits for the state of the connection that the page shows. */
  async connection(state) {
    await this.page.locator(`[data-testid=connection][data-state=${state}]`).waitFor();
  }

  /** The page is the document it was: nothing was loaded anew, and nothing failed in it. */
  async assertUntouched() {
    assert.equal(await this.page.evaluate(() => window.untouched), true, 'the page was loaded anew');
    assert.deepEqual(this.page.errors, []);
  }

  /** Asks the back end as this page would: status and answer. */
  api(method, path, body) {
    return this.page.evaluate(
      async ([method, path, body]) => {
        const headers = { 'content-type': 'application/json' };
        const response = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
        return { status: response.status, ...(await response.json()) };
      },
      [method, path, body],
    );
  }

  /** Takes an order at the till, by hand, and returns its id. */
  async takeOrder(customer, products = [1]) {
    for (const product of products) await this.page.getByTestId(`product-${product}`).click();
    await this.page.getByLabel('Customer').fill(customer);
    const answer = this.page.waitForResponse((response) => response.url().endsWith('/api/orders') && response.request().method() === 'POST');
    await this.page.getByRole('button', { name: 'New order' }).click();
    const { order } = await (await answer).json();
    return order.id;
  }

  /** Takes orders without the page, for tests that are about something else. */
  async orders(count) {
    const ids = [];
    for (let n = 0; n < count; n += 1) {
      const { order } = await this.api('POST', '/api/orders', { customer: `Guest ${n + 1}`, items: [{ product_id: 1 + (n % 8), quantity: 1 }] });
      ids.push(order.id);
    }
    return ids;
  }

  /** Moves an order without the page. */
  async move(id, ...statuses) {
    for (const status of statuses) assert.equal((await this.api('POST', `/api/orders/${id}/status`, { status })).status, 200);
  }

  order(id) {
    return this.page.getByTestId(`order-${id}`);
  }

  /** Presses a button of an order. */
  async press(id, name) {
    await this.order(id).getByRole('button', { name }).click();
  }

  /** Waits until the page shows an order with this status. */
  async sees(id, status) {
    await this.page.locator(`[data-testid=order-${id}][data-status=${status}]`).waitFor();
  }

  /** Waits until the page shows this order no more. */
  async seesNoMore(id) {
    await this.order(id).waitFor({ state: 'detached' });
  }

  /** Waits for a text in a part of the page. */
  async reads(testId, text) {
    await this.page.getByTestId(testId).filter({ hasText: text }).first().waitFor();
  }
}
