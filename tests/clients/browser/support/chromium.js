// Debian's Chromium, headless, driven by playwright-core. No browser is downloaded.

import { existsSync } from 'node:fs';

import { chromium } from 'playwright-core';

const CANDIDATES = [process.env.CHROMIUM_BIN, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];

/** Nothing but the pages under test: no updates, no sync, no first-run pages. Containers have no sandbox and no GPU. */
const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-dev-shm-usage',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-default-apps',
  '--disable-extensions',
  '--disable-sync',
  '--mute-audio',
  '--no-first-run',
];

/** A browser, to be closed with `close()`. One serves all tests of a file: each takes a context of its own. */
export async function launch(options = {}) {
  const executablePath = CANDIDATES.find((path) => path && existsSync(path));
  if (!executablePath) throw new Error('no Chromium: apt-get install chromium, or set CHROMIUM_BIN');
  return chromium.launch({ executablePath, headless: true, args: FLAGS, ...options });
}

/**
 * A page in a context of its own: no cookies, storage or cache of others. Closed when the test ends; what went wrong in it
 * is in `page.errors`.
 */
export async function openPage(t, browser, url, options = {}) {
  const context = await browser.newContext(options);
  t.after(() => context.close());
  const page = await context.newPage();
  page.errors = [];
  page.on('pageerror', (error) => page.errors.push(String(error)));
  await page.goto(url);
  return page;
}
