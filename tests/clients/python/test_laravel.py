"""Laravel's requests byte for byte, and what each of them has to do.

Sources: protocol.md 6 and 9.1, laravel.md 1. Payloads are compared as strings, never as JSON: PHP's `\\/` and `\\u00e9` have to
come through as they are.
"""

import pytest

from support.apps import DEMO, OTHER
from support.laravel import Laravel
from support.waiting import eventually


@pytest.fixture
def subscribed(connect):
    """A subscriber on the given channels."""

    def subscribed(*channels):
        subscriber = connect()
        for channel in channels:
            subscriber.subscribe(channel)
        return subscriber

    return subscribed


def test_the_request_on_the_wire_is_the_one_captured_from_laravel(laravel):
    path, body = "/apps/42/events", b'{"name":"e","data":"[]","channel":"c"}'
    query = DEMO.signed_query("POST", path, body=body, timestamp=1700000000)
    assert laravel.message("POST", path, query, body).decode() == (
        "POST /apps/42/events?auth_key=app-key&auth_timestamp=1700000000&auth_version=1.0"
        f"&body_md5={query['body_md5']}&auth_signature={query['auth_signature']} HTTP/1.1\r\n"
        f"Host: {laravel.host}\r\n"
        "Content-Type: application/json\r\n"
        "X-Pusher-Library: pusher-http-php 7.2.6\r\n"
        "User-Agent: GuzzleHttp/7\r\n"
        "Content-Length: 38\r\n"
        "\r\n"
        '{"name":"e","data":"[]","channel":"c"}'
    )


# broadcast()


def test_an_event_on_one_channel_uses_the_field_channel(laravel, subscribed):
    subscriber = subscribed("private-orders.1")
    [answer] = laravel.broadcast(
        ["private-orders.1"],
        "App\\Events\\OrderShipped",
        {"order": {"id": 7, "url": "https://shop.test/orders/7", "customer": "Zoë ☕", "total": 12.5}, "socket": None},
    )
    assert answer.json() == {}
    assert subscriber.frame() == {
        "event": "App\\Events\\OrderShipped",
        "channel": "private-orders.1",
        "data": '{"order":{"id":7,"url":"https:\\/\\/shop.test\\/orders\\/7","customer":"Zo\\u00eb \\u2615","total":12.5}}',
    }


def test_an_event_on_several_channels_uses_the_field_channels(laravel, connect):
    channels = ["orders", "private-orders.2", "private-App.Models.User.7"]
    subscriber = connect()
    for channel in channels:
        subscriber.subscribe(channel)
    [answer] = laravel.broadcast(channels, "order.created", {"id": 7})
    assert answer.json() == {}
    frames = [subscriber.frame() for _ in channels]
    assert {frame["channel"] for frame in frames} == set(channels)
    assert {(frame["event"], frame["data"]) for frame in frames} == {("order.created", '{"id":7}')}


def test_an_event_without_properties_has_an_empty_php_array_as_data(laravel, subscribed):
    subscriber = subscribed("empty")
    laravel.broadcast(["empty"], "App\\Events\\Ping", {})[0].json()
    assert subscriber.expect("App\\Events\\Ping")["data"] == "[]"


def test_to_others_leaves_out_the_socket_of_the_request(laravel, subscribed):
    sender, other = subscribed("chat-a", "chat-b"), subscribed("chat-a", "chat-b")
    laravel.broadcast(["chat-a", "chat-b"], "Said", {"text": "hi", "socket": sender.socket_id})[0].json()
    laravel.broadcast(["chat-a"], "Marker", {})[0].json()
    assert {other.expect("Said")["channel"] for _ in range(2)} == {"chat-a", "chat-b"}
    other.expect("Marker")
    sender.expect("Marker")


def test_to_others_with_a_socket_that_is_gone_reaches_everybody(laravel, subscribed):
    subscriber = subscribed("chat-gone")
    laravel.broadcast(["chat-gone"], "Said", {"socket": "1.1"})[0].json()
    subscriber.expect("Said")


def test_more_than_100_channels_arrive_as_requests_of_100(laravel, subscribed):
    channels = [f"private-shop.{number}" for number in range(250)]
    first, last = subscribed(channels[0], channels[99]), subscribed(channels[100], channels[249])
    answers = laravel.broadcast(channels, "App\\Events\\PriceChanged", {"price": 7, "socket": first.socket_id})
    assert [answer.json() for answer in answers] == [{}, {}, {}]
    assert [last.frame()["channel"] for _ in range(2)] == [channels[100], channels[249]]
    # Each request carries the socket, so the sender is left out of all of them.
    laravel.broadcast(channels[:1], "Marker", {})
    first.expect("Marker")


