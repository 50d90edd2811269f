import { ago, time } from '../lib/format';
import type { Registration } from '../lib/types';
import { Avatar } from './Avatar';

interface Props {
  registrations: Registration[];
  now: number;
  onRelease?: (registration: Registration) => void;
  pending?: ReadonlySet<number>;
}

/** Registrations, one a row; with `onRelease`, each has the button. */
export function RegistrationList({ registrations, now, onRelease, pending }: Props) {
  return (
    <ul className="rows">
      {registrations.map((registration) => {
        const { id, name, email, status, created_at } = registration;
        return (
          <li key={id} className="row" data-testid={`registration-${id}`} data-status={status}>
            <Avatar name={name} />
            <span className="row-main">
              <strong id={`registration-${id}-name`}>{name}</strong>
              <span className="muted">{email ?? 'no e-mail address'}</span>
            </span>
            <span className="muted row-time" title={time(created_at)}>{ago(created_at, now)}</span>
            <span className={`badge badge-${status}`}>{status === 'created' ? 'Waiting' : 'Released'}</span>
            {onRelease !== undefined && (
              <button
                type="button" className="button primary" aria-describedby={`registration-${id}-name`}
                disabled={pending?.has(id) === true} onClick={() => onRelease(registration)}
              >
                Release
              </button>
            )}
          </li>
        );
      })}
    </ul>
  );
}
