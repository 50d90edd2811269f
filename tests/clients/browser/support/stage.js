// What most files begin with.

import { after } from 'node:test';

import { TestServer } from '../../js/support/server.js';
import { launch } from './chromium.js';
import { startSite } from './site.js';

/** A server, the site with the pages of its main app, and a browser. They end with the file's tests. */
export async function startStage(configuration) {
  const server = await TestServer.start(configuration);
  const { main } = server.apps;
  const site = await startSite(main);
  const browser = await launch();
  after(async () => {
    await browser.close();
    site.close();
    await server.stop();
  });
  return { server, main, site, browser };
}
