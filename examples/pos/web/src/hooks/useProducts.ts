import { useEffect, useState } from 'react';

import { useStores } from '../app/stores';
import { useToasts } from '../app/toasts';
import { api } from '../lib/api';
import { coalesce } from '../lib/coalesce';
import type { Product } from '../lib/types';

/** What is sold; asked for again when an order took from the stock or gave back to it. */
export function useProducts(): Product[] | null {
  const { orders } = useStores();
  const { fail } = useToasts();
  const [products, setProducts] = useState<Product[] | null>(null);
  useEffect(() => {
    let over = false;
    const ask = coalesce(() => api.products().then((now) => over || setProducts(now), fail));
    ask();
    const stop = orders.onChanges((changes, origin) => {
      const stockMoved = changes.some(({ record, before }) => before === undefined || record.status === 'cancelled');
      if (origin !== 'load' && stockMoved) ask();
    });
    return () => {
      over = true;
      stop();
    };
  }, [orders, fail]);
  return products;
}
