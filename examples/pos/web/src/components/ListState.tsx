import { Icon, type IconName } from './Icon';

/** What a list shows before it is here, when it cannot be had, and when it is empty. */
export function ListState({ loaded, error, empty, icon }: { loaded: boolean; error: string | null; empty: string; icon: IconName }) {
  if (!loaded && error === null) return <p className="list-state" aria-busy="true">Loading…</p>;
  if (!loaded) return <p className="list-state" role="alert">{error} Trying again…</p>;
  return (
    <p className="list-state">
      <Icon name={icon} />
      {empty}
    </p>
  );
}
