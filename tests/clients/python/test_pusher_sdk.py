"""The official server SDK (`pusher` on PyPI) against the HTTP API. It signs `body_md5` on GET as well."""

import base64
import json

import nacl.secret
import pusher
import pytest

from support.apps import DEMO
from support.waiting import eventually

MASTER_KEY = base64.b64encode(b"0123456789abcdef0123456789ABCDEF").decode()


def sdk(server, **changes):
    options = {"app_id": DEMO.id, "key": DEMO.key, "secret": DEMO.secret, "encryption_master_key_base64": MASTER_KEY}
    return pusher.Pusher(**{**options, **changes}, host=server.host, port=server.port, ssl=False)


@pytest.fixture
def client(server):
    return sdk(server)


def join(subscriber, client, channel, member=None):
    """Subscribes with what the SDK's `authenticate` hands to a browser."""
    granted = client.authenticate(channel, subscriber.socket_id, member)
    subscriber.request_subscription(channel, granted.get("channel_data"), granted["auth"])
    return subscriber.data("pusher_internal:subscription_succeeded", channel)


# Publishing


def test_an_event_reaches_the_subscriber_with_the_data_the_sdk_encoded(client, connect):
    subscriber = connect()
    subscriber.subscribe("sdk-orders")
    assert client.trigger("sdk-orders", "created", {"id": 7, "name": "Zoë ☕"}) == {}
    frame = subscriber.expect("created", "sdk-orders")
    assert frame == {"event": "created", "channel": "sdk-orders", "data": '{"id": 7, "name": "Zoë ☕"}'}


@pytest.mark.parametrize("text", ["plain text", "", "0", "null", '{"a" : 1.0}', "\\u00e9 \\/ \t\n\x01 \u2028 😀"])
def test_text_is_relayed_as_it_is(client, connect, text):
    subscriber = connect()
    subscriber.subscribe("sdk-text")
    client.trigger("sdk-text", "text", text)
    assert subscriber.expect("text")["data"] == text


def test_one_trigger_reaches_many_channels(client, connect):
    channels = [f"sdk-many-{number}" for number in range(100)]
    subscriber = connect()
    for channel in channels:
        subscriber.subscribe(channel)
    client.trigger(channels, "all", {})
    assert {subscriber.expect("all")["channel"] for _ in channels} == set(channels)


def test_the_socket_that_triggered_is_left_out(client, connect):
    sender, other = connect(), connect()
    for subscriber in (sender, other):
        subscriber.subscribe("sdk-others")
    client.trigger("sdk-others", "first", {}, socket_id=sender.socket_id)
    client.trigger("sdk-others", "second", {})
    other.expect("first")
    other.expect("second")
    sender.expect("second")


def test_a_batch_is_delivered_in_order_and_each_item_excludes_its_own_socket(client, connect):
    subscriber = connect()
    subscriber.subscribe("sdk-batch")
    answer = client.trigger_batch([
        {"channel": "sdk-batch", "name": "1", "data": {"n": 1}},
        {"channel": "sdk-batch", "name": "2", "data": "text", "socket_id": subscriber.socket_id},
        {"channel": "sdk-batch", "name": "3", "data": "3"},
    ])
    assert answer == {}
    assert [subscriber.frame()["event"] for _ in range(2)] == ["1", "3"]


def test_a_batch_answers_with_info_where_it_was_asked(client, connect):
    member = connect()
    member.join("presence-sdk-batch", "u1")
    answer = client.trigger_batch([
        {"channel": "presence-sdk-batch", "name": "e", "data": "", "info": "user_count"},
        {"channel": "sdk-nobody", "name": "e", "data": ""},
    ])
    assert answer == {"batch": [{"user_count": 1}, {}]}


def test_an_encrypted_event_can_be_decrypted_by_the_subscriber(client, connect):
    channel = "private-encrypted-sdk"
    subscriber = connect()
    granted = client.authenticate(channel, subscriber.socket_id)
    subscriber.request_subscription(channel, auth=granted["auth"])
    subscriber.expect("pusher_internal:subscription_succeeded", channel)
    client.trigger(channel, "secret", {"price": "7 €"})
    sealed = subscriber.data("secret", channel)
    box = nacl.secret.SecretBox(base64.b64decode(granted["shared_secret"]))
    opened = box.decrypt(base64.b64decode(sealed["ciphertext"]), base64.b64decode(sealed["nonce"]))
    assert json.loads(opened) == {"price": "7 €"}


# Authorizing


def test_private_and_presence_subscriptions_authorized_by_the_sdk_are_accepted(client, connect):
    subscriber = connect()
    assert join(subscriber, client, "private-sdk-auth") == {}
    # A number as user id, and Python's spaces in the signed channel_data.
    member = {"user_id": 10, "user_info": {"name": "Zoë / ☕"}}
    assert join(subscriber, client, "presence-sdk-auth", member)["presence"] == {
        "count": 1,
        "ids": ["10"],
        "hash": {"10": {"name": "Zoë / ☕"}},
    }


# Reading


def test_no_occupied_channel_is_an_empty_map(client):
    assert client.channels_info("sdk-never-used-") == {"channels": {}}


