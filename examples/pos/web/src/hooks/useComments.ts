import { useEcho } from '@laravel/echo-react';
import { useCallback, useEffect, useRef, useState } from 'react';

import { useLive } from '../app/stores';
import { useToasts } from '../app/toasts';
import { api } from '../lib/api';
import type { Comment } from '../lib/types';
import { useMissed } from './useMissed';

/** A whisper for each key would be too many; the hint lasts longer than the pause. */
const WHISPER_EVERY_MS = 1500;
const HINT_MS = 3000;

/** The comments on an order, and who is writing one now. */
export function useComments(order: number, name: string) {
  const [comments, setComments] = useState<Comment[] | null>(null);
  const [typing, setTyping] = useState<string | null>(null);
  const { report } = useLive();
  const { fail } = useToasts();
  const lastWhisper = useRef(0);
  const hint = useRef<ReturnType<typeof setTimeout>>(undefined);

  const fetchAll = useCallback(() => {
    api.comments(order).then(setComments, fail);
  }, [order, fail]);
  useEffect(fetchAll, [fetchAll]);

  const { channel } = useEcho<unknown, 'pusher'>(
    `orders.${order}`, '.comment.created',
    () => {
      setTyping(null);
      fetchAll();
    },
    [fetchAll],
  );
  useMissed(`orders.${order}`, 'private', fetchAll);
  useEcho<{ name?: unknown }>(`orders.${order}`, '.client-typing', ({ name }) => {
    if (typeof name !== 'string') return;
    setTyping(name.slice(0, 40));
    clearTimeout(hint.current);
    hint.current = setTimeout(() => setTyping(null), HINT_MS);
  });
  useEffect(() => () => clearTimeout(hint.current), []);

  const whisperTyping = () => {
    const joined = channel();
    const now = Date.now();
    if (!joined?.subscription.subscribed || now - lastWhisper.current < WHISPER_EVERY_MS) return;
    lastWhisper.current = now;
    joined.whisper('typing', { name });
  };
  const add = async (body: string) => {
    const answer = await api.comment(order, body);
    lastWhisper.current = 0;
    report(answer.live);
    setComments((now) => [...(now ?? []).filter(({ id }) => id !== answer.comment.id), answer.comment]);
  };
  return { comments, typing, whisperTyping, add };
}
