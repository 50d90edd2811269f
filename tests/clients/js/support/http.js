// The two HTTP servers a Pusher user runs himself, the auth endpoint and the webhook receiver, stand on this.

import { createServer } from 'node:http';

/** Serves `handle(request, body)`, which answers `{status, json}`, on a free port. */
export async function listen(handle) {
  const server = createServer(async (request, response) => {
    const chunks = await request.toArray();
    const { status, json } = await handle(request, Buffer.concat(chunks).toString());
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(json));
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    close() {
      server.closeAllConnections();
      server.close();
    },
  };
}
