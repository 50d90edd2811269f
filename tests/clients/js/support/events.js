// Reading pusher-js from a test.

import { Inbox, within } from './inbox.js';

/** Records every event of a channel, a connection, a user or a watchlist as `{event, data}`. */
export function events(emitter, label = emitter.constructor.name) {
  const inbox = new Inbox(label);
  emitter.bind_global((event, data) => inbox.push({ event, data }));
  return inbox;
}

/** The data (and metadata) of the next `name` that is emitted from now on. */
export function nextEvent(emitter, name, { deadline } = {}) {
  let handler;
  const event = new Promise((resolve) => {
    handler = (data, metadata) => resolve({ data, metadata });
    emitter.bind(name, handler);
  });
  return within(event, () => `event ${name}`, deadline).finally(() => emitter.unbind(name, handler));
}

/** A pusher-js channel together with everything it has emitted since before it was subscribed. */
export class Subscription {
  constructor(pusher, name) {
    this.name = name;
    this.pusher = pusher;
    // An instance of the name may exist already (React mounts twice): then only what follows is recorded.
    this.channel = pusher.subscribe(name);
    this.inbox = events(this.channel, name);
  }

  /** The data of the first unread event of this name. */
  async next(name, options) {
    return (await this.inbox.next(name, options)).data;
  }

  /** The data of each event of this name so far. */
  seen(name) {
    return this.inbox.seen(name).map(({ data }) => data);
  }

  /**
   * Waits until everything published to the channel before has been delivered here.
   *
   * Order within a channel is kept, so once the fence has arrived, what has not come will not come. This is how
   * "is not delivered" is tested without sleeping.
   */
  async settled(app) {
    fences += 1;
    const fence = `fence-${fences}`;
    await app.sdk.trigger(this.name, fence, {});
    await this.inbox.next(fence);
  }
}

let fences = 0;

/** Subscribes and waits for `subscription_succeeded`. */
export async function subscribe(pusher, name) {
  const subscription = new Subscription(pusher, name);
  await subscription.next('pusher:subscription_succeeded');
  return subscription;
}
