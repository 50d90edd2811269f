// pusher-js inside a page, seen from a test.

import { Inbox } from '../../js/support/inbox.js';

/**
 * One pusher-js in one page, as `window.pusher`. What its connection, channels and user emit arrives in `connection`, in
 * the subscriptions' `inbox`es and in `user`, as `{event, data}`.
 */
export class PageClient {
  #inboxes = new Map();

  /** Makes a pusher-js in the page, which begins to connect. */
  static async start(page, key, options) {
    const self = new PageClient();
    self.page = page;
    self.connection = self.#inbox('connection');
    self.user = self.#inbox('user');
    await page.exposeFunction('report', (source, event, data) => self.#inbox(source).push({ event, data }));
    await page.evaluate(
      ([key, options]) => {
        window.record = (source, emitter) => {
          emitter.bind_global((event, data) => {
            const members = data?.members ? { members: data.members, me: data.me?.id } : undefined;
            // Errors are class instances, and members are, too: only their plain parts cross over.
            window.report(source, event, members ?? JSON.parse(JSON.stringify(data ?? null)));
          });
        };
        window.pusher = new window.Pusher(key, options);
        window.record('connection', window.pusher.connection);
        window.record('user', window.pusher.user);
      },
      [key, options],
    );
    return self;
  }

  #inbox(source) {
    if (!this.#inboxes.has(source)) this.#inboxes.set(source, new Inbox(source));
    return this.#inboxes.get(source);
  }

  /** Waits until it is connected; its socket id. */
  async connected(options) {
    await this.connection.next('connected', options);
    return this.page.evaluate(() => window.pusher.connection.socket_id);
  }

  /** The transport it is connected by: `ws`, `xhr_streaming` or `xhr_polling`. */
  transport() {
    return this.page.evaluate(() => window.pusher.connection.connection.transport.name);
  }

  /** Subscribes, and waits for the answer: everything the channel emits. */
  async subscribe(channel) {
    const inbox = this.#inbox(channel);
    await this.page.evaluate((channel) => window.record(channel, window.pusher.subscribe(channel)), channel);
    inbox.succeeded = (await inbox.next('pusher:subscription_succeeded')).data;
    return inbox;
  }

  /** Calls a method of `window.pusher`, or of one of its channels. */
  async call(method, ...args) {
    await this.page.evaluate(([method, args]) => void window.pusher[method](...args), [method, args]);
  }

  /** Sends a client event. */
  async trigger(channel, event, data) {
    await this.page.evaluate(([channel, ...args]) => void window.pusher.channel(channel).trigger(...args), [channel, event, data]);
  }
}
