"""Refusals of the HTTP API: status and text. Laravel shows the text to the developer as "Pusher error: TEXT.".

Source: protocol.md 6.1 to 6.5.
"""

import re
import time

import pytest

from support.apps import DEMO, OTHER, string_to_sign
from support.laravel import php_json

EVENTS = "/apps/42/events"
EVENT = {"name": "e", "data": "{}", "channel": "errors"}


def refusal(laravel, path, body=None, **params):
    """The refusal of a request under the app's path that is signed as it should be."""
    if body is None:
        return laravel.exchange("GET", path, params=params).error()
    raw = body if isinstance(body, bytes) else php_json(body).encode()
    return laravel.exchange("POST", path, raw, params).error()


# Authentication

BODY = php_json(EVENT).encode()


def answer_to(laravel, app=DEMO, path=EVENTS, body=BODY, signed_body=BODY, leave_out=(), **changes):
    """Sends a trigger whose query was changed before it was signed, so that each check is reached by itself."""
    query = {**app.signed_query("POST", path, body=signed_body), **changes}
    query = {name: value for name, value in query.items() if name not in leave_out}
    if "auth_signature" not in changes and "auth_signature" in query:
        query = app.sign("POST", path, query)
    return laravel.connection.exchange(laravel.message("POST", path, query, body))


def test_a_missing_key_is_named(laravel):
    assert answer_to(laravel, leave_out=["auth_key"]).error() == (401, "Missing parameter: auth_key")
    assert answer_to(laravel, leave_out=["auth_key", "auth_signature"]).error() == (401, "Missing parameter: auth_key")


def test_an_unknown_key_is_refused(laravel):
    assert answer_to(laravel, auth_key="nobody").error() == (401, "Unknown auth_key")


def test_the_key_of_another_app_is_refused(laravel):
    assert answer_to(laravel, app=OTHER).status == 401


def test_the_version_has_to_be_there_and_to_be_1_0(laravel):
    assert answer_to(laravel, leave_out=["auth_version"]).error() == (401, "Version required")
    assert answer_to(laravel, auth_version="2.0").error() == (401, "Version not supported")


def test_the_timestamp_has_to_be_there(laravel):
    assert answer_to(laravel, leave_out=["auth_timestamp"]).error() == (401, "Timestamp required")


@pytest.mark.parametrize("seconds", [-601, 602], ids=["past", "future"])
def test_a_timestamp_more_than_ten_minutes_away_has_expired(laravel, seconds):
    given = int(time.time()) + seconds
    status, text = answer_to(laravel, auth_timestamp=str(given)).error()
    spelt = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(given))
    assert status == 401
    assert re.fullmatch(
        rf"Timestamp expired: Given timestamp \({spelt}\) not within 600s of server time \(\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\dZ\)",
        text,
    )


@pytest.mark.parametrize("seconds", [-590, 590], ids=["past", "future"])
def test_a_clock_that_is_nearly_ten_minutes_off_will_do(laravel, seconds):
    assert answer_to(laravel, auth_timestamp=str(int(time.time()) + seconds)).json() == {}


@pytest.mark.parametrize("timestamp", ["", "soon", "1e9", "-1", "9" * 40])
def test_a_timestamp_that_is_no_time_is_refused(laravel, timestamp):
    assert answer_to(laravel, auth_timestamp=timestamp).error()[0] == 401


@pytest.mark.parametrize("signature", ["0" * 64, "", "zz", "é"])
def test_a_wrong_signature_is_answered_with_the_text_to_sign(laravel, signature):
    query = DEMO.signed_query("POST", EVENTS, body=BODY)
    expected = string_to_sign("POST", EVENTS, query).replace("\n", "\\n")
    changed = {**query, "auth_signature": signature}
    status, text = laravel.connection.exchange(laravel.message("POST", EVENTS, changed, BODY)).error()
    assert status == 401
    assert text == (
        f'Invalid signature: you should have sent HmacSHA256Hex("{expected}", your_secret_key), but you sent "{signature}"'
    )
    assert DEMO.secret not in text


def test_a_missing_signature_is_refused(laravel):
    assert answer_to(laravel, leave_out=["auth_signature"]).status == 401


def test_a_body_other_than_the_signed_one_is_refused(laravel):
    assert answer_to(laravel, signed_body=BODY + b" ").error()[0] == 401


