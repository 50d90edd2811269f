// The site of a Pusher user: a page with the clients' own browser builds, and the routes that sign for it. On another
// origin than Fanfare, as sites are.

import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';

const file = (path) => readFileSync(new URL(`../node_modules/${path}`, import.meta.url));

const FILES = {
  '/': ['text/html', '<!doctype html><title>Shop</title><script src="/pusher.js"></script><script src="/echo.js"></script>'],
  '/pusher.js': ['text/javascript', file('pusher-js/dist/web/pusher.js')],
  '/echo.js': ['text/javascript', file('laravel-echo/dist/echo.iife.js')],
  '/favicon.ico': ['image/x-icon', ''],
};

/** Serves the site on a free port; `/broadcasting/...` is answered by the app's auth endpoint. */
export async function startSite(app) {
  const server = createServer(async (request, response) => {
    if (request.url.startsWith('/broadcasting/')) {
      const answer = await fetch(new URL(request.url, app.auth.channelUrl), {
        method: 'POST',
        headers: { authorization: request.headers.authorization ?? '', 'content-type': request.headers['content-type'] },
        body: Buffer.concat(await request.toArray()),
      });
      response.writeHead(answer.status, { 'content-type': 'application/json' }).end(await answer.text());
      return;
    }
    const [type, body] = FILES[request.url] ?? ['text/plain'];
    response.writeHead(body === undefined ? 404 : 200, { 'content-type': type }).end(body);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}/`,
    close() {
      server.closeAllConnections();
      server.close();
    },
  };
}
