// Short notes at the edge of the page.

import { createContext, type ReactNode, use, useCallback, useMemo, useRef, useState } from 'react';

import { Icon, type IconName } from '../components/Icon';
import { present } from './stores';

interface Toast {
  id: number;
  text: string;
  kind: 'news' | 'error';
  icon: IconName;
}

interface Toasts {
  say: (text: string, icon?: IconName) => void;
  /** Shows why something did not work. */
  fail: (error: unknown) => void;
}

const ToastContext = createContext<Toasts | null>(null);

const SHOWN_MS = 6000;
/** More than these would cover the page; the oldest goes. */
const AT_ONCE = 3;

export function ToastProvider({ children }: { children: ReactNode }) {
  const [toasts, setToasts] = useState<Toast[]>([]);
  const next = useRef(1);
  const dismiss = useCallback((id: number) => setToasts((now) => now.filter((toast) => toast.id !== id)), []);
  const add = useCallback(
    (toast: Omit<Toast, 'id'>) => {
      const id = next.current++;
      setToasts((now) => [...now, { id, ...toast }].slice(-AT_ONCE));
      setTimeout(() => dismiss(id), SHOWN_MS);
    },
    [dismiss],
  );
  const value = useMemo<Toasts>(
    () => ({
      say: (text, icon = 'bell') => add({ text, icon, kind: 'news' }),
      fail: (error) => add({ text: error instanceof Error ? error.message : String(error), icon: 'alert', kind: 'error' }),
    }),
    [add],
  );
  return (
    <ToastContext value={value}>
      {children}
      <div className="toasts" role="status" aria-live="polite" data-testid="toasts">
        {toasts.map(({ id, text, kind, icon }) => (
          <div key={id} className={`toast toast-${kind}`} data-testid="toast">
            <Icon name={icon} />
            <span>{text}</span>
            <button type="button" className="icon-button" aria-label="Dismiss" onClick={() => dismiss(id)}>
              <Icon name="close" />
            </button>
          </div>
        ))}
      </div>
    </ToastContext>
  );
}

export function useToasts(): Toasts {
  return present(use(ToastContext));
}
