// Who is signed in decides what there is: the login page, or the shop with its live connection.

import { useCallback, useEffect, useState } from 'react';
import { useLocation } from 'wouter';

import { api, ApiError, SIGNED_OUT } from '../lib/api';
import { clearDrafts } from '../lib/draft';
import { connect, disconnect } from '../lib/echo';
import { unlockSound } from '../lib/sound';
import type { Session } from '../lib/types';
import { Login } from '../pages/Login';
import { homeOf } from './routes';
import { Shell } from './Shell';
import { StaffProvider } from './staff';
import { StoresProvider } from './stores';
import { ToastProvider } from './toasts';

type State = { is: 'asking' } | { is: 'failed'; why: string } | { is: 'out' } | { is: 'in'; session: Session };

export function App() {
  const [state, setState] = useState<State>({ is: 'asking' });
  const [path, navigate] = useLocation();

  const enter = useCallback((session: Session) => {
    connect(session.realtime);
    setState({ is: 'in', session });
  }, []);
  useEffect(() => {
    if (state.is !== 'asking') return;
    let over = false;
    api.session().then(
      (session) => over || enter(session),
      (error: unknown) => {
        if (over) return;
        const out = error instanceof ApiError && error.status === 401;
        setState(out ? { is: 'out' } : { is: 'failed', why: error instanceof Error ? error.message : String(error) });
      },
    );
    return () => {
      over = true;
    };
  }, [state.is, enter]);
  const leave = useCallback(() => {
    disconnect();
    setState({ is: 'out' });
  }, []);
  useEffect(() => {
    window.addEventListener(SIGNED_OUT, leave);
    const stopUnlocking = unlockSound();
    return () => {
      window.removeEventListener(SIGNED_OUT, leave);
      stopUnlocking();
    };
  }, [leave]);
  useEffect(() => {
    if (state.is === 'out' && path !== '/login') navigate('/login', { replace: true });
  }, [state.is, path, navigate]);

  switch (state.is) {
    case 'asking':
      return <main className="splash" aria-busy="true" />;
    case 'failed':
      return (
        <main className="splash">
          <p>{state.why}</p>
          <button type="button" className="button" onClick={() => setState({ is: 'asking' })}>Try again</button>
        </main>
      );
    case 'out':
      return (
        <Login
          onSignedIn={async () => {
            const session = await api.session();
            navigate(homeOf(session.user.role), { replace: true });
            enter(session);
          }}
        />
      );
    case 'in': {
      const { user } = state.session;
      const signOut = async () => {
        await api.signOut().catch(() => undefined);
        clearDrafts();
        leave();
      };
      return (
        <ToastProvider key={user.id}>
          <StoresProvider user={user}>
            <StaffProvider>
              <Shell onSignOut={signOut} />
            </StaffProvider>
          </StoresProvider>
        </ToastProvider>
      );
    }
  }
}
