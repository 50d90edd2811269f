"""HTTP/1.1 over a bare socket: sends the bytes it is given, and lets a test see what a library would smooth over."""

import json
import socket
from dataclasses import dataclass

from support.waiting import DEADLINE


@dataclass
class Response:
    status: int
    headers: dict  # names in lower case
    body: bytes

    def json(self):
        """The body of a success as the PHP library needs it: status 200 and no other, a JSON object."""
        assert self.status == 200, self
        assert self.headers["content-type"].startswith("application/json"), self
        value = json.loads(self.body)
        assert isinstance(value, dict), self
        return value

    def error(self):
        """Status and text of a refusal: plain text with a newline at the end, as SDKs show it to the developer."""
        assert self.status >= 400, self
        assert self.headers["content-type"].startswith("text/plain"), self
        text = self.body.decode()
        assert text.endswith("\n") and text.strip(), self
        return self.status, text[:-1]


class HttpConnection:
    """One TCP connection. It never reconnects by itself: a server that hangs up is seen."""

    def __init__(self, server):
        self.socket = socket.create_connection((server.host, server.port), timeout=DEADLINE)
        self.stream = self.socket.makefile("rb")

    def send(self, data):
        self.socket.sendall(data)

    def receive(self):
        """The next answer; 100 Continue announces one and is skipped."""
        while True:
            status = int(self._line().split(" ", 2)[1])
            headers = {}
            while line := self._line():
                name, value = line.split(":", 1)
                headers[name.lower()] = value.strip()
            if status != 100:
                return Response(status, headers, self._body(headers))

    def exchange(self, data):
        self.send(data)
        return self.receive()

    def hung_up(self):
        """Waits for the server to close; what it still had to say is returned."""
        try:
            return self.stream.read()
        except ConnectionError:
            return b""

    def close(self):
        self.stream.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _line(self):
        line = self.stream.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError(f"the server closed the connection after {line!r}")
        return line[:-2].decode("latin-1")

    def _body(self, headers):
        if headers.get("transfer-encoding") != "chunked":
            return self.stream.read(int(headers.get("content-length", 0)))
        chunks = []
        while size := int(self._line(), 16):
            chunks.append(self.stream.read(size))
            self._line()
        self._line()
        return b"".join(chunks)
