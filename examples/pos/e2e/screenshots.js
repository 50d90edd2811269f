// Takes a picture of every page, light and dark, on a desktop and on a phone, with a morning's sales in the shop.
//
//   node screenshots.js DIRECTORY

import { spawnSync } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';

import { launch } from '../../../tests/clients/browser/support/chromium.js';
import { Shop } from './support/servers.js';
import { Staff } from './support/staff.js';

const [directory] = process.argv.slice(2);
if (!directory) throw new Error('node screenshots.js DIRECTORY');

const SIZES = {
  desktop: { viewport: { width: 1280, height: 800 } },
  phone: { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true },
};
const PAGES = [
  ['cashier', '/cashier/pos', 'till'],
  ['cashier', '/cashier/registrations', 'registrations'],
  ['releasing', '/releasing/orders', 'release-orders'],
  ['releasing', '/releasing/registrations', 'release-registrations'],
  ['manager', '/dashboard', 'dashboard'],
];

await mkdir(directory, { recursive: true });
const shop = await Shop.start();
const browser = await launch();
/** What `Staff.at` closes its windows with. */
const cleanup = [];
const t = { after: (close) => cleanup.push(close) };

try {
  const orderWithComments = await fill(await Staff.at(t, browser, shop, 'manager', '/cashier/pos'));
  for (const [sizeName, size] of Object.entries(SIZES)) {
    for (const colorScheme of ['light', 'dark']) {
      const options = { ...size, colorScheme, reducedMotion: 'reduce' };
      const shot = async ({ page }, name) => {
        // Toasts are about what this script does.
        await page.getByTestId('toast').first().waitFor({ state: 'detached' });
        await page.screenshot({ path: join(directory, `${name}-${sizeName}-${colorScheme}.png`) });
      };
      for (const [username, path, name] of PAGES) {
        const person = await Staff.at(t, browser, shop, username, path, options);
        if (name === 'till') {
          for (const product of [2, 2, 6]) await person.page.getByTestId(`product-${product}`).click();
          await person.page.getByLabel('Customer').fill('Katherine');
        }
        await shot(person, name);
        if (name === 'till' && sizeName === 'phone') {
          await person.page.getByRole('button', { name: 'Open orders' }).click();
          await shot(person, 'till-orders');
        }
        if (name === 'release-orders') {
          await person.page.goto(`${shop.url}${path}?order=${orderWithComments}`);
          await person.page.getByTestId('order-panel').locator('.comment').first().waitFor();
          await shot(person, 'order');
        }
        await person.page.context().close();
      }
      const context = await browser.newContext(options);
      const page = await context.newPage();
      await page.goto(`${shop.url}/login`);
      await page.getByText('Malik').waitFor();
      await page.screenshot({ path: join(directory, `login-${sizeName}-${colorScheme}.png`) });
      await context.close();
    }
  }
} finally {
  for (const close of cleanup) await close();
  await browser.close();
  await shop.stop();
}

/** A morning in the shop. */
async function fill(manager) {
  const names = ['Ada', 'Alan', 'Barbara', 'Dennis', 'Donald', 'Edsger', 'Frances', 'Grace', 'John', 'Katherine', 'Ken', 'Leslie'];
  const order = async (n) => {
    const items = [{ product_id: 1 + (n * 5) % 12, quantity: 1 + n % 2 }, { product_id: 1 + (n * 7 + 3) % 12, quantity: 1 }];
    const answer = await manager.api('POST', '/api/orders', { customer: names[n % names.length], items });
    return answer.order?.id;
  };
  for (let n = 0; n < 34; n += 1) {
    const id = await order(n);
    if (id) await manager.move(id, 'payment', 'paid', 'released');
  }
  // The sales above were all made just now: spread them over the last hours, more of them at noon.
  const hours = [7, 7, 6, 6, 6, 5, 5, 5, 5, 4, 4, 4, 4, 4, 4, 3, 3, 3, 3, 3, 3, 3, 2, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0];
  const script = `
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=10)
for id, hours in enumerate(map(int, sys.argv[2].split(",")), 1):
    db.execute("UPDATE orders SET paid_ms = paid_ms - ? WHERE id = ?", (hours * 3600000, id))
db.commit()
`;
  const python = spawnSync('python3', ['-c', script, join(shop.directory, 'pos.sqlite'), hours.join()], { encoding: 'utf8' });
  if (python.status !== 0) throw new Error(python.stderr);

  const open = [];
  for (let n = 40; n < 48; n += 1) open.push(await order(n));
  for (const id of open.slice(0, 5)) await manager.move(id, 'payment');
  for (const id of open.slice(0, 3)) await manager.move(id, 'paid');
  await manager.api('POST', `/api/orders/${open[0]}/comments`, { body: 'Oat milk, please.' });
  await manager.api('POST', `/api/orders/${open[0]}/comments`, { body: 'Waits at the window.' });
  for (const name of ['Grace Hopper', 'Edsger Dijkstra', 'Mary Jackson']) {
    await manager.api('POST', '/api/registrations', { name, email: `${name.split(' ')[0].toLowerCase()}@example.test` });
  }
  const { registrations } = await manager.api('GET', '/api/registrations');
  await manager.api('POST', `/api/registrations/${registrations[0].id}/release`, {});
  return open[0];
}
