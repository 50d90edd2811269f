// How pages call it. Compiled against the types that are shipped, and not run.

import Echo from 'laravel-echo';
import Pusher from 'pusher-js';

import { recover, type Recovery } from '../dist/index.js';

const pusher: Pusher = recover(new Pusher('key', { cluster: 'mt1' }), { from: { feed: { last: 20 }, orders: 'position' } });
pusher.subscribe('orders').bind('pusher:recovery', ({ recovered, count }: Recovery) => recovered || count);

const echo = new Echo({ broadcaster: 'reverb', key: 'key', Pusher });
recover(echo.connector.pusher, {
  onGap: (channel) => channel.toUpperCase(),
  onRecovered: (channel, count) => count + channel.length,
});

// @ts-expect-error: a position is text
recover(pusher, { from: { orders: 7 } });
