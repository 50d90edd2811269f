import { usePage } from '@inertiajs/react';

import { useRealtimeProps } from './useRealtimeProps';

export interface Order {
    id: number;
    customer: string;
    status: 'created' | 'payment' | 'paid' | 'released' | 'cancelled';
}

/** The page's `orders`, as they are now, whoever changed them. */
export function useRealtimeOrders(): Order[] {
    useRealtimeProps('orders', ['.order.status.changed'], ['orders']);

    return usePage<{ orders: Order[] }>().props.orders;
}
