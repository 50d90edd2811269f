// A shop and a browser for the scenarios of one file.

import { after } from 'node:test';

import { launch } from '../../../../tests/clients/browser/support/chromium.js';
import { Shop } from './servers.js';
import { Staff } from './staff.js';

export async function openShop() {
  const shop = await Shop.start();
  const browser = await launch();
  after(async () => {
    await browser.close();
    await shop.stop();
  });
  /** Somebody at a window of their own. */
  const at = (t, username, path, options) => Staff.at(t, browser, shop, username, path, options);
  return { shop, browser, at };
}
