// The one Echo of this window: stock pusher-js and laravel-echo, configured by what the back end's session answer says.

import { recover } from '@fanfare/recover';
import { configureEcho, echo, echoIsConfigured } from '@laravel/echo-react';

import { Returns } from './returns';
import type { RealtimeOptions } from './types';

/** pusher-js's own names. Echo's `connectionStatus()` has fewer: "unavailable" is "failed" there. */
export type ConnectionState = 'initialized' | 'connecting' | 'connected' | 'unavailable' | 'failed' | 'disconnected';

/** When the page says that there is no connection; pusher-js's own 10 s are long for a till. */
const UNAVAILABLE_MS = 3000;

let connected = false;

/** What became of the events that this window missed, each time it came back. */
export const returns = new Returns();

/** Connects, and signs the person in, so that the server knows whose connection it is. */
export function connect(options: RealtimeOptions): void {
  disconnect();
  configureEcho({ broadcaster: 'pusher', unavailableTimeout: UNAVAILABLE_MS, ...options });
  connected = true;
  recover(pusher(), { onRecovered: (_, count) => returns.recovered(count), onGap: () => returns.gap() });
  tryAgainSoon();
  pusher().signin();
}

/**
 * pusher-js lets 15 s pass between a refused attempt and the next, then 30, then 60. Beginning anew makes it a few seconds,
 * not the same for all windows, so that they do not come back in one moment.
 */
function tryAgainSoon(): void {
  const client = pusher();
  client.connection.bind('unavailable', () => {
    setTimeout(() => {
      if (client.connection.state !== 'unavailable') return;
      client.disconnect();
      client.connect();
    }, 1000 + Math.random() * 1500);
  });
}

/** Ends the connection. The next `connect` makes a new Echo, authorised anew. */
export function disconnect(): void {
  if (connected) echo<'pusher'>().disconnect();
  connected = false;
}

/** For `X-Socket-ID`; undefined while there is no connection. */
export function socketId(): string | undefined {
  return connected && echoIsConfigured() && connectionState() === 'connected' ? echo<'pusher'>().socketId() : undefined;
}

export function connectionState(): ConnectionState {
  return pusher().connection.state as ConnectionState;
}

export function onConnectionState(changed: () => void): () => void {
  const { connection } = pusher();
  connection.bind('state_change', changed);
  return () => {
    connection.unbind('state_change', changed);
  };
}

const pusher = () => echo<'pusher'>().connector.pusher;
