import { useEcho } from '@laravel/echo-react';
import { useEffect, useState } from 'react';

import { api } from '../lib/api';
import { coalesce } from '../lib/coalesce';
import type { DashboardFigures } from '../lib/types';
import { useMissed } from './useMissed';

const startOfToday = () => new Date(new Date().setHours(0, 0, 0, 0));

/** The figures of today; of a burst of changes, not each is asked for. */
export function useDashboard(): { figures: DashboardFigures | null; error: string | null } {
  const [figures, setFigures] = useState<DashboardFigures | null>(null);
  const [error, setError] = useState<string | null>(null);
  const [ask] = useState(() =>
    coalesce(async () => {
      try {
        setFigures(await api.dashboard(startOfToday()));
        setError(null);
      } catch (failure) {
        setError(failure instanceof Error ? failure.message : String(failure));
      }
    }));
  useEffect(ask, [ask]);
  useEcho('dashboard', '.dashboard.changed', ask, [ask]);
  useMissed('dashboard', 'private', ask);
  return { figures, error };
}
