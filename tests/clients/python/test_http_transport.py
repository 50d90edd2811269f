"""HTTP/1.1 as proxies and other clients may speak it: legal, but not what the libraries send."""

import json

import pytest

from support.apps import DEMO
from support.http import HttpConnection
from support.laravel import guzzle_target

BODY = json.dumps({"name": "e", "data": "1", "channel": "transport"}).encode()


@pytest.fixture
def connection(server):
    with HttpConnection(server) as connection:
        yield connection


@pytest.fixture
def subscriber(connect):
    subscriber = connect()
    subscriber.subscribe("transport")
    return subscriber


def head(server, *headers, body=BODY):
    """The head of a signed trigger with these headers instead of a library's."""
    path = "/apps/42/events"
    target = guzzle_target(path, DEMO.signed_query("POST", path, body=body))
    return "\r\n".join([f"POST {target} HTTP/1.1", f"Host: {server.authority}", *headers, "", ""]).encode()


def test_pipelined_requests_are_answered_and_delivered_in_order(laravel, subscriber):
    events = [laravel.event(["transport"], f"e{number}", "x" * number) for number in range(20)]
    bodies = [json.dumps(event).encode() for event in events]
    good = [laravel.request("POST", "/events", body) for body in bodies]
    bad = laravel.request("GET", "/channels/transport/users")
    laravel.connection.send(b"".join([*good[:10], bad, *good[10:]]))
    statuses = [laravel.connection.receive().status for _ in range(21)]
    assert statuses == [200] * 10 + [400] + [200] * 10
    assert [subscriber.frame()["event"] for _ in range(20)] == [f"e{number}" for number in range(20)]


def test_a_chunked_body_is_put_together(server, connection, subscriber):
    connection.send(head(server, "Transfer-Encoding: chunked"))
    for start in range(0, len(BODY), 10):
        chunk = BODY[start : start + 10]
        connection.send(b"%x\r\n%s\r\n" % (len(chunk), chunk))
    assert connection.exchange(b"0\r\n\r\n").json() == {}
    subscriber.expect("e")


def test_a_request_may_arrive_byte_by_byte(server, connection, subscriber):
    for byte in head(server, f"Content-Length: {len(BODY)}") + BODY:
        connection.send(bytes([byte]))
    assert connection.receive().json() == {}
    subscriber.expect("e")


def test_a_client_that_waits_for_100_continue_gets_it(server, connection, subscriber):
    connection.send(head(server, f"Content-Length: {len(BODY)}", "Expect: 100-continue"))
    # Read here, before the body is sent: cURL waits a second for it and then goes on by itself.
    assert connection.stream.readline().split()[1] == b"100"
    assert connection.stream.readline() == b"\r\n"
    assert connection.exchange(BODY).json() == {}
    subscriber.expect("e")


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_the_content_type_does_not_matter(server, connection, subscriber, content_type):
    headers = [] if content_type is None else [f"Content-Type: {content_type}"]
    assert connection.exchange(head(server, f"Content-Length: {len(BODY)}", *headers) + BODY).json() == {}
    subscriber.expect("e")


def test_header_names_may_have_any_case(server, connection, subscriber):
    assert connection.exchange(head(server, f"cOnTeNt-LeNgTh: {len(BODY)}") + BODY).json() == {}
    subscriber.expect("e")


def test_a_connection_is_closed_when_the_client_asked_for_it(server, connection, subscriber):
    assert connection.exchange(head(server, f"Content-Length: {len(BODY)}", "Connection: close") + BODY).json() == {}
    assert connection.hung_up() == b""
    subscriber.expect("e")


def test_a_plain_get_on_the_socket_path_is_told_to_upgrade(server, connection):
    request = f"GET /app/{DEMO.key}?protocol=7 HTTP/1.1\r\nHost: {server.authority}\r\n\r\n".encode()
    assert connection.exchange(request).status in (400, 426)


def test_frames_sent_together_with_the_upgrade_request_are_not_lost(server, connection):
    upgrade = "\r\n".join([
        f"GET /app/{DEMO.key}?protocol=7 HTTP/1.1",
        f"Host: {server.authority}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "",
        "",
    ]).encode()
    ping = b'{"event":"pusher:ping","data":{}}'
    masked = bytes([0x81, 0x80 | len(ping)]) + bytes(4) + ping  # a mask of zeros leaves the text readable
    answer = connection.exchange(upgrade + masked)
    assert answer.status == 101
    assert answer.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert "sec-websocket-protocol" not in answer.headers
    seen = b""
    while b"pusher:pong" not in seen:
        seen += connection.stream.read1()
    assert seen.index(b"pusher:connection_established") < seen.index(b"pusher:pong")