def test_broadcasts_of_one_process_arrive_in_the_order_sent(laravel, subscribed):
    subscriber = subscribed("ordered")
    for number in range(50):
        laravel.broadcast(["ordered"], "Step", {"n": number})[0].json()
    assert [subscriber.frame()["data"] for _ in range(50)] == [f'{{"n":{number}}}' for number in range(50)]


def test_a_notification_arrives_under_laravels_event_name(laravel, subscribed):
    subscriber = subscribed("private-App.Models.User.7")
    laravel.broadcast(
        ["private-App.Models.User.7"],
        "Illuminate\\Notifications\\Events\\BroadcastNotificationCreated",
        {"invoice": 1, "id": "2c5ea4c0-4067-11e9-8bad-9b1deb4d3b7d", "type": "App\\Notifications\\InvoicePaid"},
    )[0].json()
    frame = subscriber.expect("Illuminate\\Notifications\\Events\\BroadcastNotificationCreated", "private-App.Models.User.7")
    assert frame["data"] == (
        '{"invoice":1,"id":"2c5ea4c0-4067-11e9-8bad-9b1deb4d3b7d","type":"App\\\\Notifications\\\\InvoicePaid"}'
    )


@pytest.mark.parametrize("name", ["AnonymousEvent", "order.created", "Bestellung ✓", "a:b c", 'say "hi"', "client-like"])
def test_an_anonymous_event_may_have_any_name(laravel, subscribed, name):
    subscriber = subscribed("anonymous")
    laravel.broadcast(["anonymous"], name, {"a": "b"})[0].json()
    assert subscriber.frame() == {"event": name, "channel": "anonymous", "data": '{"a":"b"}'}


def test_an_encrypted_payload_passes_untouched(laravel, subscribed):
    sealed = '{"nonce":"Dg8QERITFBUWFxgZGhscHR4fICEiIyQl","ciphertext":"RmO3cauCuk4Qwdx28evHeNHp7Z94QSaRhEXazM7ksQ=="}'
    subscriber = subscribed("private-encrypted-orders")
    laravel.post("/events", laravel.event(["private-encrypted-orders"], "ev", sealed)).json()
    assert subscriber.expect("ev")["data"] == sealed


# What the library offers beside broadcast()


def test_a_trigger_with_info_answers_with_a_map_by_channel(laravel, connect):
    for user in ("1", "1", "2"):
        connect().join("presence-info", user)
    connect().subscribe("info")
    event = laravel.event(["presence-info", "info", "info-empty"], "e", "{}", info="user_count,subscription_count")
    assert laravel.post("/events", event).json() == {
        "channels": {
            "presence-info": {"user_count": 2, "subscription_count": 3},
            "info": {"subscription_count": 1},
            "info-empty": {"subscription_count": 0},
        }
    }


def test_send_to_user_reaches_that_user(laravel, connect):
    user, stranger = connect().sign_in("7"), connect().sign_in("8")
    assert laravel.send_to_user("7", "App\\Events\\Hello", {"a": "é/"}).json() == {}
    laravel.send_to_user("8", "Marker", {}).json()
    assert user.frame() == {
        "event": "App\\Events\\Hello",
        "channel": "#server-to-user-7",
        "data": '{"a":"\\u00e9\\/"}',
    }
    stranger.expect("Marker", "#server-to-user-8")


def test_a_batch_is_answered_with_an_object_and_with_info_with_a_list(laravel, subscribed):
    subscriber = subscribed("batch-a", "batch-b")
    first, second = laravel.event(["batch-a"], "e1", '{"k":1}'), laravel.event(["batch-b"], "e2", '"s"')
    assert laravel.trigger_batch(first, second).json() == {}
    assert [subscriber.frame()["data"] for _ in range(2)] == ['{"k":1}', '"s"']
    counted = laravel.event(["batch-b"], "e2", '"s"', socket_id=subscriber.socket_id, info="subscription_count")
    assert laravel.trigger_batch(first, counted).json() == {"batch": [{}, {"subscription_count": 1}]}
    # The second item excluded this socket, the first did not.
    subscriber.expect("e1", "batch-a")
    laravel.trigger(["batch-b"], "marker", {})
    subscriber.expect("marker", "batch-b")


