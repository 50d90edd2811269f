// What a signed-in person's pages share: who they are, the records, and whether all broadcasts went out.

import { createContext, type ReactNode, use, useCallback, useEffect, useMemo, useState } from 'react';

import { api } from '../lib/api';
import { Synced } from '../lib/synced';
import type { Live, Order, Registration, User } from '../lib/types';

interface Stores {
  user: User;
  orders: Synced<Order>;
  registrations: Synced<Registration>;
}

interface Liveness extends Live {
  /** Takes the `live` of an answer to a change. */
  report: (live: boolean) => void;
}

const StoresContext = createContext<Stores | null>(null);
const LiveContext = createContext<Liveness | null>(null);

/** How often the back end is asked whether everything was delivered, while it was not. */
const LIVE_POLL_MS = 2000;

export function StoresProvider({ user, children }: { user: User; children: ReactNode }) {
  const [stores] = useState<Stores>(() => ({
    user,
    orders: new Synced({ all: api.openOrders, after: api.ordersAfter, one: api.order }),
    registrations: new Synced({ all: api.openRegistrations, after: api.registrationsAfter }),
  }));
  useEffect(
    () => () => {
      stores.orders.close();
      stores.registrations.close();
    },
    [stores],
  );
  const live = useLiveness();
  return (
    <StoresContext value={stores}>
      <LiveContext value={live}>{children}</LiveContext>
    </StoresContext>
  );
}

function useLiveness(): Liveness {
  const [state, setState] = useState<Live>({ live: true, waiting: 0 });
  useEffect(() => {
    // Asked once when the page opens, then only while something waits.
    const ask = () => void api.live().then(setState, () => undefined);
    ask();
    if (state.live) return;
    const timer = setInterval(ask, LIVE_POLL_MS);
    return () => clearInterval(timer);
  }, [state.live]);
  const report = useCallback((live: boolean) => {
    if (!live) setState((now) => ({ live, waiting: Math.max(now.waiting, 1) }));
  }, []);
  return useMemo(() => ({ ...state, report }), [state, report]);
}

export function useStores(): Stores {
  return present(use(StoresContext));
}

export function useLive(): Liveness {
  return present(use(LiveContext));
}

export function present<T>(value: T | null): T {
  if (value === null) throw new Error('used outside of its provider');
  return value;
}