def test_a_body_needs_its_md5_and_no_body_may_have_the_md5_of_nothing(laravel):
    assert answer_to(laravel, leave_out=["body_md5"]).error()[0] == 401
    path = "/apps/42/channels"
    query = DEMO.signed_query("GET", path, body=b"")
    assert query["body_md5"] == "d41d8cd98f00b204e9800998ecf8427e"
    assert laravel.connection.exchange(laravel.message("GET", path, query)).json()["channels"] is not None


@pytest.mark.parametrize(
    "method, path",
    [
        ("POST", "/events"),
        ("POST", "/batch_events"),
        ("POST", "/users/7/terminate_connections"),
        ("GET", "/channels"),
        ("GET", "/channels/errors"),
        ("GET", "/channels/presence-errors/users"),
        ("GET", "/connections"),
    ],
)
def test_every_route_checks_the_signature_and_the_app(laravel, method, path):
    body = b"{}" if method == "POST" else None
    query = DEMO.signed_query(method, "/somewhere/else", body=body)
    status, text = laravel.connection.exchange(laravel.message(method, f"/apps/42{path}", query, body)).error()
    assert status == 401 and text.startswith("Invalid signature")
    unknown = f"/apps/999{path}"
    query = DEMO.signed_query(method, unknown, body=body)
    answer = laravel.connection.exchange(laravel.message(method, unknown, query, body))
    assert answer.error() == (404, "404 NOT FOUND")


def test_the_wrong_method_is_refused(laravel):
    assert laravel.exchange("GET", "/events").status in (404, 405)
    assert laravel.exchange("POST", "/channels", b"{}").status in (404, 405)


# Triggers


@pytest.mark.parametrize("field, missing", [("name", "name"), ("data", "data"), ("channel", "channel")])
def test_a_missing_field_is_named(laravel, field, missing):
    body = {name: value for name, value in EVENT.items() if name != field}
    assert refusal(laravel, "/events", body) == (400, f"Missing required parameter: {missing}")


@pytest.mark.parametrize(
    "changes",
    [
        {"name": 5},
        {"name": None},
        {"name": "x" * 201},
        {"name": "pusher:ping"},
        {"name": "pusher_internal:member_added"},
        {"channel": 5},
        {"channel": ""},
        {"channel": "two words"},
        {"channel": "ümlaut"},
        {"channel": "#general"},
        {"channel": "x" * 165},
        {"channels": []},
        {"channels": "errors"},
        {"channels": ["errors", 5]},
        {"channels": ["errors", "two words"]},
        {"socket_id": "nonsense"},
        {"socket_id": "1.2.3"},
        {"socket_id": "1."},
        {"socket_id": 1.2},
    ],
    ids=str,
)
def test_a_field_that_is_not_what_it_should_be_is_a_bad_request(laravel, changes):
    body = {**EVENT, **changes}
    if "channels" in changes:
        del body["channel"]
    assert refusal(laravel, "/events", body)[0] == 400


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"x"', b"5", b"\xff\xfe", b"{}{}", b"[" * 50_000, b'{"a":' * 50_000]
)
def test_a_body_that_is_not_a_json_object_is_a_bad_request(laravel, body):
    for path in ("/events", "/batch_events"):
        assert refusal(laravel, path, body)[0] == 400


def test_a_bad_channel_name_is_called_that(laravel):
    status, text = refusal(laravel, "/events", {**EVENT, "channel": "two words"})
    assert status == 400 and text.startswith("Invalid channel name")
    status, text = refusal(laravel, "/channels/bad!name")
    assert status == 400 and text.startswith("Invalid channel name")


def test_the_101st_channel_is_too_many(laravel):
    body = {"name": "e", "data": "{}", "channels": [f"errors-{number}" for number in range(101)]}
    assert refusal(laravel, "/events", body) == (400, "Too many channels (101 > 100)")
    body["channels"].pop()
    assert laravel.post("/events", body).json() == {}


