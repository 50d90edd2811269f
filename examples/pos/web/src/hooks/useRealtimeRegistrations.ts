import { useMemo } from 'react';

import { useStores } from '../app/stores';
import type { Registration } from '../lib/types';
import { useSynced } from './useSynced';

const EVENTS = ['.registration.created', '.registration.released'];

/** The registrations that wait, oldest first, and those released since this page was opened, latest first. */
export function useRealtimeRegistrations(): {
  waiting: Registration[];
  released: Registration[];
  loaded: boolean;
  error: string | null;
} {
  const { registrations: store } = useStores();
  const { records, loaded, error } = useSynced(store, 'registrations', EVENTS);
  return useMemo(() => {
    const all = [...records.values()];
    return {
      waiting: all.filter(({ status }) => status === 'created').sort((a, b) => a.id - b.id),
      released: all.filter(({ status }) => status === 'released').sort((a, b) => b.revision - a.revision),
      loaded,
      error,
    };
  }, [records, loaded, error]);
}
