// The till: what is sold, the basket, and the orders that are open.

import { type FormEvent, useState } from 'react';

import { useLive, useStores } from '../app/stores';
import { useToasts } from '../app/toasts';
import { Icon } from '../components/Icon';
import { ListState } from '../components/ListState';
import { ListTitle, OrderCard } from '../components/OrderCard';
import { useNow } from '../hooks/useNow';
import { useOrderActions } from '../hooks/useOrderActions';
import { useProducts } from '../hooks/useProducts';
import { useRealtimeOrders } from '../hooks/useRealtimeOrders';
import { api } from '../lib/api';
import { useDraft } from '../lib/draft';
import { count, money } from '../lib/format';
import type { Order, Product } from '../lib/types';

/** Quantities by product. */
type Basket = Record<number, number>;

export function CashierPos() {
  const products = useProducts();
  const [basket, setBasket] = useDraft<Basket>('basket', {});
  const [view, setView] = useState<'sell' | 'orders'>('sell');
  const { orders, loaded, error } = useRealtimeOrders(['created', 'payment', 'paid']);
  const [paid, unpaid] = [orders.filter(({ status }) => status === 'paid'), orders.filter(({ status }) => status !== 'paid')];
  const actions = useOrderActions();
  const now = useNow();

  const pieces = Object.values(basket).reduce((sum, quantity) => sum + quantity, 0);
  const card = (order: Order) => (
    <OrderCard key={order.id} order={order} now={now} pending={actions.pending.has(order.id)} setStatus={actions.setStatus} />
  );
  const show = (next: 'sell' | 'orders') => {
    setView(next);
    window.scrollTo(0, 0);
  };
  const setQuantity = (product: number, quantity: number) => {
    const { [product]: _, ...others } = basket;
    setBasket(quantity > 0 ? { ...others, [product]: quantity } : others);
  };
  return (
    <main className="pos" id="content" data-view={view}>
      <div className="segments" role="group" aria-label="View">
        <button type="button" aria-pressed={view === 'sell'} onClick={() => show('sell')}>Sell</button>
        <button type="button" aria-pressed={view === 'orders'} onClick={() => show('orders')}>
          Open orders <span className="tally">{orders.length}</span>
        </button>
      </div>
      <section className="pos-products" aria-labelledby="products-title">
        <h2 className="list-title" id="products-title">Products</h2>
        <div className="products">
          {products?.map((product) => (
            <ProductTile
              key={product.id} product={product} quantity={basket[product.id] ?? 0}
              onAdd={() => setQuantity(product.id, (basket[product.id] ?? 0) + 1)}
            />
          ))}
        </div>
        {pieces > 0 && (
          <button type="button" className="button primary basket-jump" onClick={() => document.getElementById('basket')?.scrollIntoView({ behavior: 'smooth' })}>
            Basket <span>{count(pieces, 'piece')}</span>
          </button>
        )}
      </section>
      <BasketForm products={products ?? []} basket={basket} setQuantity={setQuantity} onOrdered={() => setBasket({})} />
      <section className="pos-orders" aria-labelledby="orders-title">
        <ListTitle id="orders-title" title="Open orders" number={unpaid.length} />
        <div className="stack" data-testid="orders">
          {/* One array with keys: an order that moves to the other part stays the same element. */}
          {[
            ...unpaid.map(card),
            unpaid.length === 0 && <ListState key="none" loaded={loaded} error={error} empty="No open orders." icon="till" />,
            paid.length > 0 && <ListTitle key="paid" id="paid-title" title="For release" number={paid.length} />,
            ...paid.map(card),
          ]}
        </div>
      </section>
    </main>
  );
}

function ProductTile({ product, quantity, onAdd }: { product: Product; quantity: number; onAdd: () => void }) {
  const left = product.stock - quantity;
  return (
    <button
      type="button" className="product" data-testid={`product-${product.id}`} disabled={left <= 0} onClick={onAdd}
      style={{ '--hue': (product.id * 47 + 20) % 360 }} aria-label={`Add ${product.name}, ${money(product.price_cents)}, ${product.stock} in stock`}
    >
      <span className="product-name">{product.name}</span>
      <span className="product-foot">
        <span className="amount">{money(product.price_cents)}</span>
        <span className={left <= 5 ? 'stock low' : 'stock'}>{product.stock <= 0 ? 'sold out' : `${product.stock} left`}</span>
      </span>
      {quantity > 0 && <span className="product-count">{quantity}</span>}
    </button>
  );
}

interface BasketProps {
  products: Product[];
  basket: Basket;
  setQuantity: (product: number, quantity: number) => void;
  onOrdered: () => void;
}

function BasketForm({ products, basket, setQuantity, onOrdered }: BasketProps) {
  const { orders } = useStores();
  const { report } = useLive();
  const { say, fail } = useToasts();
  const [customer, setCustomer] = useDraft('customer', '');
  const [busy, setBusy] = useState(false);
  const lines = products.flatMap((product) => {
    const quantity = basket[product.id];
    return quantity === undefined ? [] : [{ product, quantity }];
  });
  const pieces = lines.reduce((sum, { quantity }) => sum + quantity, 0);
  const total = lines.reduce((sum, { product, quantity }) => sum + quantity * product.price_cents, 0);

  const submit = async (event: FormEvent) => {
    event.preventDefault();
    if (busy) return;
    setBusy(true);
    try {
      const { order, live } = await api.createOrder(
        customer.trim(), lines.map(({ product, quantity }) => ({ product_id: product.id, quantity })),
      );
      orders.apply(order);
      report(live);
      say(`Order #${order.number} created`, 'check');
      setCustomer('');
      onOrdered();
    } catch (error) {
      fail(error);
    } finally {
      setBusy(false);
    }
  };
  return (
    <form className="pos-basket" id="basket" aria-labelledby="basket-title" onSubmit={(event) => void submit(event)}>
      <h2 className="list-title" id="basket-title">Basket <span className="tally" aria-label={count(pieces, 'piece')}>{pieces}</span></h2>
      <label className="field">
        <span>Customer</span>
        <input name="customer" required maxLength={80} autoComplete="off" value={customer} onChange={(event) => setCustomer(event.target.value)} />
      </label>
      <ul className="basket-lines">
        {lines.map(({ product, quantity }) => (
          <li key={product.id}>
            <span className="basket-name">{product.name}<span className="muted">{money(quantity * product.price_cents)}</span></span>
            <button type="button" className="icon-button" aria-label={`One ${product.name} less`} onClick={() => setQuantity(product.id, quantity - 1)}><Icon name="minus" /></button>
            <output aria-label={`${product.name}, quantity`}>{quantity}</output>
            <button type="button" className="icon-button" aria-label={`One ${product.name} more`} disabled={quantity >= product.stock} onClick={() => setQuantity(product.id, quantity + 1)}><Icon name="plus" /></button>
          </li>
        ))}
        {lines.length === 0 && <li className="list-state">Choose products to begin an order.</li>}
      </ul>
      <div className="basket-foot">
        <p className="basket-total"><span>Total</span> <strong className="amount" data-testid="basket-total">{money(total)}</strong></p>
        <button type="submit" className="button primary large" disabled={busy || pieces === 0}>New order</button>
      </div>
    </form>
  );
}
