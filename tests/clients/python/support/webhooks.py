"""A real HTTP server that receives webhooks, as an application would."""

import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from support.waiting import DEADLINE


@dataclass
class Webhook:
    path: str
    headers: list  # (name, value) as sent: PHP looks the names up case-sensitively
    body: str
    accepted: bool

    @property
    def signature(self):
        return dict(self.headers)["X-Pusher-Signature"]

    @property
    def time_ms(self):
        return json.loads(self.body)["time_ms"]

    @property
    def events(self):
        return json.loads(self.body)["events"]


class WebhookReceiver:
    def __init__(self):
        self.received = []
        self.refusals = {}  # path -> how many more requests to answer with 500
        self._changed = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                accepted = receiver._record(self.path, self.headers.items(), body)
                self.send_response(200 if accepted else 500)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    def url(self, path):
        return f"http://127.0.0.1:{self._server.server_port}{path}"

    def _record(self, path, headers, body):
        with self._changed:
            accepted = self.refusals.get(path, 0) == 0
            if not accepted:
                self.refusals[path] -= 1
            self.received.append(Webhook(path, headers, body, accepted))
            self._changed.notify_all()
            return accepted

    def found(self, path, **fields):
        """What came to `path` with these fields: pairs of a webhook and one of its events."""
        return [
            (webhook, event)
            for webhook in self.received
            if webhook.path == path
            for event in webhook.events
            if fields.items() <= event.items()
        ]

    def events(self, path, **fields):
        return [event for _, event in self.found(path, **fields)]

    def wait_for(self, path, count=1, **fields):
        """Waits until this was `count` times there, and returns the last webhook and event."""
        with self._changed:
            in_time = self._changed.wait_for(lambda: len(self.found(path, **fields)) >= count, DEADLINE)
            assert in_time, f"no webhook {fields} at {path}; seen: {[webhook.body for webhook in self.received]}"
            return self.found(path, **fields)[-1]

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
