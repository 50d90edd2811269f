// React in a page made by jsdom, always in StrictMode: it mounts everything twice, which is what makes clients leave and
// join a channel in one breath.

import { register } from 'node:module';

import { JSDOM } from 'jsdom';

register('./vite_env.js', import.meta.url);
const { window } = new JSDOM('', { url: 'http://shop.test/' });
Object.assign(globalThis, { window, document: window.document });
globalThis.navigator ??= window.navigator;

// Only now: these look for `window` and `import.meta.env` while they load.
const { createElement, StrictMode } = await import('react');
const { createRoot } = await import('react-dom/client');
const { flushSync } = await import('react-dom');
const echoReact = await import('@laravel/echo-react');

/** Configures echo-react for `app` as the broadcaster's .env lines do; disconnected when the test ends. */
export function configure(t, app, { broadcaster = 'reverb', user }) {
  const name = broadcaster.toUpperCase();
  Object.assign(process.env, {
    [`VITE_${name}_APP_KEY`]: app.key,
    [`VITE_${name}_HOST`]: '127.0.0.1',
    [`VITE_${name}_PORT`]: String(app.port),
    [`VITE_${name}_SCHEME`]: 'http',
    VITE_PUSHER_APP_CLUSTER: 'mt1',
  });
  echoReact.configureEcho({
    broadcaster,
    authEndpoint: app.auth.channelUrl,
    auth: { headers: {} },
    bearerToken: user,
    // Laravel's Pusher preset has no scheme variable; its users set this in bootstrap.js.
    ...(broadcaster === 'pusher' ? { forceTLS: false } : {}),
  });
  const echo = echoReact.echo();
  t.after(() => echo.disconnect());
  return echo;
}

/** Mounts a component that calls `hook(props)` and shows what it returns as text; unmounted when the test ends. */
export function mount(t, hook, props = {}) {
  const container = document.createElement('div');
  const root = createRoot(container);
  const Component = (given) => {
    const shown = hook(given);
    return typeof shown === 'string' ? shown : null;
  };
  const page = {
    render: (next) => flushSync(() => root.render(createElement(StrictMode, null, createElement(Component, next)))),
    unmount: () => flushSync(() => root.unmount()),
    get text() {
      return container.textContent;
    },
  };
  page.render(props);
  t.after(page.unmount);
  return page;
}

export { echoReact };
