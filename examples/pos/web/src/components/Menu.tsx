import { type ReactNode, useEffect, useRef } from 'react';

/** A button that opens a small panel below itself. Closed by Escape, and by a click elsewhere. */
export function Menu({ label, face, testId, children }: { label: string; face: ReactNode; testId: string; children: ReactNode }) {
  const details = useRef<HTMLDetailsElement>(null);
  useEffect(() => {
    const close = (event: Event) => {
      const menu = details.current;
      if (menu === null || !menu.open) return;
      if (event instanceof KeyboardEvent) {
        if (event.key !== 'Escape') return;
        menu.querySelector('summary')?.focus();
      } else if (menu.contains(event.target as Node)) {
        return;
      }
      menu.open = false;
    };
    document.addEventListener('pointerdown', close);
    document.addEventListener('keydown', close);
    return () => {
      document.removeEventListener('pointerdown', close);
      document.removeEventListener('keydown', close);
    };
  }, []);
  return (
    <details className="menu" ref={details} data-testid={testId}>
      <summary className="icon-button" aria-label={label} title={label}>{face}</summary>
      <div className="menu-panel">{children}</div>
    </details>
  );
}