def test_channels_are_listed_by_prefix_with_the_counts_asked_for(client, connect):
    for user in ("u1", "u1", "u2"):
        connect().join("presence-sdk-list", user)
    connect().subscribe("sdk-list")
    assert client.channels_info("presence-sdk-list", ["user_count"]) == {"channels": {"presence-sdk-list": {"user_count": 2}}}
    assert client.channels_info("sdk-list") == {"channels": {"sdk-list": {}}}
    assert client.channels_info("sdk-list", ["subscription_count"]) == {"channels": {"sdk-list": {"subscription_count": 1}}}


def test_one_channel_tells_only_what_was_asked(client, connect):
    for user in ("u1", "u1", "u2"):
        connect().join("presence-sdk-one", user)
    assert client.channel_info("presence-sdk-one") == {"occupied": True}
    asked = client.channel_info("presence-sdk-one", ["user_count", "subscription_count"])
    assert asked == {"occupied": True, "user_count": 2, "subscription_count": 3}
    assert client.channel_info("sdk-one-nobody") == {"occupied": False}


def test_the_cached_event_and_its_remaining_life_can_be_read(client, connect):
    subscriber = connect()
    subscriber.subscribe("cache-sdk")
    subscriber.expect("pusher:cache_miss", "cache-sdk")
    assert client.channel_info("cache-sdk", ["cache"]) == {"occupied": True, "cache": None}
    client.trigger("cache-sdk", "price", "7.0")
    cache = client.channel_info("cache-sdk", ["cache"])["cache"]
    assert cache["data"] == "7.0"
    assert isinstance(cache["ttl"], int) and 0 < cache["ttl"] <= 1800
    # The late subscriber gets it, once, with its channel.
    late = connect()
    late.subscribe("cache-sdk")
    assert late.frame() == {"event": "price", "channel": "cache-sdk", "data": "7.0"}


def test_users_are_distinct_and_their_ids_are_strings(client, connect):
    for user in (1, "1", "2"):
        connect().join("presence-sdk-users", user)
    users = client.users_info("presence-sdk-users")["users"]
    assert sorted(user["id"] for user in users) == ["1", "2"]
    assert client.users_info("presence-sdk-nobody") == {"users": []}


def test_a_channel_is_vacant_soon_after_its_last_subscriber_hung_up(client, connect):
    subscriber = connect()
    subscriber.subscribe("sdk-vacant")
    assert client.channel_info("sdk-vacant") == {"occupied": True}
    subscriber.close()
    eventually(lambda: client.channel_info("sdk-vacant") == {"occupied": False}, "sdk-vacant is free")


# Users


def sign_in(subscriber, client, user):
    granted = client.authenticate_user(subscriber.socket_id, user)
    subscriber.send("pusher:signin", granted)
    assert subscriber.data("pusher:signin_success") == {"user_data": granted["user_data"]}
    subscriber.subscribe(f"#server-to-user-{user['id']}")
    return subscriber


def test_an_event_to_a_user_reaches_each_connection_of_that_user_only(client, connect):
    phone, laptop = (sign_in(connect(), client, {"id": "zoe"}) for _ in range(2))
    stranger = sign_in(connect(), client, {"id": "max"})
    client.send_to_user("zoe", "hello", {"n": 1})
    client.send_to_user("max", "other", {})
    for connection in (phone, laptop):
        assert connection.data("hello", "#server-to-user-zoe") == {"n": 1}
    stranger.expect("other", "#server-to-user-max")
    assert not any(channel.startswith("#") for channel in client.channels_info()["channels"])


def test_terminating_a_user_works_although_the_sdk_leaves_the_app_out_of_the_path(client, connect):
    signed_in = [sign_in(connect(), client, {"id": "mallory"}) for _ in range(2)]
    namesake = connect()
    namesake.join("presence-sdk-terminate", "mallory")
    assert client.terminate_user_connections("mallory") == {}
    for connection in signed_in:
        connection.expect_error(4009)
        connection.expect_close(4009)
    # Only a sign-in makes a user: an id on a presence channel does not.
    namesake.expect_alive()
    sign_in(connect(), client, {"id": "mallory"})


def test_terminating_a_user_nobody_knows_succeeds(client):
    assert client.terminate_user_connections("nobody") == {}


# Refusals, as the SDK's exceptions


def test_the_wrong_secret_is_a_bad_auth_error(server):
    with pytest.raises(pusher.errors.PusherBadAuth, match="Invalid signature"):
        sdk(server, secret="wrong").trigger("sdk-refused", "e", {})
    with pytest.raises(pusher.errors.PusherBadAuth, match="Invalid signature"):
        sdk(server, secret="wrong").channels_info()


def test_an_unknown_key_is_a_bad_auth_error(server):
    with pytest.raises(pusher.errors.PusherBadAuth, match="Unknown auth_key"):
        sdk(server, key="unknown").trigger("sdk-refused", "e", {})


def test_an_unknown_app_is_not_found(server):
    with pytest.raises(pusher.errors.PusherBadStatus, match="404: 404 NOT FOUND"):
        sdk(server, app_id="999").trigger("sdk-refused", "e", {})


def test_too_much_data_is_refused_with_413(client):
    with pytest.raises(pusher.errors.PusherBadStatus, match="413: The data content of this event exceeds the allowed maximum"):
        client.trigger("sdk-refused", "e", "x" * 10241)


def test_counting_users_of_all_channels_is_a_bad_request(client):
    with pytest.raises(pusher.errors.PusherBadRequest, match="user_count may only be requested for presence channels"):
        client.channels_info(attributes=["user_count"])
