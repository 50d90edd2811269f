"""pysher, the subscriber Python programs use: protocol 6 in its URL, and a `pusher:ping` right at open."""

from contextlib import ExitStack

import pysher
import pytest

from support.apps import DEMO
from support.laravel import Laravel
from support.server import TestServer
from support.waiting import DEADLINE, Inbox, eventually


class Client:
    """pysher with its callbacks, which run on its own thread, turned into inboxes."""

    def __init__(self, server, key=DEMO.key, **options):
        self.pusher = pysher.Pusher(
            key,
            custom_host=server.host,
            port=server.port,
            secure=False,
            secret=DEMO.secret,  # signs subscriptions locally
            reconnect_interval=0.1,
            **options,
        )
        self.established = self.inbox("pusher:connection_established")
        self.pong = self.inbox("pusher:pong")
        self.errors = self.inbox("pusher:error")
        self.pusher.connect()

    def inbox(self, event, of=None):
        inbox = Inbox()
        (of or self.pusher.connection).bind(event, inbox.put)
        return inbox

    def connected(self):
        """Waits for the (next) handshake: only then does pysher know the socket id it has to sign."""
        self.established.next("pysher is connected")
        return self

    def subscribe(self, channel, *events):
        """Subscribes and waits for the success, so that nothing bound here can be missed.

        The bindings come after the request: the success is handled by pysher's thread and may be quicker, hence the poll of
        the inbox of a channel that was bound before the frame left.
        """
        bound = BoundChannel(channel, self.pusher.connection, ("pusher_internal:subscription_succeeded", *events))
        with bound.instead_of_pyshers(self.pusher):
            self.pusher.subscribe(channel)
        bound.data = bound.inboxes[0].next(f"{channel} is subscribed")
        return bound

    def close(self):
        self.pusher.disconnect(DEADLINE)
