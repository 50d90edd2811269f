// A load balancer that asks /up, and lets connections wait while its backend restarts.
//
// Without one a test of restarts would depend on luck: pusher-js comes back within milliseconds, and when the port is
// closed in that instant it tries again only after its 15 s attempt timeout.

import { connect as connectTcp, createServer } from 'node:net';

import { eventually } from './inbox.js';

/** Balances until the test ends; the port it listens on. */
export async function loadBalancer(t, backendPort) {
  const open = new Set();
  const track = (socket) => {
    open.add(socket);
    return socket.on('error', () => {}).on('close', () => open.delete(socket));
  };
  const server = createServer((client) => {
    track(client);
    const dial = () => {
      const backend = track(connectTcp(backendPort, '127.0.0.1'));
      client.pipe(backend).pipe(client);
      backend.on('close', () => client.destroy());
    };
    const isUp = () => fetch(`http://127.0.0.1:${backendPort}/up`).then(({ ok }) => ok, () => false);
    eventually(isUp, 'the backend is up').then(dial, () => client.destroy());
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.close();
    for (const socket of open) socket.destroy();
  });
  return server.address().port;
}
