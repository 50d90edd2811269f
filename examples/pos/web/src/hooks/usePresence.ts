import { useEchoPresence } from '@laravel/echo-react';
import { useState } from 'react';

import type { Role } from '../lib/types';

export interface Member {
  id: string;
  name: string;
  role: Role;
}

interface Joined {
  id: string;
  info: { name: string; role: Role };
}

const member = ({ id, info }: Joined): Member => ({ id, ...info });

/** Who is on a presence channel; a person with several windows is there once. */
export function usePresence(channel: string): Member[] {
  const [members, setMembers] = useState<Member[]>([]);
  useEchoPresence<{ members: Record<string, Joined['info']> }>(channel, '.pusher:subscription_succeeded', ({ members }) =>
    setMembers(Object.entries(members).map(([id, info]) => member({ id, info }))));
  useEchoPresence<Joined>(channel, '.pusher:member_added', (joined) =>
    setMembers((now) => [...now.filter(({ id }) => id !== joined.id), member(joined)]));
  useEchoPresence<Joined>(channel, '.pusher:member_removed', (left) =>
    setMembers((now) => now.filter(({ id }) => id !== left.id)));
  return members;
}
