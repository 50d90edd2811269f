// One configured app, seen from its users' side: the server SDK, pusher-js and Echo, all pointed at the running server.

import Echo from 'laravel-echo';
import PusherServer from 'pusher';
import Pusher from 'pusher-js';

import { startAuthEndpoint } from './auth_endpoint.js';
import { nextEvent } from './events.js';

/** The same on both sides of every test; SDKs want numeric ids. */
export function credentials(name) {
  const id = [...name].reduce((sum, char) => sum * 31 + char.charCodeAt(0), 0) % 1_000_000_007;
  return { id: String(id), key: `${name}-key`, secret: `${name}-secret` };
}

/** The official SDK for `name`, with `port` left out when only its signatures are wanted. */
export function sdkFor(name, port, overrides = {}) {
  const { id: appId, key, secret } = credentials(name);
  // Any 32 bytes: the key never leaves the application and its auth endpoint.
  const encryptionMasterKeyBase64 = Buffer.alloc(32, 7).toString('base64');
  return new PusherServer({ appId, key, secret, host: '127.0.0.1', port, useTLS: false, encryptionMasterKeyBase64, ...overrides });
}

export class App {
  static async start(name, port, users) {
    const app = new App();
    Object.assign(app, credentials(name), { name, port, sdk: sdkFor(name, port) });
    app.auth = await startAuthEndpoint(app.sdk, users);
    return app;
  }

  stop() {
    this.auth.close();
  }

  /** The WebSocket address, for bare sockets. */
  url(query = 'protocol=7&client=js&version=8.6.0&flash=false') {
    return `ws://127.0.0.1:${this.port}/app/${this.key}?${query}`;
  }

  /** A stock pusher-js that has begun to connect; closed when the test ends. `Client`: another version. Other options are its own. */
  client(t, { user, key = this.key, Client = Pusher, ...options } = {}) {
    const headers = user ? { Authorization: `Bearer ${user}` } : {};
    const pusher = new Client(key, {
      ...this.#address(),
      channelAuthorization: { endpoint: this.auth.channelUrl, headers },
      userAuthentication: { endpoint: this.auth.userUrl, headers },
      ...options,
    });
    t.after(() => pusher.disconnect());
    return pusher;
  }

  /** A connected pusher-js. */
  async connect(t, options) {
    const pusher = this.client(t, options);
    await nextEvent(pusher.connection, 'connected');
    return pusher;
  }

  /** A stock Echo as a Laravel page configures it. */
  echo(t, { broadcaster = 'pusher', user, ...options } = {}) {
    const echo = new Echo({
      broadcaster,
      key: this.key,
      Pusher,
      ...this.#address(),
      authEndpoint: this.auth.channelUrl,
      // Echo writes the token into these objects, and without them into defaults shared by all instances.
      auth: { headers: {} },
      userAuthentication: { endpoint: this.auth.userUrl, headers: {} },
      bearerToken: user,
      ...options,
    });
    t.after(() => echo.disconnect());
    return echo;
  }

  /** The parsed answer of a signed GET below `/apps/{id}`. */
  async get(path, params) {
    const response = await this.sdk.get({ path, params });
    return response.json();
  }

  // `cluster` is required by pusher-js and unused once `wsHost` is given.
  #address() {
    return { cluster: 'mt1', wsHost: '127.0.0.1', wsPort: this.port, forceTLS: false, enabledTransports: ['ws'] };
  }
}
