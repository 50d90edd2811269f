"""What anybody can send who knows nothing but the public key. It gets a clear answer or a closed connection, and harms nobody.

`bystander` surrounds every test: somebody else's subscription has to be there, and to receive, when the attack is over. A panic
in the server's log fails the module at its end.
"""

import json
import socket
import struct
from contextlib import ExitStack, suppress

import pytest
from websocket import ABNF

from support.apps import DEMO
from support.http import HttpConnection
from support.laravel import Laravel
from support.subscriber import Subscriber
from support.waiting import eventually

LARGEST_FRAME = 64 * 1024


@pytest.fixture(scope="module")
def settings():
    return {"server": {"request_timeout": "1s"}}


@pytest.fixture(scope="module")
def onlooker(server):
    with Subscriber(server) as onlooker:
        onlooker.subscribe("onlooker")
        yield onlooker


@pytest.fixture(autouse=True)
def bystander(server, onlooker):
    yield
    with Laravel(server) as laravel:
        laravel.trigger(["onlooker"], "still served", {}).json()
        onlooker.expect("still served")
    with Subscriber(server) as newcomer:
        newcomer.expect_alive()
    assert server.process.poll() is None, "the server died"


# WebSocket messages


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        '{"event":"pusher:ping"',
        "[]",
        "null",
        "5",
        '"pusher:ping"',
        "{}",
        '{"event":null}',
        '{"event":5,"data":{}}',
        '{"event":["pusher:ping"]}',
        '{"event":""}',
        '{"data":{},"channel":"x"}',
        '{"event":"pusher:ping","data":{}}}',
        '{"event":"pusher:nonsense","data":{}}',
        '{"event":"pusher_internal:member_added","channel":"x","data":{}}',
        '{"event":"\\ud800","data":{}}',
        '{"event":"x","data":' + "9" * 5000 + "}",
        '{"event":"x","data":1e99999}',
    ],
    ids=lambda text: text[:40] or "empty",
)
def test_a_message_that_makes_no_sense_is_an_error_without_a_code(connect, text):
    attacker = connect()
    attacker.send_text(text)
    # No code: pysher would reconnect on a 42xx, so the connection stays.
    assert attacker.expect_error()
    attacker.expect_alive()


@pytest.mark.parametrize("nested", ["[" * 30_000, '{"a":' * 10_000, "[" * 30_000 + "]" * 30_000], ids=["lists", "maps", "closed"])
@pytest.mark.parametrize("around", ["%s", '{"event":"client-x","channel":"private-x","data":%s}'], ids=["bare", "as data"])
def test_deep_nesting_overflows_no_stack(connect, nested, around):
    attacker = connect()
    attacker.send_text(around % nested)
    assert attacker.expect_error()
    attacker.expect_alive()


@pytest.mark.parametrize("event", ["pusher:subscribe", "pusher:unsubscribe", "pusher:signin", "client-x"])
@pytest.mark.parametrize(
    "data",
    [None, {}, [], 5, "", "{", "null", {"channel": None}, {"channel": 5}, {"channel": {}}, {"auth": 5, "user_data": 5}],
    ids=str,
)
def test_a_request_without_usable_data_is_an_error(connect, event, data):
    attacker = connect()
    attacker.send(event, data)
    frame = attacker.frame()
    assert frame["event"] == "pusher:error" and frame["data"]["message"]
    # A subscription that names no channel cannot have a subscription_error, so nothing else comes.
    attacker.expect_alive()


@pytest.mark.parametrize("channel", ["", "two words", "ü", "#general", "a/b", "x" * 165, "private-" + "x" * 157, "\x00", "a\n"])
def test_a_bad_channel_name_is_refused(connect, channel):
    attacker = connect()
    attacker.request_subscription(channel)
    assert attacker.expect_refused(channel)
    attacker.expect_alive()


@pytest.mark.parametrize(
    "auth",
    ["", ":", "nonsense", f"{DEMO.key}:", f"{DEMO.key}:{'0' * 64}", f"{DEMO.key}:{'é' * 64}", "other-key:" + "0" * 64, "a:b:c", "x" * 9000],
    ids=lambda auth: auth[:30] or "empty",
)
@pytest.mark.parametrize("channel", ["private-x", "presence-x", "private-cache-x", "private-encrypted-x"])
def test_a_bad_signature_opens_no_channel(connect, laravel, channel, auth):
    attacker = connect()
    attacker.request_subscription(channel, channel_data='{"user_id":"1"}' if "presence" in channel else None, auth=auth)
    assert attacker.expect_refused(channel)
    assert laravel.get(f"/channels/{channel}").json() == {"occupied": False}
    attacker.expect_alive()


