// Imported once, by app.tsx: import './echo';

import { router } from '@inertiajs/react';
import { configureEcho, echo } from '@laravel/echo-react';

configureEcho({
    broadcaster: 'pusher',
    // echo-react takes key, cluster, host and ports from VITE_PUSHER_*. The scheme it does not read: it assumes TLS.
    forceTLS: import.meta.env.VITE_PUSHER_SCHEME === 'https',
});

// Echo adds the socket id to axios and others, but Inertia's requests are its own. Without it, toOthers() leaves out nobody.
router.on('before', ({ detail: { visit } }) => {
    const socketId = echo<'pusher'>().socketId() as string | undefined;
    if (socketId !== undefined) {
        visit.headers['X-Socket-ID'] = socketId;
    }
});
