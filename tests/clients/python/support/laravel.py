"""Laravel's broadcaster as one PHP process runs it: pusher-http-php 7.2.6 over Guzzle 7, which uses cURL, on one
kept-alive connection.

Written after protocol.md 9.1 and laravel.md 1.1. The bytes are those cURL puts on the wire: `Host` first, then the library's two
headers, then Guzzle's agent, and `Content-Length` last, because cURL adds it to a body it was given as a string.
"""

import json
from urllib.parse import quote, urlencode

from support.apps import DEMO
from support.http import HttpConnection

CHANNELS_PER_REQUEST = 100  # the framework cuts longer lists into several requests


def php_json(value):
    """`json_encode` with PHP's defaults: no spaces, `\\/` for a slash, `\\u00e9` for anything that is not ASCII."""
    return json.dumps(value, separators=(",", ":")).replace("/", "\\/")


def guzzle_target(path, query):
    """Guzzle's `http_build_query(…, PHP_QUERY_RFC3986)`: a comma travels as `%2C` but was signed as a comma."""
    return f"{path}?{urlencode(query, quote_via=quote, safe='')}" if query else path


def guzzle_request(method, target, host, body=None):
    lines = [
        f"{method} {target} HTTP/1.1",
        f"Host: {host}",
        "Content-Type: application/json",
        "X-Pusher-Library: pusher-http-php 7.2.6",
        "User-Agent: GuzzleHttp/7",
    ]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


class Laravel:
    """`path` is the connection option of that name: part of the URL, never part of what is signed."""

    def __init__(self, server, app=DEMO, path=""):
        self.app = app
        self.path = path
        self.host = server.authority
        self.connection = HttpConnection(server)

    # What applications call. `broadcast` takes what the framework hands over: the payload with its `socket` entry.

    def broadcast(self, channels, event, payload):
        payload = dict(payload)
        socket_id = payload.pop("socket", None)
        params = {} if socket_id is None else {"socket_id": socket_id}
        chunks = [channels[i : i + CHANNELS_PER_REQUEST] for i in range(0, len(channels), CHANNELS_PER_REQUEST)]
        # PHP has one array type: a payload without properties is a list to json_encode.
        return [self.trigger(chunk, event, payload or [], **params) for chunk in chunks]

    def trigger(self, channels, event, data, **params):
        return self.post("/events", self.event(channels, event, php_json(data), **params))

    def trigger_batch(self, *events):
        return self.post("/batch_events", {"batch": list(events)})

    def send_to_user(self, user_id, event, data):
        return self.trigger([f"#server-to-user-{user_id}"], event, data)

    def terminate_user_connections(self, user_id):
        return self.exchange("POST", f"/users/{user_id}/terminate_connections", b"{}")

    @staticmethod
    def event(channels, event, data, **params):
        """One event's fields in the library's order. `data` is a string already: the body escapes it a second time."""
        target = {"channel": channels[0]} if len(channels) == 1 else {"channels": channels}
        return {"name": event, "data": data, **target, **params}

    # Requests under the app's path, signed.

    def get(self, path, **query):
        return self.exchange("GET", path, params=query)

    def post(self, path, body):
        return self.exchange("POST", path, php_json(body).encode())

    def exchange(self, method, path, body=None, params=None):
        return self.connection.exchange(self.request(method, path, body, params))

    def request(self, method, path, body=None, params=None):
        path = f"/apps/{self.app.id}{path}"
        return self.message(method, path, self.app.signed_query(method, path, params, body), body)

    def message(self, method, path, query, body=None):
        """The bytes of a request with whatever query a test wants it to have."""
        return guzzle_request(method, guzzle_target(f"{self.path}{path}", query), self.host, body)

    def close(self):
        self.connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
