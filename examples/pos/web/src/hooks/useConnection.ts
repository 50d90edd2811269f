import { useSyncExternalStore } from 'react';

import { type ConnectionState, connectionState, onConnectionState } from '../lib/echo';

/** The state of the connection to the broadcast server, in pusher-js's words. */
export function useConnection(): ConnectionState {
  return useSyncExternalStore(onConnectionState, connectionState);
}