@pytest.mark.parametrize("text, unit", [("x", 1), ("é", 2), ("😀", 4), ("\x01", 1)], ids=["ascii", "latin", "emoji", "control"])
def test_data_is_limited_to_10240_bytes_of_the_decoded_string(laravel, text, unit):
    # PHP writes six bytes for the é and twelve for the emoji: the body is far longer than what counts.
    fits = text * (10240 // unit)
    assert laravel.post("/events", {**EVENT, "data": fits}).json() == {}
    status, message = refusal(laravel, "/events", {**EVENT, "data": fits + text})
    assert status == 413
    assert message.startswith("The data content of this event exceeds the allowed maximum (10240 bytes)")


def test_names_may_be_as_long_as_the_limit(laravel, connect):
    subscriber = connect()
    subscriber.subscribe("c" * 164)
    laravel.post("/events", {"name": "n" * 200, "data": "{}", "channel": "c" * 164}).json()
    subscriber.expect("n" * 200, "c" * 164)


@pytest.mark.parametrize("data", ["", "0", "null", "false", " ", '"'])
def test_data_that_looks_like_nothing_is_delivered_as_it_is(laravel, connect, data):
    subscriber = connect()
    subscriber.subscribe("falsy")
    assert laravel.post("/events", {"name": "e", "data": data, "channel": "falsy"}).json() == {}
    assert subscriber.expect("e")["data"] == data


def test_data_that_is_no_string_is_delivered_as_compact_json(laravel, connect):
    subscriber = connect()
    subscriber.subscribe("objects")
    laravel.exchange("POST", "/events", b'{"name": "e", "data": {"a" : [1, 2.50, null]}, "channel": "objects"}').json()
    assert subscriber.expect("e")["data"] in ('{"a":[1,2.50,null]}', '{"a":[1,2.5,null]}')


def test_unknown_fields_are_ignored_and_a_channel_named_twice_gets_the_event_once(laravel, connect):
    subscriber = connect()
    subscriber.subscribe("twice")
    laravel.post("/events", {"name": "e", "data": "1", "channels": ["twice", "twice"], "extra": {"x": 1}}).json()
    laravel.post("/events", {"name": "marker", "data": "2", "channels": ["twice"]}).json()
    subscriber.expect("e")
    subscriber.expect("marker")


# Batches


def test_the_11th_event_is_too_many(laravel):
    assert refusal(laravel, "/batch_events", {"batch": [EVENT] * 11}) == (400, "Batch too large (11 > 10)")
    assert laravel.trigger_batch(*[EVENT] * 10).json() == {}


def test_a_batch_is_published_whole_or_not_at_all(laravel, connect):
    subscriber = connect()
    subscriber.subscribe("errors-batch")
    good = {"name": "good", "data": "1", "channel": "errors-batch"}
    missing = {"name": "e", "data": "1", "channels": ["errors-batch"]}
    assert refusal(laravel, "/batch_events", {"batch": [good, missing]}) == (400, "Missing required parameter: channel")
    assert refusal(laravel, "/batch_events", {"batch": [good, {**good, "data": "x" * 10241}]})[0] == 413
    assert refusal(laravel, "/batch_events", {"batch": [good, {**good, "socket_id": "x"}]})[0] == 400
    assert refusal(laravel, "/batch_events", {"batch": [good, 5]})[0] == 400
    laravel.trigger_batch({**good, "name": "marker"}).json()
    subscriber.expect("marker")


@pytest.mark.parametrize("body", [{}, {"batch": {}}, {"batch": None}, {"batch": "x"}], ids=str)
def test_a_batch_has_to_be_a_list(laravel, body):
    assert refusal(laravel, "/batch_events", body)[0] == 400


# Reads


def test_users_of_a_channel_without_presence_cannot_be_read(laravel):
    assert refusal(laravel, "/channels/errors/users") == (400, "Users can only be retrieved for presence channels")


def test_users_of_a_channel_without_presence_cannot_be_counted(laravel):
    expected = (400, "Cannot retrieve the user count unless the channel is a presence channel")
    assert refusal(laravel, "/channels/errors", info="user_count") == expected


@pytest.mark.parametrize("params", [{}, {"filter_by_prefix": "pres"}, {"filter_by_prefix": "private-"}], ids=str)
def test_users_of_all_channels_cannot_be_counted(laravel, params):
    assert refusal(laravel, "/channels", info="user_count", **params) == (
        400,
        "user_count may only be requested for presence channels - please supply filter_by_prefix begining with presence-",
    )


def test_the_cache_of_a_channel_without_one_cannot_be_read(laravel):
    assert refusal(laravel, "/channels/errors", info="cache")[0] == 400
    assert refusal(laravel, "/channels/my-cache-x", info="cache")[0] == 400


def test_an_unknown_route_is_not_found(laravel):
    for path in ("/nothing/here", "/apps", "/apps/42", "/apps/42/nothing"):
        answer = laravel.connection.exchange(laravel.message("GET", path, DEMO.signed_query("GET", path)))
        assert answer.error() == (404, "404 NOT FOUND")


def test_health_needs_no_signature(laravel):
    assert laravel.connection.exchange(laravel.message("GET", "/up", {})).json() == {"health": "OK"}
