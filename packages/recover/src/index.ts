// Stock pusher-js gets back what it missed, from a Fanfare server. Public API only.
//
// Fanfare puts a position into `user_id`, the one key of a frame that pusher-js keeps, of the frames to clients that asked for it.
// We take it out again before anybody else sees the message, and hand the last one of each channel in when the connection is back.

/** Where to go on in a channel: a position that the server gave out, or before the newest so many events. */
export type From = string | { last: number };

/** What a channel emits as `pusher:recovery` when it is subscribed again. */
export interface Recovery {
  /** Whether the channel has everything that was published since. */
  recovered: boolean;
  /** How many events were given back, just before this. */
  count: number;
}

export interface Options {
  /** For channels that are not subscribed yet: where the page's data stands. */
  from?: Record<string, From>;
  /** Something of this channel is missing, and will not come: fetch its state anew. */
  onGap?: (channel: string) => void;
  /** This channel has everything, after so many events were given back. */
  onRecovered?: (channel: string, count: number) => void;
}

/** The part of pusher-js that is used here. */
export interface Client {
  connection: {
    state: string;
    socket_id: string;
    bind_global(callback: (event: string, data: any) => void): unknown;
  };
  channel(name: string): Channel | undefined;
  allChannels(): Channel[];
  send_event(name: string, data: unknown): unknown;
}

export interface Channel {
  name: string;
  emit(event: string, data?: unknown): unknown;
}

/** Entries of one frame: as many as the server looks at. */
const ENTRIES = 100;
/** Earlier sockets that are told, so that `toOthers()` of a request that was under way still means us. */
const SOCKETS = 4;

/** Makes a client recover. To be called once for it, before or after it connects; gives it back. */
export function recover<C extends Client>(client: C, options: Options = {}): C {
  const { connection } = client;
  /** What a channel has. Its object is made anew when it is left and joined again, and begins anew then. */
  const held = new WeakMap<Channel, string>();
  /** The same by name: for channels that are still to be subscribed, and for a user's own, whose objects do not last. */
  const named = new Map<string, From>(Object.entries(options.from || {}));
  /** Channels that were asked for on this connection, and are not answered yet. */
  let asked = new Set<string>();
  /** Of those, the ones whose subscription has overtaken the question: what they get now is in no order with what they had. */
  let overtaken = new Set<string>();
  let sockets: string[] = [];

  const send = (from: [string, From][]) =>
    client.send_event('fanfare:recover', { from: Object.fromEntries(from), sockets });

  const ask = () => {
    const entries = [...named];
    client.allChannels().forEach((channel) => {
      const position = held.get(channel);
      if (position !== undefined) entries.push([channel.name, position]);
    });
    asked = new Set(entries.map(([name]) => name));
    overtaken = new Set();
    // Without a position, too: this is what makes the server tell them.
    do send(entries.splice(0, ENTRIES));
    while (entries.length);
    sockets = [connection.socket_id, ...sockets].slice(0, SOCKETS);
  };

  const take = (message: any) => {
    const { channel: name, event, data, user_id } = message;
    const tag = Array.isArray(user_id) ? user_id[0] : undefined;
    const channel = client.channel(name);
    const current = (channel && held.get(channel)) ?? named.get(name);
    const keep = (position: string) => {
      if (channel) {
        held.set(channel, position);
        named.delete(name);
      } else if (name[0] === '#') named.set(name, position);
    };
    if (tag !== undefined) delete message.user_id;
    const begins = event === 'pusher_internal:subscription_succeeded';
    if (begins && current === undefined && tag === undefined) {
      // The server does not know of us yet. Until it tells a position, we have none, and shall hear so if we are cut off.
      keep('');
    } else if (begins && asked.has(name) && tag !== current && (tag === undefined || typeof current === 'string')) {
      overtaken.add(name);
      // Over HTTP the question may be lost, and nobody would know. The server answers the first that arrives.
      if (current) send([[name, current]]);
    } else if (tag === undefined) {
      // An event from before the server knew of us: whoever went on from an older position would get it twice.
      if (current !== undefined && !/^(pusher(_internal)?:|client-)/.test(event)) keep('');
    } else if (event === 'pusher_internal:recovery') {
      asked.delete(name);
      overtaken.delete(name);
      keep(tag);
      try {
        channel?.emit('pusher:recovery', data);
      } finally {
        if (data.recovered) options.onRecovered?.(name, data.count);
        else options.onGap?.(name);
      }
    } else keep(overtaken.has(name) ? '' : tag);
  };

  // `state_change` comes before pusher-js subscribes, and global callbacks before its own: a listener that throws changes nothing.
  connection.bind_global((type, data) => {
    if (type === 'message') {
      if (data.channel) take(data);
    } else if (type === 'state_change' && data.current === 'connected') ask();
  });
  if (connection.state === 'connected') {
    ask();
    // Until the answer tells where they are, these have no position, either.
    client.allChannels().forEach((channel) => held.has(channel) || held.set(channel, ''));
  }
  return client;
}
