// The user's webhook endpoint: a real HTTP server that verifies each request with the official SDK.

import { sdkFor } from './app.js';
import { listen } from './http.js';
import { Inbox } from './inbox.js';

export class WebhookReceiver {
  /** Requests as they came: `{path, headers, rawBody, valid, time_ms, events}`. */
  deliveries = new Inbox('webhook deliveries');
  /** The events of accepted requests, one by one. */
  events = new Inbox('webhook events');
  /** Decides the status of the answer; a promise keeps the sender waiting. */
  answer = () => 200;

  /** Verifies with the secret of the app called `name`. */
  static async start(name = 'main') {
    const self = new WebhookReceiver();
    const sdk = sdkFor(name);
    const server = await listen(async ({ url: path, headers }, rawBody) => {
      const webhook = sdk.webhook({ headers, rawBody });
      // An invalid one is recorded too, so that the test which reads it can say what was wrong with it.
      const { time_ms, events } = JSON.parse(rawBody);
      const delivery = { path, headers, rawBody, valid: webhook.isValid(), time_ms, events };
      self.deliveries.push(delivery);
      const status = await self.answer(delivery);
      if (status < 300) for (const event of events) self.events.push(event);
      return { status, json: {} };
    });
    self.url = server.url;
    self.close = server.close;
    return self;
  }

  /** The next accepted event with these properties. */
  next(name, channel, options) {
    return this.events.next((event) => event.name === name && event.channel === channel, options);
  }

  /** All accepted events of a channel so far, by name. */
  namesOf(channel) {
    return this.events.all.filter((event) => event.channel === channel).map(({ name }) => name);
  }
}
