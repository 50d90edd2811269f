"""pysher, the subscriber Python programs use: protocol 6 in its URL, and a `pusher:ping` right at open."""

import json
from contextlib import ExitStack

import pysher
import pytest

from support.apps import DEMO
from support.laravel import Laravel
from support.server import TestServer
from support.waiting import DEADLINE, Inbox, eventually


class Client:
    """pysher, with what its own thread calls back collected in inboxes."""

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
        connection = self.pusher.connection
        self.established, self.pong, self.errors, self.events = Inbox(), Inbox(), Inbox(), Inbox()
        connection.bind("pusher:connection_established", self.established.put)
        connection.bind("pusher:pong", self.pong.put)
        connection.bind("pusher:error", self.errors.put)
        # pysher registers a channel only after its request has left, so a quick answer finds nobody bound: look at the events
        # one step earlier, too.
        dispatch = connection.event_handler

        def record_and_dispatch(event, data, channel):
            self.events.put((event, channel, data))
            dispatch(event, data, channel)

        connection.event_handler = record_and_dispatch
        self.pusher.connect()

    def connected(self):
        """Waits for the next handshake: only then does pysher know the socket id it has to sign."""
        self.established.next("pysher is connected")
        return self

    def subscribe(self, channel):
        subscription = self.pusher.subscribe(channel)
        self.subscribed = json.loads(self.expect("pusher_internal:subscription_succeeded", channel))
        return subscription

    def expect(self, event, channel):
        """The next event of any channel, which has to be this one; returns its data."""
        while (received := self.events.next(f"{event} on {channel}"))[0] == "pusher_internal:subscription_count":
            pass
        assert received[:2] == (event, channel)
        return received[2]

    def close(self):
        # Without waiting for pysher's thread: it may sleep on in its select although the socket is closed.
        self.pusher.disconnect(0)


@pytest.fixture
def open_client(server):
    with ExitStack() as stack:

        def open_client(**options):
            client = Client(server, **options)
            stack.callback(client.close)
            return client

        yield open_client


def test_the_ping_sent_before_the_handshake_was_read_is_answered(open_client):
    client = open_client().connected()
    assert client.pong.next("the pong") == "{}"
    assert client.pusher.connection.state == "connected"


def test_callbacks_of_a_public_channel_get_the_data_as_published(open_client, laravel):
    subscription = open_client().connected().subscribe("pysher-orders")
    received = Inbox()
    subscription.bind("created", received.put)
    laravel.trigger(["pysher-orders"], "created", {"url": "a/b", "name": "Zoë"}).json()
    assert received.next("the event") == '{"url":"a\\/b","name":"Zo\\u00eb"}'


@pytest.mark.parametrize("channel", ["private-pysher", "private-cache-pysher", "private-encrypted-pysher"])
def test_private_channels_are_joined_with_a_locally_made_signature(open_client, laravel, channel):
    client = open_client().connected()
    client.subscribe(channel)
    assert client.subscribed == {}
    if "cache" in channel:
        assert client.expect("pusher:cache_miss", channel) == "{}"
    laravel.trigger([channel], "created", {"id": 1}).json()
    assert client.expect("created", channel) == '{"id":1}'


def test_presence_members_see_each_other_come_and_go(open_client):
    channel = "presence-pysher"
    ann = open_client(user_data={"user_id": "ann", "user_info": {"name": "Ann"}}).connected()
    ann.subscribe(channel)
    assert ann.subscribed["presence"] == {"count": 1, "ids": ["ann"], "hash": {"ann": {"name": "Ann"}}}

    bob = open_client(user_data={"user_id": "bob"}).connected()
    bob.subscribe(channel)
    assert bob.subscribed["presence"]["count"] == 2
    assert bob.subscribed["presence"]["hash"] == {"ann": {"name": "Ann"}, "bob": None}
    assert json.loads(ann.expect("pusher_internal:member_added", channel))["user_id"] == "bob"

    bob.close()
    assert json.loads(ann.expect("pusher_internal:member_removed", channel)) == {"user_id": "bob"}


def test_client_events_reach_the_others_but_not_the_sender(open_client, laravel):
    channel = "private-pysher-whisper"
    sender, other = (open_client().connected() for _ in range(2))
    subscription = sender.subscribe(channel)
    other.subscribe(channel)
    subscription.trigger("client-typing", {"by": "ann"})
    assert json.loads(other.expect("client-typing", channel)) == {"by": "ann"}
    laravel.trigger([channel], "next", {}).json()
    sender.expect("next", channel)


def test_nothing_arrives_after_unsubscribing(open_client, laravel):
    client = open_client().connected()
    for channel in ("pysher-left", "pysher-kept"):
        client.subscribe(channel)
    client.pusher.unsubscribe("pysher-left")
    eventually(lambda: not laravel.get("/channels/pysher-left").json()["occupied"], "pysher-left is free")
    laravel.trigger(["pysher-left", "pysher-kept"], "event", {}).json()
    client.expect("event", "pysher-kept")
    assert client.events.empty()


def test_a_refused_subscription_leaves_the_connection_usable(open_client, laravel):
    client = open_client().connected()
    client.pusher.subscribe("private-pysher-refused", auth=f"{DEMO.key}:{'0' * 64}")
    error = client.errors.next("the refusal")
    # Any code would make pysher give up or reconnect.
    assert error["code"] is None
    assert "Invalid signature" in error["message"]
    client.expect("pusher:subscription_error", "private-pysher-refused")
    client.subscribe("pysher-still-there")
    assert client.established.empty()


def test_an_unknown_key_stops_pysher_for_good(open_client):
    client = open_client(key="unknown-key")
    # Both readings of the error have to agree: the code in an object, where pysher looks for it.
    error = client.errors.next("the error")
    assert error["code"] == 4001
    assert "unknown-key" in error["message"]
    connection = client.pusher.connection
    connection.join(DEADLINE)
    assert not connection.is_alive()
    assert connection.disconnect_called
    assert client.errors.empty() and client.established.empty()


def test_pysher_reconnects_by_itself_when_the_server_was_restarted(settings):
    with ExitStack() as stack:
        first = TestServer(settings)
        with first:
            client = Client(first, auto_sub=True)
            stack.callback(client.close)
            client.connected().subscribe("pysher-restart")
            socket_id = client.pusher.connection.socket_id
        second = stack.enter_context(TestServer(settings, port=first.port))
        client.connected()
        assert client.pusher.connection.socket_id != socket_id
        client.expect("pusher_internal:subscription_succeeded", "pysher-restart")
        with Laravel(second) as laravel:
            laravel.trigger(["pysher-restart"], "back", {}).json()
        client.expect("back", "pysher-restart")
