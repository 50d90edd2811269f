"""A WebSocket client that sees the wire: every text frame as the server wrote it, every close frame with its code."""

import json
import struct

import websocket
from websocket import ABNF

from support.apps import DEMO
from support.waiting import DEADLINE


class Subscriber:
    def __init__(self, server, app=DEMO, path=None, handshake=True):
        self.app = app
        path = f"{server.prefix}/app/{app.key}?protocol=7&client=test&version=1.0" if path is None else path
        self.ws = websocket.create_connection(f"ws://{server.authority}{path}", timeout=DEADLINE)
        if handshake:
            # The very first frame, always: pusher-js gives up on anything else.
            established = self.data("pusher:connection_established")
            self.socket_id = established["socket_id"]

    # Sending

    def send(self, event, data=None, **others):
        self.send_text(json.dumps({"event": event, **({} if data is None else {"data": data}), **others}))

    def send_text(self, text):
        self.ws.send(text)

    def send_frame(self, payload, opcode=ABNF.OPCODE_TEXT, fin=1, rsv1=0, mask=1):
        """A frame of any kind, legal or not."""
        frame = ABNF(fin, rsv1, 0, 0, opcode, mask, payload)
        self.ws.sock.sendall(frame.format())

    # Receiving

    def receive(self):
        """The next text frame, raw."""
        opcode, payload = self._next()
        assert opcode == ABNF.OPCODE_TEXT, f"expected a text frame, got opcode {opcode} with {payload!r}"
        return payload.decode()

    def frame(self):
        """The next text frame, parsed. Subscription counts are skipped: they may come at any time."""
        while True:
            frame = json.loads(self.receive())
            # Golden rule 2: data is always there and always a string; only an error has an object.
            kind = dict if frame["event"] == "pusher:error" else str
            assert isinstance(frame.get("data"), kind), frame
            if frame["event"] != "pusher_internal:subscription_count":
                return frame

    def expect(self, event, channel=None):
        """The next frame, which has to be this event. Nothing is skipped, so this also shows what did not come."""
        frame = self.frame()
        assert frame["event"] == event, frame
        assert channel is None or frame["channel"] == channel, frame
        return frame

    def data(self, event, channel=None):
        return json.loads(self.expect(event, channel)["data"])

    def expect_error(self, code=None):
        """The next frame, which has to be a `pusher:error` with this code; returns its message."""
        error = self.expect("pusher:error")["data"]
        assert error["code"] == code, error
        return error["message"]

    def expect_close(self, *codes):
        """The next frame, which has to be a close frame with (one of) these codes; returns its reason."""
        opcode, payload = self._next()
        assert opcode == ABNF.OPCODE_CLOSE, f"expected close {codes}, got opcode {opcode} with {payload!r}"
        assert struct.unpack("!H", payload[:2])[0] in codes, payload
        return payload[2:].decode()

    def expect_refused(self, channel):
        """A refused subscription: the connection's error as pusher.com sends it, then one the channel's callbacks can see."""
        message = self.expect_error()
        self.expect("pusher:subscription_error", channel)
        return message

    def expect_hang_up(self):
        """Reads on until the connection is gone, with or without a close frame."""
        try:
            while self._next()[0] != ABNF.OPCODE_CLOSE:
                pass
        except (websocket.WebSocketConnectionClosedException, ConnectionError):
            pass

    def expect_alive(self):
        """The connection still answers, and nothing else was waiting."""
        self.send("pusher:ping", {})
        assert self.data("pusher:pong") == {}

    def _next(self):
        while True:
            frame = self.ws.recv_frame()
            if frame.opcode == ABNF.OPCODE_PING:
                self.ws.pong(frame.data)
            elif frame.opcode != ABNF.OPCODE_PONG:
                assert frame.fin, "the server split a message"
                return frame.opcode, frame.data

    # Channels and users

    def subscribe(self, channel, channel_data=None):
        """Subscribes, signed where the channel needs it, and returns the data of the success."""
        self.request_subscription(channel, channel_data)
        return self.data("pusher_internal:subscription_succeeded", channel)

    def request_subscription(self, channel, channel_data=None, auth=None):
        data = {"auth": "", "channel": channel}
        if auth is not None:
            data["auth"] = auth
        elif channel.startswith(("private-", "presence-")):
            data["auth"] = self.app.channel_auth(self.socket_id, channel, channel_data)
        if channel_data is not None:
            data["channel_data"] = channel_data
        self.send("pusher:subscribe", data)

    def join(self, channel, user_id, user_info=None):
        """Subscribes to a presence channel as this user."""
        member = {"user_id": user_id} if user_info is None else {"user_id": user_id, "user_info": user_info}
        return self.subscribe(channel, json.dumps(member))["presence"]

    def sign_in(self, user_id):
        """Signs in and, as pusher-js does next, subscribes to the user's own channel."""
        user_data = json.dumps({"id": user_id})
        self.send("pusher:signin", {"auth": self.app.user_auth(self.socket_id, user_data), "user_data": user_data})
        assert self.data("pusher:signin_success") == {"user_data": user_data}
        self.subscribe(f"#server-to-user-{user_id}")
        return self

    # Leaving

    def close(self):
        """Hangs up without a word; the server has to cope."""
        self.ws.shutdown()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
