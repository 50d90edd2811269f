// Who is online, and who has which order open: one presence channel for both.

import { useEchoPresence } from '@laravel/echo-react';
import { createContext, type ReactNode, use, useCallback, useEffect, useMemo, useRef, useState } from 'react';

import { type Member, usePresence } from '../hooks/usePresence';
import {
  type Activity, parseActivity, REPEAT_MS, type Seen, type Watcher, watchersOf, withActivity, withoutUser,
} from '../lib/activity';
import { present, useStores } from './stores';

interface Staff {
  members: Member[];
  watchers: (order: number) => (Watcher & { name: string })[];
  /** Tells the others what this window has open. */
  show: (order: number | null, editing: boolean) => void;
}

const StaffContext = createContext<Staff | null>(null);
const CHANNEL = 'staff';
const tab = Math.random().toString(36).slice(2);

export function StaffProvider({ children }: { children: ReactNode }) {
  const me = String(useStores().user.id);
  const members = usePresence(CHANNEL);
  const [seen, setSeen] = useState<Seen[]>([]);
  const mine = useRef<Activity>({ tab, order: null, editing: false });

  const { channel } = useEchoPresence<unknown, 'pusher'>(
    CHANNEL, '.client-activity',
    (data: unknown, meta?: { user_id?: string }) => {
      const activity = parseActivity(data);
      const user = meta?.user_id;
      if (activity !== undefined && user !== undefined) setSeen((now) => withActivity(now, user, activity, Date.now()));
    },
  );
  const say = useCallback(() => {
    const joined = channel();
    if (joined?.subscription.subscribed) joined.whisper('activity', mine.current);
  }, [channel]);
  const sayIfOpen = useCallback(() => {
    if (mine.current.order !== null) say();
  }, [say]);
  const show = useCallback(
    (order: number | null, editing: boolean) => {
      if (mine.current.order === order && mine.current.editing === editing) return;
      mine.current = { tab, order, editing };
      say();
    },
    [say],
  );
  useEchoPresence(CHANNEL, ['.pusher:member_added', '.pusher:subscription_succeeded'], sayIfOpen, [sayIfOpen]);
  useEchoPresence<{ id: string }>(CHANNEL, '.pusher:member_removed', ({ id }) => setSeen((now) => withoutUser(now, id)));
  useEffect(() => {
    const timer = setInterval(() => {
      sayIfOpen();
      setSeen((now) => (now.length === 0 ? now : withActivity(now, me, { tab, order: null, editing: false }, Date.now())));
    }, REPEAT_MS);
    const gone = () => show(null, false);
    window.addEventListener('pagehide', gone);
    return () => {
      clearInterval(timer);
      window.removeEventListener('pagehide', gone);
    };
  }, [me, sayIfOpen, show]);

  const value = useMemo<Staff>(
    () => ({
      members,
      show,
      watchers: (order) =>
        watchersOf(seen, order)
          .filter(({ user }) => user !== me)
          .flatMap((watcher) => {
            const name = members.find(({ id }) => id === watcher.user)?.name;
            return name === undefined ? [] : [{ ...watcher, name }];
          }),
    }),
    [members, seen, show, me],
  );
  return <StaffContext value={value}>{children}</StaffContext>;
}

export function useStaff(): Staff {
  return present(use(StaffContext));
}
