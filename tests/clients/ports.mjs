// Ports for servers that cannot be asked which one they took.

import { once } from 'node:events';
import { createServer } from 'node:net';

/**
 * A free port of 127.0.0.1, below those that Linux gives to whoever does not ask for one (32768 and above): nothing takes it before the
 * server has bound it.
 */
export async function freePort() {
  for (;;) {
    const server = createServer().listen(12_000 + Math.floor(Math.random() * 20_000), '127.0.0.1');
    const free = await once(server, 'listening').then(() => true, () => false);
    if (!free) continue;
    const { port } = server.address();
    server.close();
    await once(server, 'close');
    return port;
  }
}
