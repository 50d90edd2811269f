import { useEffect, useMemo } from 'react';

import { useStores } from '../app/stores';
import { useToasts } from '../app/toasts';
import { api } from '../lib/api';
import type { Order, OrderStatus } from '../lib/types';
import { useSynced } from './useSynced';

const EVENTS = ['.order.status.changed'];

/**
 * The orders that have one of these statuses, oldest first, as they are now. An order appears, changes and leaves by
 * itself, whoever changed it.
 */
export function useRealtimeOrders(statuses: readonly OrderStatus[]): {
  orders: Order[];
  loaded: boolean;
  error: string | null;
} {
  const { orders: store } = useStores();
  const { records, loaded, error } = useSynced(store, 'orders', EVENTS);
  const wanted = statuses.join();
  const orders = useMemo(() => {
    const among = new Set<string>(wanted.split(','));
    return [...records.values()].filter(({ status }) => among.has(status)).sort((a, b) => a.id - b.id);
  }, [records, wanted]);
  return { orders, loaded, error };
}

/** One order, whatever its status; undefined until it is here. */
export function useRealtimeOrder(id: number): Order | undefined {
  const { orders: store } = useStores();
  const { fail } = useToasts();
  const order = useSynced(store, 'orders', EVENTS).records.get(id);
  const missing = order === undefined;
  useEffect(() => {
    // Orders that are closed already are not in the list this page began with.
    if (missing) api.order(id).then((found) => found !== undefined && store.apply(found), fail);
  }, [id, missing, store, fail]);
  return order;
}
