import { useState } from 'react';

import { useLive, useStores } from '../app/stores';
import { useToasts } from '../app/toasts';
import { ListState } from '../components/ListState';
import { RegistrationList } from '../components/RegistrationList';
import { useNow } from '../hooks/useNow';
import { useRealtimeRegistrations } from '../hooks/useRealtimeRegistrations';
import { api } from '../lib/api';
import type { Registration } from '../lib/types';

export function ReleasingRegistrations() {
  const { registrations } = useStores();
  const { waiting, released, loaded, error } = useRealtimeRegistrations();
  const { report } = useLive();
  const { fail } = useToasts();
  const [pending, setPending] = useState<ReadonlySet<number>>(new Set());
  const now = useNow();
  const release = async ({ id }: Registration) => {
    setPending((before) => new Set(before).add(id));
    try {
      const { registration, live } = await api.releaseRegistration(id);
      registrations.apply(registration);
      report(live);
    } catch (failure) {
      fail(failure);
      registrations.catchUp();
    } finally {
      setPending((before) => new Set([...before].filter((one) => one !== id)));
    }
  };
  return (
    <main className="page" id="content">
      <section aria-labelledby="waiting-title" data-testid="waiting">
        <h2 className="list-title" id="waiting-title">Waiting for release <span className="tally">{waiting.length}</span></h2>
        <RegistrationList registrations={waiting} now={now} pending={pending} onRelease={(one) => void release(one)} />
        {waiting.length === 0 && <ListState loaded={loaded} error={error} empty="Nobody waits to be released." icon="badge" />}
      </section>
      {released.length > 0 && (
        <section aria-labelledby="released-title" data-testid="released">
          <h2 className="list-title" id="released-title">Just released <span className="tally">{released.length}</span></h2>
          <RegistrationList registrations={released.slice(0, 10)} now={now} />
        </section>
      )}
    </main>
  );
}
