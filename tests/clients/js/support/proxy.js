// A network between client and server that fails in the ways networks do.

import { connect, createServer } from 'node:net';

export class Proxy {
  #links = new Set();
  #holding = false;

  /** Forwards a free port to `target`; ended with the test. */
  static async start(t, target) {
    const proxy = new Proxy();
    proxy.target = target;
    proxy.server = createServer((client) => proxy.#link(client));
    await new Promise((resolve) => proxy.server.listen(0, '127.0.0.1', resolve));
    proxy.port = proxy.server.address().port;
    t.after(() => {
      proxy.server.close();
      proxy.cut();
    });
    return proxy;
  }

  /** Connections that are forwarded. */
  get links() {
    return this.#links.size;
  }

  /** Ends all connections, without a close frame. */
  cut() {
    for (const link of this.#links) link.end();
  }

  /** Lets so many more bytes from the server through, and ends the connection then: most likely inside a frame. */
  cutAfter(bytes) {
    for (const link of this.#links) link.left = bytes;
  }

  /** Lets nothing through any more, in either direction, and tells nobody. New connections are as usual. */
  blackHole() {
    for (const link of this.#links) link.lost = true;
  }

  /** New connections wait, until `release`. */
  hold() {
    this.#holding = true;
  }

  /** Lets connections through; `bytes`: the first of them only so far. */
  release({ bytes } = {}) {
    this.#holding = false;
    for (const link of this.#links) {
      if (!link.server) link.dial(bytes);
    }
  }

  #link(client) {
    const link = {
      left: Infinity,
      lost: false,
      dial: (bytes = Infinity) => {
        link.left = bytes;
        link.server = connect(this.target, '127.0.0.1');
        link.server.on('error', link.end).on('close', () => link.lost || link.end());
        client.on('data', (chunk) => link.lost || link.server.write(chunk));
        link.server.on('data', (chunk) => {
          if (link.lost) return;
          client.write(chunk.subarray(0, link.left));
          link.left -= chunk.length;
          // What was let through shall arrive: a reset would take it back.
          if (link.left <= 0) client.end(link.end);
        });
      },
      end: () => {
        this.#links.delete(link);
        client.destroy();
        link.server?.destroy();
      },
    };
    this.#links.add(link);
    client.on('error', link.end).on('close', () => link.lost || link.end());
    if (!this.#holding) link.dial();
  }
}
