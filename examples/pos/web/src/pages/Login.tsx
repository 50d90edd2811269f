import { type FormEvent, useEffect, useState } from 'react';

import { Avatar } from '../components/Avatar';
import { api } from '../lib/api';
import { ROLE_LABEL } from '../lib/format';
import type { DemoUser } from '../lib/types';

export function Login({ onSignedIn }: { onSignedIn: () => Promise<void> }) {
  const [username, setUsername] = useState('');
  const [password, setPassword] = useState('');
  const [error, setError] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const [demo, setDemo] = useState<DemoUser[]>([]);
  useEffect(() => {
    document.title = 'Sign in · Fanfare Till';
    api.demo().then(setDemo, () => undefined);
  }, []);

  const signIn = async (name: string, secret: string) => {
    setBusy(true);
    setError(null);
    try {
      await api.signIn(name, secret);
      await onSignedIn();
    } catch (failure) {
      setError(failure instanceof Error ? failure.message : String(failure));
      setBusy(false);
    }
  };
  const submit = (event: FormEvent) => {
    event.preventDefault();
    void signIn(username, password);
  };
  return (
    <main className="login">
      <div className="card login-card">
        <p className="brand login-brand">
          <img src="/favicon.svg" alt="" width="40" height="40" />
          <span>Fanfare Till</span>
        </p>
        <h1>Sign in</h1>
        <form onSubmit={submit}>
          <label className="field">
            <span>User name</span>
            <input name="username" autoComplete="username" autoCapitalize="none" required value={username} onChange={(event) => setUsername(event.target.value)} />
          </label>
          <label className="field">
            <span>Password</span>
            <input name="password" type="password" autoComplete="current-password" required value={password} onChange={(event) => setPassword(event.target.value)} />
          </label>
          {error !== null && <p className="form-error" role="alert">{error}</p>}
          <button type="submit" className="button primary large" disabled={busy}>Sign in</button>
        </form>
        {demo.length > 0 && (
          <section className="demo" aria-labelledby="demo-title">
            <h2 id="demo-title">This is a demonstration. Come in as</h2>
            <ul>
              {demo.map((user) => (
                <li key={user.username}>
                  <button
                    type="button" className="demo-user" disabled={busy}
                    onClick={() => void signIn(user.username, user.password)}
                  >
                    <Avatar name={user.name} />
                    <span>
                      <strong>{user.name}</strong>
                      <span className="muted">{ROLE_LABEL[user.role]}</span>
                    </span>
                  </button>
                </li>
              ))}
            </ul>
          </section>
        )}
      </div>
    </main>
  );
}
