import { usePage } from '@inertiajs/react';

import { useRealtimeProps } from './useRealtimeProps';

export interface Registration {
    id: number;
    name: string;
    email: string | null;
    status: 'created' | 'released';
}

/** The page's `registrations`, as they are now, whoever changed them. */
export function useRealtimeRegistrations(): Registration[] {
    useRealtimeProps('registrations', ['.registration.created', '.registration.released'], ['registrations']);

    return usePage<{ registrations: Registration[] }>().props.registrations;
}
