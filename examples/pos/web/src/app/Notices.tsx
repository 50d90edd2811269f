// Tells the person what others did: a toast, a chime, and a notification while the page is hidden.

import { useEffect, useRef } from 'react';

import { useConnection } from '../hooks/useConnection';
import { useRealtimeOrders } from '../hooks/useRealtimeOrders';
import { useRealtimeRegistrations } from '../hooks/useRealtimeRegistrations';
import { returns } from '../lib/echo';
import { count } from '../lib/format';
import { notify } from '../lib/notify';
import { chime } from '../lib/sound';
import type { Change, Origin } from '../lib/synced';
import type { Order, Registration } from '../lib/types';
import { useStores } from './stores';
import { useToasts } from './toasts';

export function Notices() {
  const { user, orders, registrations } = useStores();
  const { say } = useToasts();
  const connection = useConnection();
  const away = useRef(false);
  // Every page keeps up with both, whatever it shows, so that going there shows what is true at once.
  useRealtimeOrders([]);
  useRealtimeRegistrations();

  useEffect(() => {
    if (connection !== 'connected' && connection !== 'initialized' && orders.state().loaded) away.current = true;
  }, [connection, orders]);

  useEffect(
    () =>
      returns.subscribe(({ count: events, gap }) => {
        if (gap) say('Back online: not all that was missed could be given back, so it was asked for.', 'refresh');
        else if (events > 0) say(`Back online: ${count(events, 'missed event')} came after all.`, 'refresh');
        else say('Back online: nothing was missed.', 'refresh');
      }),
    [say],
  );

  useEffect(() => {
    const summed = (origin: Origin) => origin === 'catch-up' && away.current;
    const stopOrders = orders.onChanges((changes: Change<Order>[], origin) => {
      if (origin === 'load' || origin === 'own') return;
      if (summed(origin)) {
        say(`Back online: ${count(changes.length, 'order')} changed meanwhile, ${numbers(changes)}.`, 'refresh');
        chime('new');
        return;
      }
      for (const { record, before } of changes) {
        if (record.status === 'created' && before === undefined) {
          const text = `New order #${record.number} for ${record.customer}`;
          say(text, 'till');
          chime('new');
          notify(text, `order-${record.id}`);
        } else if (record.status === 'paid' && before?.status !== 'paid' && user.role !== 'cashier') {
          const text = `Order #${record.number} is ready for release`;
          say(text, 'box');
          chime('ready');
          notify(text, `order-${record.id}`);
        } else if (record.status === 'cancelled' && before !== undefined && before.status !== 'cancelled') {
          say(`Order #${record.number} was cancelled`, 'close');
        }
      }
    });
    const stopRegistrations = registrations.onChanges((changes: Change<Registration>[], origin) => {
      if (origin === 'load' || origin === 'own') return;
      if (summed(origin)) {
        say(`Back online: ${count(changes.length, 'registration')} changed meanwhile.`, 'refresh');
        return;
      }
      for (const { record, before } of changes) {
        if (record.status === 'created' && before === undefined) {
          const text = `New registration: ${record.name}`;
          say(text, 'registration');
          if (user.role !== 'cashier') chime('new');
          notify(text, `registration-${record.id}`);
        }
      }
    });
    return () => {
      stopOrders();
      stopRegistrations();
    };
  }, [orders, registrations, say, user.role]);
  return null;
}

/** "#12, #14 and 3 more". */
function numbers(changes: Change<Order>[]): string {
  const shown = changes.slice(0, 3).map(({ record }) => `#${record.number}`);
  const rest = changes.length - shown.length;
  return rest === 0 ? shown.join(', ') : `${shown.join(', ')} and ${rest} more`;
}
