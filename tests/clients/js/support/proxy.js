// A network between client and server that fails in the ways networks do.

import { connect, createServer } from 'node:net';

export class Proxy {
  #links = new Set();
  #holding = false;
  #refusing = false;
  /** What `intercept` waits for. */
  #wanted;
  /** What `loseAnswer` waits for. */
  #unanswered;

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

  /** Ends the next connection that the server sends something on, without letting it through. Resolves when that was so. */
  loseAnswer() {
    return new Promise((resolve) => (this.#unanswered = resolve));
  }

  /** Lets nothing through any more, in either direction, and tells nobody. New connections are as usual. */
  blackHole() {
    for (const link of this.#links) link.lost = true;
  }

  /** Keeps back the next bytes of a client that hold this text. Resolves, when they are there, to what may become of them: `pass()`, or `lose()`. */
  intercept(text) {
    return new Promise((resolve) => (this.#wanted = { text, resolve }));
  }

  /** New connections end at once, until `hold` or `release`. */
  refuse() {
    this.#refusing = true;
  }

  /** New connections wait, until `release`. */
  hold() {
    this.#refusing = false;
    this.#holding = true;
  }

  /** Lets connections through; `bytes`: the first of them only so far. */
  release({ bytes } = {}) {
    this.#refusing = this.#holding = false;
    for (const link of this.#links) {
      if (!link.server) link.dial(bytes);
    }
  }

  #link(client) {
    if (this.#refusing) return client.destroy();
    const link = {
      left: Infinity,
      lost: false,
      dial: (bytes = Infinity) => {
        link.left = bytes;
        link.server = connect(this.target, '127.0.0.1');
        link.server.on('error', link.end).on('close', () => link.lost || link.end());
        client.on('data', (chunk) => {
          if (link.lost) return;
          if (!this.#wanted || !chunk.includes(this.#wanted.text)) return link.server.write(chunk);
          const { resolve } = this.#wanted;
          this.#wanted = undefined;
          client.pause();
          resolve({
            pass: () => {
              link.server.write(chunk);
              client.resume();
            },
            lose: link.end,
          });
        });
        link.server.on('data', (chunk) => {
          if (link.lost) return;
          if (this.#unanswered) {
            this.#unanswered();
            this.#unanswered = undefined;
            return link.end();
          }
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