@pytest.mark.parametrize(
    "channel_data",
    ["", "x", "5", "[]", "{}", '{"user_id":""}', '{"user_id":null}', '{"user_id":{}}', '{"user_id":"' + "u" * 129 + '"}', "[" * 9000],
    ids=lambda data: data[:30] or "empty",
)
def test_a_presence_member_without_a_usable_id_is_refused(connect, channel_data):
    attacker = connect()
    attacker.request_subscription("presence-nobody", channel_data)
    assert attacker.expect_refused("presence-nobody")
    attacker.expect_alive()


def test_the_channel_of_another_user_stays_closed(connect):
    attacker = connect().sign_in("mallory")
    attacker.request_subscription("#server-to-user-victim")
    assert attacker.expect_refused("#server-to-user-victim")
    attacker.expect_alive()


def test_client_events_are_no_way_to_write_to_foreign_channels_or_to_fake_a_sender(connect, laravel):
    victim, attacker = connect(), connect()
    victim.join("presence-fakes", "victim")
    victim.subscribe("public-fakes")
    attacker.subscribe("public-fakes")
    for channel in ("presence-fakes", "public-fakes"):
        attacker.send("client-x", {}, channel=channel)
        assert attacker.expect_error()
    attacker.join("presence-fakes", "mallory")
    victim.expect("pusher_internal:member_added")
    attacker.send("client-x", {"a": 1}, channel="presence-fakes", user_id="victim", socket_id=victim.socket_id, extra=1)
    assert victim.frame() == {"event": "client-x", "channel": "presence-fakes", "data": '{"a":1}', "user_id": "mallory"}
    attacker.expect_alive()


def test_thousands_of_subscriptions_and_of_frames_in_one_write_are_answered_in_order(connect):
    attacker = connect()
    frames = [json.dumps({"event": "pusher:subscribe", "data": {"channel": f"flood-{number}"}}) for number in range(2000)]
    attacker.ws.sock.sendall(b"".join(ABNF.create_frame(frame, ABNF.OPCODE_TEXT).format() for frame in frames))
    for number in range(2000):
        # A server may set a limit to subscriptions; then the rest are refused, in order, too.
        frame = attacker.frame()
        if frame["event"] == "pusher:error":
            break
        assert frame["channel"] == f"flood-{number}"


# WebSocket frames


def test_a_binary_frame_is_read_as_text_or_ignored(connect):
    for payload in (b'{"event":"pusher:ping","data":{}}', b"\x00\xff\xfe", b""):
        attacker = connect()
        attacker.send_frame(payload, ABNF.OPCODE_BINARY)
        attacker.send("pusher:subscribe", {"channel": "after-binary"})
        while (frame := attacker.frame())["event"] != "pusher_internal:subscription_succeeded":
            assert frame["event"] in ("pusher:pong", "pusher:error")


def test_the_largest_allowed_message_passes_and_one_byte_more_closes_with_1009(connect):
    ping = '{"event":"pusher:ping","data":"%s"}'
    fits = ping % ("x" * (LARGEST_FRAME - len(ping % "")))
    attacker = connect()
    attacker.send_text(fits)
    attacker.expect("pusher:pong")
    attacker.send_text(fits + " ")
    attacker.expect_close(1009)


def test_frames_that_arrive_in_pieces_are_each_read_once(connect):
    client = connect()
    ping = ABNF.create_frame('{"event":"pusher:ping","data":{}}', ABNF.OPCODE_TEXT).format()
    for _ in range(20):
        for byte in ping:
            client.ws.sock.sendall(bytes([byte]))
        client.expect("pusher:pong")
    client.ws.sock.sendall(ping + ping[:5])
    client.expect("pusher:pong")
    client.ws.sock.sendall(ping[5:])
    client.expect("pusher:pong")
    client.expect_alive()


@pytest.mark.parametrize("length", [LARGEST_FRAME + 1, 2**40, 2**63 - 1, 2**64 - 1])
def test_a_length_that_is_only_announced_closes_at_once(connect, length):
    attacker = connect()
    attacker.ws.sock.sendall(bytes([0x81, 0x80 | 127]) + struct.pack("!Q", length) + b"mask" + b"begin")
    # The highest bit must not be set at all: that may be called a protocol error instead.
    attacker.expect_close(1009, *[1002] * (length >= 2**63))


