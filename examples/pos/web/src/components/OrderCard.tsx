import { memo, useRef } from 'react';
import { Link } from 'wouter';

import { useStaff } from '../app/staff';
import { useStores } from '../app/stores';
import { type OrderActions, stepsFor } from '../hooks/useOrderActions';
import { ago, count, money, STATUS_LABEL, time } from '../lib/format';
import type { Order, OrderStatus } from '../lib/types';
import { Avatar } from './Avatar';
import { Icon } from './Icon';

interface Props {
  order: Order;
  now: number;
  pending: boolean;
  setStatus: OrderActions['setStatus'];
  /** Lists each item on a line of its own, large. */
  packing?: boolean;
}

/** One order in a list, with what this person may do with it. Drawn again when this order changed, not when others did. */
export const OrderCard = memo(function OrderCard({ order, now, pending, setStatus, packing = false }: Props) {
  const { user } = useStores();
  const heading = `order-${order.id}-number`;
  const steps = stepsFor(order, user.role);
  const late = order.status === 'paid' && now - Date.parse(order.updated_at) > 10 * 60_000;
  return (
    <article
      className={packing ? 'card order packing' : 'card order'}
      data-testid={`order-${order.id}`} data-status={order.status} aria-labelledby={heading}
    >
      <Fresh revision={order.revision} />
      <header className="order-head">
        <Link href={`?order=${order.id}`} className="order-number" id={heading} aria-label={`Order #${order.number}, ${order.customer}, details`}>
          #{order.number}
        </Link>
        <span className="order-customer">{order.customer}</span>
        <StatusBadge status={order.status} />
      </header>
      {packing ? (
        <ul className="packing-list">
          {order.items.map(({ product_id, quantity, name }) => (
            <li key={product_id}><span className="quantity">{quantity} ×</span> {name}</li>
          ))}
        </ul>
      ) : (
        <p className="order-items">{order.items.map(({ quantity, name }) => `${quantity} × ${name}`).join(', ')}</p>
      )}
      <p className="order-meta">
        <span className={late ? 'late' : undefined} title={time(order.updated_at)}>{ago(order.updated_at, now)}</span>
        <span>by {order.created_by}</span>
        <Watchers order={order.id} />
        <strong className="amount">{money(order.total_cents)}</strong>
      </p>
      {steps.length > 0 && (
        <div className="order-actions">
          {steps.map(({ label, status, kind }) => (
            <button
              key={status} type="button" className={`button ${kind}`} aria-describedby={heading}
              disabled={pending} onClick={() => void setStatus(order, status)}
            >
              {label}
            </button>
          ))}
        </div>
      )}
    </article>
  );
});

export function StatusBadge({ status }: { status: OrderStatus }) {
  return <span className={`badge badge-${status}`}>{STATUS_LABEL[status]}</span>;
}

/** Lights up for a moment when the order changed, but not when the page is opened. */
function Fresh({ revision }: { revision: number }) {
  const first = useRef(revision);
  return revision === first.current ? null : <span key={revision} className="fresh" aria-hidden="true" />;
}

/** Who else has this order open. */
export function Watchers({ order }: { order: number }) {
  const watchers = useStaff().watchers(order);
  if (watchers.length === 0) return null;
  const editing = watchers.some((watcher) => watcher.editing);
  const label = watchers.map((watcher) => `${watcher.name} is ${watcher.editing ? 'editing' : 'looking at'} this order`).join(', ');
  return (
    <span className="watchers" role="img" aria-label={label} title={label} data-testid={`watchers-${order}`}>
      <Icon name={editing ? 'pencil' : 'eye'} />
      {watchers.slice(0, 3).map(({ user, name }) => <Avatar key={user} name={name} />)}
      {watchers.length > 3 && <span className="muted">+{watchers.length - 3}</span>}
    </span>
  );
}

/** A heading that says how many orders are below it. */
export function ListTitle({ id, title, number }: { id: string; title: string; number: number }) {
  return (
    <h2 className="list-title" id={id}>
      {title} <span className="tally" aria-label={count(number, 'order')}>{number}</span>
    </h2>
  );
}