def test_terminating_a_user_sends_two_braces_and_closes_the_users_connections(laravel, connect):
    user, other = connect().sign_in("13"), connect().sign_in("14")
    assert laravel.terminate_user_connections("13").json() == {}
    user.expect_error(4009)
    user.expect_close(4009)
    other.expect_alive()
    assert laravel.terminate_user_connections("13").json() == {}


# Reads


def test_a_list_of_channels_without_any_is_an_object(laravel):
    # PHP calls get_object_vars on it: an array ends in a type error.
    answer = laravel.get("/channels", filter_by_prefix="php-never-used-")
    assert answer.json() == {"channels": {}}
    assert answer.body.replace(b" ", b"") == b'{"channels":{}}'


def test_a_comma_sent_percent_encoded_is_verified_as_the_comma_that_was_signed(laravel, connect):
    for user in ("1", "2"):
        connect().join("presence-read", user)
    request = laravel.request("GET", "/channels", params={"filter_by_prefix": "presence-read", "info": "user_count,subscription_count"})
    assert b"info=user_count%2Csubscription_count" in request
    assert laravel.connection.exchange(request).json() == {
        "channels": {"presence-read": {"user_count": 2, "subscription_count": 2}}
    }


def test_one_channel_with_every_character_a_name_may_have_can_be_read(laravel, connect):
    channel = "presence-a_B-9=@,.;"
    connect().join(channel, "1")
    answer = laravel.get(f"/channels/{channel}", info="user_count,subscription_count")
    assert answer.json() == {"occupied": True, "user_count": 1, "subscription_count": 1}
    assert laravel.get(f"/channels/{channel}/users").json() == {"users": [{"id": "1"}]}


def test_what_nobody_uses_reads_as_zero_rather_than_as_an_error(laravel):
    assert laravel.get("/channels/php-nobody").json() == {"occupied": False}
    asked = laravel.get("/channels/presence-php-nobody", info="user_count,subscription_count").json()
    assert asked == {"occupied": False, "user_count": 0, "subscription_count": 0}
    assert laravel.get("/channels/presence-php-nobody/users").json() == {"users": []}


def test_reverbs_connection_count_has_each_socket_once(server, connect):
    with Laravel(server, OTHER) as laravel:
        eventually(lambda: laravel.get("/connections").json() == {"connections": 0}, "earlier tests' sockets are gone")
        subscriber = connect(app=OTHER)
        subscriber.subscribe("counted-a")
        subscriber.subscribe("counted-b")
        eventually(lambda: laravel.get("/connections").json() == {"connections": 1}, "one socket, however many channels")


# The connection


def test_a_queue_worker_keeps_its_connection_also_after_errors(laravel, subscribed):
    subscriber = subscribed("worker")
    refusals = {
        400: laravel.request("POST", "/events", b'{"name":"e","data":"x"}'),
        401: laravel.message("POST", "/apps/42/events", {}, b'{"name":"e","data":"x","channel":"worker"}'),
        404: laravel.message("POST", "/apps/999/events", {}, b'{"name":"e","data":"x","channel":"worker"}'),
        413: laravel.request("POST", "/events", b'{"name":"e","data":"' + b"x" * 10241 + b'","channel":"worker"}'),
    }
    for status, request in refusals.items():
        assert laravel.connection.exchange(request).error()[0] == status
        assert laravel.broadcast(["worker"], "StillHere", {"after": status})[0].json() == {}
        assert subscriber.expect("StillHere")["data"] == f'{{"after":{status}}}'
    assert laravel.connection.exchange(laravel.message("GET", "/no/such/route", {})).error() == (404, "404 NOT FOUND")
    assert laravel.connection.exchange(laravel.message("POST", "/no/such/route", {}, b"{}")).error() == (404, "404 NOT FOUND")
    laravel.broadcast(["worker"], "StillHere", {})[0].json()


def test_apps_are_apart_although_their_channels_have_the_same_names(server, laravel, subscribed, connect):
    ours, theirs = subscribed("shared"), connect(app=OTHER)
    theirs.subscribe("shared")
    with Laravel(server, OTHER) as other:
        laravel.trigger(["shared"], "ours", {}).json()
        other.trigger(["shared"], "theirs", {}).json()
    ours.expect("ours")
    theirs.expect("theirs")
