// Who looks at or edits which order, put together from what the windows of the staff whisper to each other.
//
// The server vouches for who whispered; everything else in a whisper is only as good as the window that sent it.

export interface Activity {
  /** One window: a person may have several. */
  tab: string;
  /** The order whose panel is open there. */
  order: number | null;
  editing: boolean;
}

export interface Seen extends Activity {
  user: string;
  /** When it was last said, in milliseconds. */
  at: number;
}

export interface Watcher {
  user: string;
  editing: boolean;
}

/** How often a window that has an order open says so again, for those who came later or missed it. */
export const REPEAT_MS = 20_000;
/** What was not repeated for so long is over: the window is gone. */
export const EXPIRES_MS = 50_000;
/** More windows than a shop has; a bound for what others may make this page keep. */
const MAX_WINDOWS = 200;

/** A whisper's data if it is one of ours. */
export function parseActivity(data: unknown): Activity | undefined {
  if (typeof data !== 'object' || data === null) return undefined;
  const { tab, order, editing } = data as Record<string, unknown>;
  if (typeof tab !== 'string' || tab.length > 40 || typeof editing !== 'boolean') return undefined;
  if (order !== null && !Number.isInteger(order)) return undefined;
  return { tab, order: order as number | null, editing };
}

export function withActivity(seen: readonly Seen[], user: string, activity: Activity, at: number): Seen[] {
  const others = seen.filter((one) => (one.user !== user || one.tab !== activity.tab) && at - one.at < EXPIRES_MS);
  return activity.order === null ? others : [...others, { ...activity, user, at }].slice(-MAX_WINDOWS);
}

export const withoutUser = (seen: readonly Seen[], user: string): Seen[] => seen.filter((one) => one.user !== user);

/** Those who have this order open, each once. */
export function watchersOf(seen: readonly Seen[], order: number): Watcher[] {
  const watchers = new Map<string, Watcher>();
  for (const { user, order: open, editing } of seen) {
    if (open === order) watchers.set(user, { user, editing: editing || (watchers.get(user)?.editing ?? false) });
  }
  return [...watchers.values()];
}
