import { useCallback, useMemo, useState } from 'react';

import { useLive, useStores } from '../app/stores';
import { useToasts } from '../app/toasts';
import { api } from '../lib/api';
import type { Order, OrderStatus } from '../lib/types';

export interface OrderActions {
  /** The orders whose change is under way. */
  pending: ReadonlySet<number>;
  setStatus: (order: Order, status: OrderStatus) => Promise<void>;
}

/** Moves an order on. The answer is shown at once; the other windows hear of it, this one does not. */
export function useOrderActions(): OrderActions {
  const { orders } = useStores();
  const { report } = useLive();
  const { fail } = useToasts();
  const [pending, setPending] = useState<ReadonlySet<number>>(new Set());
  const setStatus = useCallback(async (order: Order, status: OrderStatus) => {
    setPending((now) => new Set(now).add(order.id));
    try {
      const answer = await api.setOrderStatus(order.id, status);
      orders.apply(answer.order);
      report(answer.live);
    } catch (error) {
      fail(error);
      // Somebody else may have been quicker.
      orders.catchUp();
    } finally {
      setPending((now) => new Set([...now].filter((id) => id !== order.id)));
    }
  }, [orders, report, fail]);
  return useMemo(() => ({ pending, setStatus }), [pending, setStatus]);
}

export interface Step {
  label: string;
  status: OrderStatus;
  kind: 'primary' | 'danger';
}

/** What this person may do with an order now; the back end checks it again. */
export function stepsFor(order: Order, role: string): Step[] {
  const sells = role === 'cashier' || role === 'manager';
  const releases = role === 'releasing' || role === 'manager';
  const cancel: Step = { label: 'Cancel order', status: 'cancelled', kind: 'danger' };
  switch (order.status) {
    case 'created':
      return sells ? [{ label: 'Take payment', status: 'payment', kind: 'primary' }, cancel] : [];
    case 'payment':
      return sells ? [{ label: 'Mark paid', status: 'paid', kind: 'primary' }, cancel] : [];
    case 'paid':
      return [
        ...(releases ? [{ label: 'Release', status: 'released', kind: 'primary' } as const] : []),
        ...(role === 'manager' ? [cancel] : []),
      ];
    case 'released':
    case 'cancelled':
      return [];
  }
}
