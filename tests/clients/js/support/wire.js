// What really crossed the socket. pusher-js parses `data` before anybody sees it, so byte-exactness, the very first
// frame and close codes can only be checked below it.

import Pusher from 'pusher-js';

import { Inbox, within } from './inbox.js';

/** One WebSocket: its frames as sent by the server, and how it was closed. */
export class Wire {
  frames;
  socketId;
  /** What the client sent, as text. */
  sentTexts = [];

  constructor(url, socket) {
    this.url = url;
    this.socket = socket;
    this.frames = new Inbox(url);
    socket.addEventListener('message', ({ data: text }) => {
      const frame = { ...JSON.parse(text), text };
      if (frame.event === 'pusher:connection_established') this.socketId = JSON.parse(frame.data).socket_id;
      this.frames.push(frame);
    });
    this.closing = new Promise((resolve) => {
      socket.addEventListener('close', ({ code, reason }) => resolve({ code, reason }));
    });
  }

  /** `{code, reason}` of the close frame. */
  closed(options = {}) {
    return within(this.closing, () => `${this.url} closed; frames: ${JSON.stringify(this.frames.all)}`, options.deadline);
  }

  /** The frames the client sent. */
  get sent() {
    return this.sentTexts.map((text) => JSON.parse(text));
  }

  next(match, options) {
    return this.frames.next(match, options);
  }

  /** Sends text or bytes as they are, anything else as JSON. */
  send(frame) {
    const message = typeof frame === 'string' || Buffer.isBuffer(frame) ? frame : JSON.stringify(frame);
    // pusher-js puts off its own sends by one timer; without the same delay this one would overtake them.
    setTimeout(() => this.socket.send(message), 0);
  }

  /** Proves that the server has handled every frame sent before, and still serves this connection. */
  async roundTrip() {
    this.send({ event: 'pusher:ping', data: {} });
    await this.next('pusher:pong');
  }
}

const wires = [];
const CLOSING = 2;

/** Watches the sockets of one version of pusher-js, which keeps them to itself; but every one is made by this documented hook. */
export function watch({ Runtime }) {
  const createWebSocket = Runtime.createWebSocket;
  Runtime.createWebSocket = function (url) {
    const socket = createWebSocket.call(this, url);
    const { close, send } = socket;
    // pusher-js closes sockets that are closed already, and each time this implementation starts a timer of 30 s that
    // would keep the test process alive.
    socket.close = (...args) => socket.readyState < CLOSING && close.apply(socket, args);
    const wire = new Wire(url, socket);
    socket.send = (message) => {
      if (typeof message === 'string') wire.sentTexts.push(message);
      return send.call(socket, message);
    };
    wires.push(wire);
    return socket;
  };
}

watch(Pusher);

/** The wire under a connected pusher-js (the newest, after a reconnect). */
export function wireOf(pusher) {
  return wires.findLast((wire) => wire.socketId === pusher.connection.socket_id);
}

/** All sockets opened to this app by this process so far. A rejected one has no socket id to find it by. */
export function wiresTo(app) {
  return wires.filter((wire) => wire.url.startsWith(`ws://127.0.0.1:${app.port}/app/${app.key}?`));
}

/** A bare socket without pusher-js on top, for frames that pusher-js would never send. */
export function openWire(t, url) {
  const socket = Pusher.Runtime.createWebSocket(url);
  t.after(() => socket.close());
  return wires.at(-1);
}