def test_a_message_in_many_fragments_is_limited_as_a_whole(connect):
    attacker = connect()
    attacker.send_frame(b'{"event":"pusher:', ABNF.OPCODE_TEXT, fin=0)
    attacker.send_frame(b'ping","data":{}}', ABNF.OPCODE_CONT)
    attacker.expect("pusher:pong")
    attacker.send_frame(b"x" * 1000, ABNF.OPCODE_TEXT, fin=0)
    with suppress(ConnectionError):  # may be gone before the last one
        for _ in range(LARGEST_FRAME // 1000):
            attacker.send_frame(b"x" * 1000, ABNF.OPCODE_CONT, fin=0)
    attacker.expect_close(1009)


@pytest.mark.parametrize("payload", [b"\xff", b'{"event":"pusher:ping","data":"\xc3\x28"}', b"\xed\xa0\x80", b"\xf0\x9f\x98"])
def test_text_that_is_not_utf8_closes_with_1007(connect, payload):
    attacker = connect()
    attacker.send_frame(payload)
    attacker.expect_close(1007)


def test_a_character_split_over_two_fragments_is_no_error(connect):
    text = '{"event":"pusher:ping","data":"é"}'.encode()
    middle = text.index("é".encode()) + 1
    client = connect()
    client.send_frame(text[:middle], ABNF.OPCODE_TEXT, fin=0)
    client.send_frame(text[middle:], ABNF.OPCODE_CONT)
    client.expect("pusher:pong")


@pytest.mark.parametrize(
    "frame",
    [
        {"mask": 0},
        {"rsv1": 1},
        {"opcode": 3},
        {"opcode": 11},
        {"opcode": ABNF.OPCODE_CONT},
        {"opcode": ABNF.OPCODE_PING, "fin": 0},
        {"opcode": ABNF.OPCODE_PING, "payload": b"x" * 126},
    ],
    ids=str,
)
def test_a_frame_against_the_websocket_rules_ends_the_connection(connect, frame):
    attacker = connect()
    head = (frame.get("fin", 1) << 7) | (frame.get("rsv1", 0) << 6) | frame.get("opcode", ABNF.OPCODE_TEXT)
    payload = frame.get("payload", b"{}")
    masked = frame.get("mask", 1)
    length = struct.pack("!B", len(payload)) if len(payload) < 126 else struct.pack("!BH", 126, len(payload))
    length = bytes([length[0] | masked << 7]) + length[1:]
    attacker.ws.sock.sendall(bytes([head]) + length + (bytes(4) if masked else b"") + payload)
    attacker.expect_hang_up()


def test_a_close_frame_is_answered_whatever_it_says(connect):
    for payload in (b"", struct.pack("!H", 1000) + b"bye", struct.pack("!H", 4999), b"\x03", struct.pack("!H", 1005)):
        client = connect()
        client.send_frame(payload, ABNF.OPCODE_CLOSE)
        client.expect_hang_up()


# Connections that stay half open


def test_a_member_who_vanishes_in_any_way_leaves_the_presence_channel(connect):
    witness = connect()
    witness.join("presence-vanish", "witness")

    def reset(victim):
        # No orderly end: the kernel answers whatever comes next with a reset.
        victim.ws.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        victim.ws.sock.close()

    for number, vanish in enumerate([
        reset,
        lambda victim: victim.ws.sock.shutdown(socket.SHUT_WR),
        lambda victim: victim.ws.sock.close(),
        lambda victim: victim.ws.sock.sendall(b"\x81\xfe\x01") or victim.ws.sock.close(),
    ]):
        victim = connect()
        victim.join("presence-vanish", f"victim-{number}")
        assert witness.data("pusher_internal:member_added")["user_id"] == f"victim-{number}"
        vanish(victim)
        assert witness.data("pusher_internal:member_removed")["user_id"] == f"victim-{number}"


def test_a_subscriber_who_does_not_read_is_cut_off_and_the_others_miss_nothing(server, connect, laravel):
    reader = connect()
    reader.subscribe("stalled")
    stalled = connect()
    stalled.subscribe("stalled")
    batch = [laravel.event(["stalled"], "e", "x" * 10_240)] * 10
    for _ in range(300):
        laravel.trigger_batch(*batch).json()
        for _ in batch:
            reader.expect("e", "stalled")
    # 30 MB are more than the socket buffers and any sane outbox hold.
    stalled.expect_hang_up()
    eventually(
        lambda: laravel.get("/channels/stalled", info="subscription_count").json()["subscription_count"] == 1,
        "the stalled subscriber is no longer counted",
    )


@pytest.fixture
def slow_connections(server):
    """Fifty clients that began something and never went on."""
    beginnings = [b"", b"G", b"GET /up HTTP/1.1\r\n", b"POST /apps/42/events HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"]
    beginnings.append(f"GET /app/{DEMO.key} HTTP/1.1\r\nUpgrade: websocket\r\n".encode())
    with ExitStack() as stack:
        connections = [stack.enter_context(HttpConnection(server)) for _ in range(50)]
        for number, connection in enumerate(connections):
            connection.send(beginnings[number % len(beginnings)])
        yield connections


def test_slow_clients_hold_up_nobody_and_slow_heads_are_given_up(slow_connections, connect, laravel):
    for number in range(20):
        subscriber = connect()
        subscriber.subscribe("beside-slow")
        laravel.trigger(["beside-slow"], "e", {"n": number}).json()
        subscriber.expect("e")
    answer = slow_connections[2].hung_up()  # a request line and then nothing
    assert not answer or answer.startswith(b"HTTP/1.1 408")


# HTTP


@pytest.fixture
def attacker(server):
    with HttpConnection(server) as attacker:
        yield attacker


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),  # a TLS client that took the port for https
        b"\x00" * 1000,
        b"\r\n\r\n\r\n\r\n nonsense\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /" + b"a" * 500_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /up HTTP/1.1\r\n" + b"X: " + b"a" * 500_000 + b"\r\n\r\n",
        b"GET /up HTTP/1.1\r\n" + b"X: y\r\n" * 50_000 + b"\r\n",
        b"POST /apps/42/events HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /apps/42/events HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"POST /apps/42/events HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"POST /apps/42/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        b"POST /apps/42/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    ],
    ids=lambda garbage: repr(garbage[:50]),
)
def test_what_is_not_http_is_refused_or_hung_up_on(attacker, garbage):
    with suppress(OSError):  # may be refused before all of it was sent
        attacker.send(garbage)
        attacker.socket.shutdown(socket.SHUT_WR)
    answer = attacker.hung_up()
    assert not answer or answer.split()[1][:1] in (b"4", b"5"), answer


