"""The server under a path of a site that serves other things as well (`server.path_prefix`)."""

import pytest

from support.apps import DEMO
from support.laravel import Laravel

PREFIX = "/ws"


@pytest.fixture(scope="module")
def settings():
    return {"server": {"path_prefix": PREFIX}}


@pytest.fixture
def laravel(server):
    """Laravel with the connection option `path`, which the library keeps out of what it signs."""
    with Laravel(server, path=PREFIX) as laravel:
        yield laravel


def test_sockets_and_requests_live_under_the_prefix(laravel, connect):
    subscriber = connect()
    subscriber.subscribe("private-prefixed")
    laravel.trigger(["private-prefixed"], "e", {"a": 1}).json()
    assert subscriber.expect("e")["data"] == '{"a":1}'
    assert laravel.get("/channels/private-prefixed").json() == {"occupied": True}


def test_a_signature_over_the_path_with_its_prefix_is_accepted_as_well(laravel):
    # What other libraries do when the prefix is part of the path they were given.
    path = f"{PREFIX}/apps/42/channels"
    query = DEMO.signed_query("GET", path)
    assert "channels" in laravel.connection.exchange(laravel.message("GET", "/apps/42/channels", query)).json()


def test_a_signature_over_another_prefix_is_refused(laravel):
    query = DEMO.signed_query("GET", "/other/apps/42/channels")
    assert laravel.connection.exchange(laravel.message("GET", "/apps/42/channels", query)).error()[0] == 401


def test_requests_without_the_prefix_are_not_found(server):
    with Laravel(server) as bare:
        assert bare.get("/channels").error() == (404, "404 NOT FOUND")


def test_sockets_without_the_prefix_are_told_that_the_path_is_wrong(connect):
    for path in (f"/app/{DEMO.key}?protocol=7", f"{PREFIX}/elsewhere", f"{PREFIX}x/app/{DEMO.key}"):
        socket = connect(path=path, handshake=False)
        assert socket.expect_error(4005) == "Path not found"
        assert socket.expect_close(4005) == "Path not found"


def test_the_python_sdks_short_path_for_terminating_a_user_has_the_prefix_too(laravel, connect):
    user = connect().sign_in("7")
    path = "/users/7/terminate_connections"
    query = DEMO.signed_query("POST", path, body=b"{}")
    assert laravel.connection.exchange(laravel.message("POST", path, query, b"{}")).json() == {}
    user.expect_error(4009)
    user.expect_close(4009)
