// What is being typed, kept for this window by name, so that it outlives a change of page and a reload.

import { useCallback, useState } from 'react';

/** Like `useState`; `key` names the draft. A value equal to the initial one is not kept. */
export function useDraft<T>(key: string, initial: T): [T, (value: T) => void] {
  const name = `pos:draft:${key}`;
  const [value, setValue] = useState<T>(() => read(name) ?? initial);
  const empty = JSON.stringify(initial);
  const set = useCallback(
    (next: T) => {
      setValue(next);
      const text = JSON.stringify(next);
      if (text === empty) sessionStorage.removeItem(name);
      else sessionStorage.setItem(name, text);
    },
    [name, empty],
  );
  return [value, set];
}

/** Forgets all drafts: the next person at this till starts afresh. */
export function clearDrafts(): void {
  for (const key of Object.keys(sessionStorage)) if (key.startsWith('pos:draft:')) sessionStorage.removeItem(key);
}

function read<T>(name: string): T | undefined {
  const text = sessionStorage.getItem(name);
  if (text === null) return undefined;
  return JSON.parse(text) as T;
}
