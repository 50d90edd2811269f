"""Webhooks as an application gets them: received by a real HTTP server, verified by the official SDK."""

import pusher
import pytest

from support.apps import DEMO
from support.webhooks import WebhookReceiver

ALL_EVENTS = [
    "channel_occupied",
    "channel_vacated",
    "member_added",
    "member_removed",
    "client_event",
    "cache_miss",
    "subscription_count",
]


@pytest.fixture(scope="module")
def receiver():
    with WebhookReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def settings(receiver):
    webhooks = [
        {"url": receiver.url("/all"), "event_types": ALL_EVENTS},
        {"url": receiver.url("/occupied"), "event_types": ["channel_occupied"]},
        {"url": receiver.url("/flaky"), "event_types": ["cache_miss"]},
    ]
    return {
        "apps": {DEMO: {"subscription_count": True, "webhooks": webhooks}},
        "webhooks": {"batching": False, "vacated_delay": "100ms", "retry_initial": "100ms"},
    }


def verified(webhook):
    """The body, if the SDK accepts the webhook as genuine: key, signature and a clock within five minutes."""
    sdk = pusher.Pusher(app_id=DEMO.id, key=DEMO.key, secret=DEMO.secret)
    headers = dict(webhook.headers)
    return sdk.validate_webhook(headers["X-Pusher-Key"], headers["X-Pusher-Signature"], webhook.body)


def test_a_webhook_is_genuine_to_the_sdk_and_any_change_to_it_is_not(receiver, connect):
    connect().subscribe("hook-genuine")
    webhook, event = receiver.wait_for("/all", name="channel_occupied", channel="hook-genuine")
    assert verified(webhook)["events"] == [event] == [{"name": "channel_occupied", "channel": "hook-genuine"}]
    webhook.body = webhook.body.replace("hook-genuine", "hook-forged")
    assert verified(webhook) is None


def test_the_headers_are_spelt_as_the_libraries_look_them_up(receiver, connect):
    connect().subscribe("hook-headers")
    webhook, _ = receiver.wait_for("/all", name="channel_occupied", channel="hook-headers")
    # PHP compares the names case-sensitively, Node refuses a content type with a charset.
    assert ("X-Pusher-Key", DEMO.key) in webhook.headers
    assert ("X-Pusher-Signature", DEMO.hmac(webhook.body)) in webhook.headers
    assert [value for name, value in webhook.headers if name.lower() == "content-type"] == ["application/json"]


def test_a_presence_channel_tells_of_members_and_of_itself(receiver, connect):
    channel = "presence-hook-members"
    # Two tabs of one user: one member.
    tabs = connect(), connect()
    for tab in tabs:
        tab.join(channel, "u1")
    receiver.wait_for("/all", name="member_added", channel=channel, user_id="u1")
    for tab in tabs:
        tab.send("pusher:unsubscribe", {"channel": channel})
    receiver.wait_for("/all", name="channel_vacated", channel=channel)
    assert [event["name"] for event in receiver.events("/all", channel=channel)] == [
        "channel_occupied",
        "member_added",
        "member_removed",
        "channel_vacated",
    ]


def test_a_client_event_is_reported_with_strings_only(receiver, connect):
    sender = connect()
    sender.join("presence-hook-client", 7)
    sender.send("client-typing", {"é": [1, 2]}, channel="presence-hook-client")
    webhook, event = receiver.wait_for("/all", name="client_event", channel="presence-hook-client")
    assert event == {
        "name": "client_event",
        "channel": "presence-hook-client",
        "event": "client-typing",
        # Compact, but escaped as the sender wrote it: values pass through unread.
        "data": r'{"\u00e9":[1,2]}',
        "socket_id": sender.socket_id,
        "user_id": "7",
    }
    assert verified(webhook)


def test_a_subscription_to_an_empty_cache_channel_is_reported(receiver, connect):
    connect().subscribe("cache-hook")
    _, event = receiver.wait_for("/all", name="cache_miss", channel="cache-hook")
    assert event == {"name": "cache_miss", "channel": "cache-hook"}


def test_subscription_counts_are_reported_as_numbers(receiver, connect):
    for _ in range(2):
        connect().subscribe("hook-count")
    receiver.wait_for("/all", name="subscription_count", channel="hook-count", subscription_count=1)
    _, event = receiver.wait_for("/all", name="subscription_count", channel="hook-count", subscription_count=2)
    assert event == {"name": "subscription_count", "channel": "hook-count", "subscription_count": 2}


def test_a_webhook_gets_only_the_event_types_it_asked_for(receiver, connect):
    connect().subscribe("cache-hook-types")
    receiver.wait_for("/all", name="cache_miss", channel="cache-hook-types")
    connect().subscribe("hook-types-marker")
    receiver.wait_for("/occupied", name="channel_occupied", channel="hook-types-marker")
    assert {event["name"] for event in receiver.events("/occupied")} == {"channel_occupied"}


def test_a_refused_webhook_is_sent_again_with_a_fresh_time_and_signature(receiver, connect):
    receiver.refusals["/flaky"] = 1
    connect().subscribe("cache-hook-retry")
    receiver.wait_for("/flaky", count=2, name="cache_miss", channel="cache-hook-retry")
    attempts = [webhook for webhook, _ in receiver.found("/flaky", channel="cache-hook-retry")]
    assert [attempt.accepted for attempt in attempts] == [False, True]
    # The SDK drops what is older than five minutes, so each attempt has to carry its own time.
    assert attempts[0].time_ms < attempts[1].time_ms
    assert attempts[0].signature != attempts[1].signature
    assert all(verified(attempt) for attempt in attempts)
