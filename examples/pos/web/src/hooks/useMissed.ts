import { useEcho } from '@laravel/echo-react';
import { useEffect, useRef } from 'react';

/** A server that knows of recovery tells within moments. One that does not never will. */
const VERDICT_MS = 500;

type Visibility = 'public' | 'private';

/**
 * Calls `fetch` whenever events of a channel may be missing: when it is subscribed, and on a return unless the server gave back what
 * was missed. Servers that cannot do that say nothing; then it is called a moment later.
 */
export function useMissed(channel: string, visibility: Visibility, fetch: () => void): void {
  const returned = useRef(false);
  const unanswered = useRef<ReturnType<typeof setTimeout>>(undefined);
  useEcho<unknown, 'pusher', Visibility>(
    channel, '.pusher:subscription_succeeded',
    () => {
      clearTimeout(unanswered.current);
      if (returned.current) unanswered.current = setTimeout(fetch, VERDICT_MS);
      else fetch();
      returned.current = true;
    },
    [fetch], visibility,
  );
  useEcho<{ recovered: boolean }, 'pusher', Visibility>(
    channel, '.pusher:recovery',
    ({ recovered }) => {
      clearTimeout(unanswered.current);
      if (!recovered) fetch();
    },
    [fetch], visibility,
  );
  useEffect(() => () => clearTimeout(unanswered.current), []);
}
