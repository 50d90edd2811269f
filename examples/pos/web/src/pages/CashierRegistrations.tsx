import { type FormEvent, useState } from 'react';

import { useLive, useStores } from '../app/stores';
import { useToasts } from '../app/toasts';
import { ListState } from '../components/ListState';
import { RegistrationList } from '../components/RegistrationList';
import { useNow } from '../hooks/useNow';
import { useRealtimeRegistrations } from '../hooks/useRealtimeRegistrations';
import { api } from '../lib/api';
import { useDraft } from '../lib/draft';

export function CashierRegistrations() {
  const { waiting, released, loaded, error } = useRealtimeRegistrations();
  const now = useNow();
  return (
    <main className="page split" id="content">
      <RegistrationForm />
      <div>
        <section aria-labelledby="waiting-title" data-testid="waiting">
          <h2 className="list-title" id="waiting-title">Waiting for release <span className="tally">{waiting.length}</span></h2>
          <RegistrationList registrations={waiting} now={now} />
          {waiting.length === 0 && <ListState loaded={loaded} error={error} empty="Nobody waits." icon="registration" />}
        </section>
        {released.length > 0 && (
          <section aria-labelledby="released-title" data-testid="released">
            <h2 className="list-title" id="released-title">Just released <span className="tally">{released.length}</span></h2>
            <RegistrationList registrations={released.slice(0, 10)} now={now} />
          </section>
        )}
      </div>
    </main>
  );
}

function RegistrationForm() {
  const { registrations } = useStores();
  const { report } = useLive();
  const { say, fail } = useToasts();
  const [form, setForm] = useDraft('registration', { name: '', email: '' });
  const [busy, setBusy] = useState(false);
  const submit = async (event: FormEvent) => {
    event.preventDefault();
    if (busy) return;
    setBusy(true);
    try {
      const { registration, live } = await api.createRegistration(form.name.trim(), form.email.trim());
      registrations.apply(registration);
      report(live);
      say(`${registration.name} is registered`, 'check');
      setForm({ name: '', email: '' });
    } catch (error) {
      fail(error);
    } finally {
      setBusy(false);
    }
  };
  return (
    <form className="card form-card" aria-labelledby="register-title" onSubmit={(event) => void submit(event)}>
      <h2 className="list-title" id="register-title">New registration</h2>
      <label className="field">
        <span>Name</span>
        <input name="name" required maxLength={80} autoComplete="off" value={form.name} onChange={(event) => setForm({ ...form, name: event.target.value })} />
      </label>
      <label className="field">
        <span>E-mail <span className="muted">if there is one</span></span>
        <input name="email" type="email" maxLength={120} autoComplete="off" value={form.email} onChange={(event) => setForm({ ...form, email: event.target.value })} />
      </label>
      <button type="submit" className="button primary large" disabled={busy}>Register</button>
    </form>
  );
}
