// The releasing desk: what is paid and waits to be handed over, and below it what is on its way here.

import { ListState } from '../components/ListState';
import { ListTitle, OrderCard } from '../components/OrderCard';
import { useNow } from '../hooks/useNow';
import { useOrderActions } from '../hooks/useOrderActions';
import { useRealtimeOrders } from '../hooks/useRealtimeOrders';

export function ReleasingOrders() {
  const { orders, loaded, error } = useRealtimeOrders(['created', 'payment', 'paid']);
  const actions = useOrderActions();
  const now = useNow();
  // Whoever paid first is served first.
  const paid = orders.filter(({ status }) => status === 'paid').sort((a, b) => a.revision - b.revision);
  const coming = orders.filter(({ status }) => status !== 'paid');
  return (
    <main className="page" id="content">
      <section aria-labelledby="release-title" data-testid="for-release">
        <ListTitle id="release-title" title="For release" number={paid.length} />
        <div className="cards">
          {paid.map((order) => <OrderCard key={order.id} order={order} now={now} pending={actions.pending.has(order.id)} setStatus={actions.setStatus} packing />)}
        </div>
        {paid.length === 0 && <ListState loaded={loaded} error={error} empty="Nothing waits to be released." icon="box" />}
      </section>
      {coming.length > 0 && (
        <section aria-labelledby="coming-title" data-testid="coming">
          <ListTitle id="coming-title" title="On the way" number={coming.length} />
          <div className="cards quiet">
            {coming.map((order) => <OrderCard key={order.id} order={order} now={now} pending={actions.pending.has(order.id)} setStatus={actions.setStatus} />)}
          </div>
        </section>
      )}
    </main>
  );
}
