// A pusher-js with the companion, behind a network that fails.

import { recover } from '../../../../packages/recover/dist/index.js';
import { Inbox } from './inbox.js';
import { nextEvent, subscribe } from './events.js';
import { Proxy } from './proxy.js';

export class Recovering {
  /** Channels the companion reported a gap of, in order. */
  gaps = new Inbox('gaps');
  /** `{channel, count}` of what it gave back. */
  recovered = new Inbox('recovered');
  /** Channels whose position the server has told, each time. */
  positioned = new Inbox('positioned');

  /** A connected client of `app`. `from` goes to the companion, other options to pusher-js. */
  static async connect(t, app, { from, ...options } = {}) {
    const self = new Recovering();
    self.proxy = await Proxy.start(t, app.port);
    self.pusher = app.client(t, { wsPort: self.proxy.port, httpHost: '127.0.0.1', httpPort: self.proxy.port, ...options });
    // Before the companion takes it away.
    self.pusher.connection.bind_global((type, message) => type === 'message' && Array.isArray(message.user_id) && self.positioned.push(message.channel));
    recover(self.pusher, {
      from,
      onGap: (channel) => self.gaps.push(channel),
      onRecovered: (channel, count) => self.recovered.push({ channel, count }),
    });
    await nextEvent(self.pusher.connection, 'connected');
    return self;
  }

  subscribe(name) {
    return subscribe(this.pusher, name);
  }

  /** Subscribes, and waits until the client has a position: over HTTP the subscription may overtake what asks for it. */
  async follow(name) {
    const subscription = await this.subscribe(name);
    await this.positioned.next((channel) => channel === name);
    return subscription;
  }

  /** Cuts the connection, and keeps the client away until it is let `back`. */
  async away() {
    const lost = nextEvent(this.pusher.connection, 'connecting');
    // It may be about to poll.
    this.proxy.refuse();
    this.proxy.cut();
    await lost;
    this.proxy.hold();
  }

  /** Lets the client connect again. */
  async back(options) {
    const connected = nextEvent(this.pusher.connection, 'connected');
    this.proxy.release(options);
    await connected;
  }
}

/** The data of events of one name, as they came. */
export function listen(channel, event) {
  const inbox = new Inbox(`${channel.name} ${event}`);
  channel.bind(event, (data) => inbox.push(data));
  return inbox;
}
