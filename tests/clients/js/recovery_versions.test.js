// The versions of pusher-js that people have. Before 8.3 a client gives up by itself at its second unclean drop: the first is recovered.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import Pusher from 'pusher-js';
import Pusher7 from 'pusher-js-7';
import Pusher83 from 'pusher-js-8.3';

import { Recovering, listen } from './support/recovering.js';
import { TestServer } from './support/server.js';
import { watch } from './support/wire.js';

const server = await TestServer.start();
after(() => server.stop());
const { main } = server.apps;
watch(Pusher7);
watch(Pusher83);

for (const [version, Client, drops] of [['7', Pusher7, 1], ['8.3', Pusher83, 3], ['latest', Pusher, 3]]) {
  test(`pusher-js ${version}`, async (t) => {
    const name = `orders-${version}`;
    const auth = (socketId, channelName) => main.sdk.authorizeChannel(socketId, channelName);
    const client = await Recovering.connect(t, main, {
      Client,
      channelAuthorization: {
        customHandler: ({ socketId, channelName }, answer) => answer(null, auth(socketId, channelName)),
      },
    });
    const channels = [name, `private-${name}`];
    const inboxes = [];
    for (const channel of channels) inboxes.push(listen((await client.subscribe(channel)).channel, 'numbered'));
    let number = 0;
    for (let drop = 0; drop < drops; drop += 1) {
      await client.away();
      for (const channel of channels) {
        for (let more = 0; more < 3; more += 1) await main.sdk.trigger(channel, 'numbered', number + more);
      }
      number += 3;
      await client.back();
      for (const channel of channels) {
        assert.equal((await client.recovered.next((entry) => entry.channel === channel)).count, 3);
      }
    }
    for (const inbox of inboxes) assert.deepEqual(inbox.all, Array.from({ length: number }, (_, index) => index));
    assert.deepEqual(client.gaps.all, []);
  });
}
