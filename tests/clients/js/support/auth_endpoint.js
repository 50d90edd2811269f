// The part of the user's application that signs subscriptions and sign-ins: Laravel's two /broadcasting routes, with the
// official SDK doing the signing.

import { listen } from './http.js';

/**
 * `users` maps a bearer token to `{id, info, watchlist, presenceBySignin}`. A token that is not in the map is its own
 * user id, so most tests just say `user: 'alice'`.
 *
 * Channels with `forbidden` in their name are refused with 403, as Laravel's channel callbacks would.
 */
export async function startAuthEndpoint(sdk, users = {}) {
  const server = await listen((request, body) => {
    const token = request.headers.authorization?.match(/^Bearer (.+)$/)?.[1];
    const form = new URLSearchParams(body);
    const socketId = form.get('socket_id');
    const channel = form.get('channel_name');
    if (!token || channel?.includes('forbidden')) return { status: 403, json: { message: 'Forbidden' } };
    const user = users[token] ?? { id: token, info: { name: token } };
    if (request.url === '/broadcasting/user-auth') {
      const userData = { id: user.id, user_info: user.info, watchlist: user.watchlist };
      return { status: 200, json: sdk.authenticateUser(socketId, userData) };
    }
    const isMember = channel.startsWith('presence-') && !user.presenceBySignin;
    const member = isMember ? { user_id: user.id, user_info: user.info } : undefined;
    return { status: 200, json: sdk.authorizeChannel(socketId, channel, member) };
  });
  return {
    channelUrl: `${server.url}/broadcasting/auth`,
    userUrl: `${server.url}/broadcasting/user-auth`,
    close: server.close,
  };
}
