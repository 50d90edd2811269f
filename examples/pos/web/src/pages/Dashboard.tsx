// The manager's view: what was sold today, hour by hour, what is left, and what is going on.

import { Link } from 'wouter';

import { HourChart } from '../components/HourChart';
import { ListState } from '../components/ListState';
import { StatusBadge, Watchers } from '../components/OrderCard';
import { useDashboard } from '../hooks/useDashboard';
import { useNow } from '../hooks/useNow';
import { useRealtimeOrders } from '../hooks/useRealtimeOrders';
import { ago, money } from '../lib/format';
import type { DashboardFigures, Hour } from '../lib/types';

/** Stock at or below this is shown as low. */
const LOW = 5;
const LATEST = 8;
const SHOWN_HOURS = 8;

export function Dashboard() {
  const { figures, error } = useDashboard();
  if (figures === null) {
    return <main className="page" id="content"><ListState loaded={false} error={error} empty="" icon="chart" /></main>;
  }
  const { sales_count: sales, revenue_cents: revenue, orders_by_status: orders } = figures;
  return (
    <main className="page dashboard" id="content">
      <div className="tiles">
        <Tile name="sales" label="Sales today" value={String(sales)} />
        <Tile name="revenue" label="Revenue today" value={money(revenue)} />
        <Tile name="average" label="Average sale" value={sales === 0 ? '–' : money(Math.round(revenue / sales))} />
        <Tile name="open" label="Open orders" value={String(orders.created + orders.payment + orders.paid)} note={`${orders.paid} for release`} />
      </div>
      <section className="card dashboard-chart"><HourChart hours={worthShowing(figures.revenue_by_hour)} /></section>
      <Stock stock={figures.stock} />
      <Latest />
    </main>
  );
}

function Tile({ name, label, value, note }: { name: string; label: string; value: string; note?: string }) {
  return (
    <section className="card tile" aria-label={label}>
      <h2>{label}</h2>
      {/* A new value is a new element, so that its animation runs. */}
      <p className="tile-value" key={value} data-testid={`tile-${name}`}>{value}</p>
      {note !== undefined && <p className="muted">{note}</p>}
    </section>
  );
}

/** From the first hour with a sale on, and at least the last few. */
function worthShowing(hours: Hour[]): Hour[] {
  const first = hours.findIndex(({ cents }) => cents > 0);
  return hours.slice(Math.max(0, Math.min(first === -1 ? hours.length : first, hours.length - SHOWN_HOURS)));
}

function Stock({ stock }: { stock: DashboardFigures['stock'] }) {
  const most = Math.max(1, ...stock.map((product) => product.stock));
  const scarcestFirst = [...stock].sort((a, b) => a.stock - b.stock);
  return (
    <section className="card stock-card" aria-labelledby="stock-title">
      <h2 id="stock-title">Stock</h2>
      <ul className="stock-list">
        {scarcestFirst.map(({ product_id, name, stock: left }) => (
          <li key={product_id} data-testid={`stock-${product_id}`} data-low={left <= LOW || undefined}>
            <span className="stock-name">{name}</span>
            <span className="meter" aria-hidden="true"><span style={{ '--part': left / most }} /></span>
            <strong className="amount">{left}</strong>
          </li>
        ))}
      </ul>
    </section>
  );
}

function Latest() {
  const { orders, loaded, error } = useRealtimeOrders(['created', 'payment', 'paid', 'released', 'cancelled']);
  const now = useNow();
  const latest = [...orders].sort((a, b) => b.revision - a.revision).slice(0, LATEST);
  return (
    <section className="card latest" aria-labelledby="latest-title">
      <h2 id="latest-title">Going on now</h2>
      <ul className="rows">
        {latest.map((order) => (
          <li key={order.id} className="row" data-testid={`order-${order.id}`} data-status={order.status}>
            <Link href={`?order=${order.id}`} className="order-number" aria-label={`Order #${order.number}, ${order.customer}, details`}>#{order.number}</Link>
            <span className="row-main">
              <strong>{order.customer}</strong>
              <span className="muted">{money(order.total_cents)} · {ago(order.updated_at, now)}</span>
            </span>
            <Watchers order={order.id} />
            <StatusBadge status={order.status} />
          </li>
        ))}
      </ul>
      {latest.length === 0 && <ListState loaded={loaded} error={error} empty="No orders are open." icon="till" />}
    </section>
  );
}
