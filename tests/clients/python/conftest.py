"""Real Python clients, and Laravel's requests byte for byte, against the real binary.

    python3 -m venv .venv && .venv/bin/pip install -r requirements.txt && .venv/bin/pytest

The binary is `target/debug/fanfare` of this repository, or the one FANFARE_BIN names. Each module has a server of its own,
configured by the module's `settings` fixture; it has to end with exit code 0 and without a panic in its log.
"""

from contextlib import ExitStack

import pytest

from support.laravel import Laravel
from support.server import TestServer
from support.subscriber import Subscriber


@pytest.fixture(scope="module")
def settings():
    """Changes to the configuration; a module that wants some overrides this."""
    return {}


@pytest.fixture(scope="module")
def server(settings):
    with TestServer(settings) as server:
        yield server


@pytest.fixture
def connect(server):
    """Opens raw WebSocket clients, closed when the test ends."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Subscriber(server, **options))


@pytest.fixture
def laravel(server):
    """A PHP process with its one connection."""
    with Laravel(server) as laravel:
        yield laravel
