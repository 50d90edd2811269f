// What useRealtimeOrders and useRealtimeRegistrations share.

import { useEchoPublic } from '@laravel/echo-react';
import { useCallback, useEffect, useSyncExternalStore } from 'react';

import type { State, Synced, Versioned } from '../lib/synced';
import { useMissed } from './useMissed';

/**
 * Keeps `store` equal to the back end while the component is mounted, by the given events of a public channel. Several
 * components may do so for one store: Echo subscribes once, and an event heard twice is asked for once.
 */
export function useSynced<T extends Versioned>(store: Synced<T>, channel: string, events: string[]): State<T> {
  useEchoPublic<Partial<T> & Versioned>(channel, events, (event) => store.hear(event), [store]);
  useMissed(channel, 'public', useCallback(() => store.catchUp(), [store]));
  useEffect(() => {
    // The first list does not wait for the connection.
    if (!store.state().loaded) store.catchUp();
    const seen = () => {
      if (document.visibilityState === 'visible') store.catchUp();
    };
    // Browsers freeze hidden pages; what came meanwhile may be lost.
    document.addEventListener('visibilitychange', seen);
    return () => document.removeEventListener('visibilitychange', seen);
  }, [store]);
  return useSyncExternalStore(store.subscribe, store.state);
}
