import { router } from '@inertiajs/react';
import { useEchoPublic } from '@laravel/echo-react';
import { useCallback, useRef } from 'react';

/**
 * Asks for these props of the current page again when one of the events arrives: those props alone, by Inertia's partial reload,
 * which leaves the scroll position and everything that is being typed as it is.
 *
 * Also whenever the channel was joined: the first time, because something may have happened since the page was made, and after each
 * reconnect, because something may have happened meanwhile.
 */
export function useRealtimeProps(channel: string, events: string[], props: string[]): void {
    const state = useRef<'idle' | 'asking' | 'again'>('idle');
    const only = props.join();
    const reload = useCallback(() => {
        // One request at a time: what comes during one is one more after it, however much it is.
        if (state.current !== 'idle') {
            state.current = 'again';
            return;
        }
        const ask = () => {
            state.current = 'asking';
            router.reload({
                only: only.split(','),
                onFinish: () => {
                    const again = state.current === 'again';
                    state.current = 'idle';
                    if (again) {
                        ask();
                    }
                },
            });
        };
        ask();
    }, [only]);
    useEchoPublic(channel, [...events, '.pusher:subscription_succeeded'], reload, [reload]);
}