@pytest.mark.parametrize(
    "target",
    ["/%", "/%zz", "/%ff%fe", "/apps/%00/events", "/apps/42/channels/%2e%2e/users", "/apps/42/channels?%=%&=&&", "/app/", "/é", "*"],
)
def test_a_target_full_of_nonsense_is_refused(attacker, target):
    answer = attacker.exchange(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert 400 <= answer.status < 500


def test_a_body_over_the_limit_is_refused_with_413_whether_announced_or_not(server, laravel):
    # Fits the socket buffers, so that sending it cannot block on a server that has stopped reading.
    huge = b'{"name":"e","channel":"c","data":"' + b"x" * (2 << 20) + b'"}'
    announced = laravel.request("POST", "/events", huge)
    head = announced[: announced.index(b"Content-Length")]
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(huge), huge)
    for request in (announced, chunked):
        with HttpConnection(server) as attacker:
            with suppress(ConnectionError):  # may be refused before all of it was sent
                attacker.send(request)
            assert attacker.receive().status == 413


def test_a_body_that_ends_early_publishes_nothing(server, connect, laravel):
    subscriber = connect()
    subscriber.subscribe("truncated")
    request = laravel.request("POST", "/events", b'{"name":"cut","data":"1","channel":"truncated"}')
    with HttpConnection(server) as attacker:
        attacker.send(request[:-1])
        attacker.socket.shutdown(socket.SHUT_WR)
        attacker.hung_up()
    laravel.trigger(["truncated"], "marker", {}).json()
    subscriber.expect("marker")


@pytest.mark.parametrize(
    "headers",
    [
        ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"],
        ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 8", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="],
        ["Upgrade: h2c", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="],
        ["Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="],
    ],
    ids=["no key", "old version", "other protocol", "no connection header"],
)
def test_an_incomplete_upgrade_is_a_bad_request(server, attacker, headers):
    request = "\r\n".join([f"GET /app/{DEMO.key}?protocol=7 HTTP/1.1", f"Host: {server.authority}", *headers, "", ""])
    assert attacker.exchange(request.encode()).status in (400, 426)


# Rejections after the handshake


@pytest.mark.parametrize(
    "path, code",
    [
        ("/app/nobody?protocol=7", 4001),
        ("/app/%00?protocol=7", 4001),
        ("/app/" + "k" * 5000 + "?protocol=7", 4001),
        ("/app/?protocol=7", 4005),
        ("/app/app-key/extra?protocol=7", 4005),
        ("/elsewhere", 4005),
        ("/app/app-key?protocol=seven", 4006),
        ("/app/app-key?protocol=3", 4007),
        ("/app/app-key?protocol=8", 4007),
        ("/app/app-key?protocol=70", 4007),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_rejected_socket_gets_the_error_first_and_the_close_with_the_same_code_and_words(connect, path, code):
    rejected = connect(path=path, handshake=False)
    message = rejected.expect_error(code)
    reason = rejected.expect_close(code)
    assert reason and message.startswith(reason)  # a close frame has room for 123 bytes only


@pytest.mark.parametrize("query", ["protocol=5", "protocol=6", "protocol=7&flash=false&client=js&version=8.6.0&x=%", ""])
def test_other_protocol_versions_and_unknown_parameters_are_welcome(connect, query):
    connect(path=f"/app/{DEMO.key}?{query}").expect_alive()
