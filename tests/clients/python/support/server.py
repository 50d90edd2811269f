"""Starts and stops the real server."""

import json
import os
import re
import subprocess
import tempfile
import threading
from pathlib import Path

from support.apps import DEMO, OTHER
from support.waiting import DEADLINE

REPOSITORY = Path(__file__).resolve().parents[4]
BINARY = Path(os.environ.get("FANFARE_BIN", REPOSITORY / "target/debug/fanfare"))
LISTENING = re.compile(r"listening on https?://[^\s:]+:(\d+)")


class TestServer:
    """One server process with a configuration of its own, on a free port unless told otherwise.

    `settings` has the shape of the configuration file; its `apps` maps an app to that app's settings.
    """

    __test__ = False  # the name tempts pytest to collect it

    def __init__(self, settings=None, port=0):
        settings = dict(settings or {})
        apps = settings.pop("apps", {DEMO: {}, OTHER: {}})
        self.document = {
            "server": {"host": "127.0.0.1", "workers": 2, "shutdown_grace": "1s", **settings.pop("server", {})},
            "apps": [{"id": app.id, "key": app.key, "secret": app.secret, **extra} for app, extra in apps.items()],
            **settings,
        }
        self.host = "127.0.0.1"
        self.port = port
        self.prefix = self.document["server"].get("path_prefix", "")
        self.log = []

    @property
    def authority(self):
        return f"{self.host}:{self.port}"

    def start(self):
        assert BINARY.exists(), f"no server at {BINARY}: build it, or name another in FANFARE_BIN"
        self.directory = tempfile.TemporaryDirectory(prefix="fanfare-test-")
        config = Path(self.directory.name, "fanfare.toml")
        config.write_text(toml(self.document))
        self.process = subprocess.Popen(
            [BINARY, "serve", "--config", config, "--port", str(self.port)],
            stderr=subprocess.PIPE,
            text=True,
            # Only these: a FANFARE__… variable of the caller would change the configuration under test.
            env={
                "PATH": os.environ["PATH"],
                "RUST_BACKTRACE": "1",
                "NO_COLOR": "1",
                "FANFARE_NODE": os.environ.get("FANFARE_NODE", ""),
            },
        )
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        in_time = self._ready.wait(DEADLINE)
        if not in_time or not self.port:
            self.process.kill()
            raise AssertionError("the server did not say where it listens:\n" + "".join(self.log))
        return self

    def _read_log(self):
        # Read to the end in any case: a full pipe would stop the server.
        for line in self.process.stderr:
            self.log.append(line)
            if not self._ready.is_set() and (found := LISTENING.search(line)):
                self.port = int(found[1])
                self._ready.set()
        self._ready.set()

    def stop(self):
        """Asks for a graceful shutdown, and says what became of it."""
        self.process.terminate()
        try:
            exit_code = self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("the server ignored SIGTERM:\n" + "".join(self.log)) from None
        finally:
            self._reader.join(DEADLINE)
            self.directory.cleanup()
        panics = [line for line in self.log if "panicked" in line]
        assert not panics, "".join(panics)
        assert exit_code == 0, f"exit code {exit_code} after SIGTERM:\n" + "".join(self.log)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()


def toml(table, path=()):
    """TOML for the shapes the configuration has: tables, arrays of tables, and plain values."""
    lines, nested = [], []
    for name, value in table.items():
        inner = (*path, name)
        if isinstance(value, dict):
            nested.append(f"[{'.'.join(inner)}]\n{toml(value, inner)}")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            nested += [f"[[{'.'.join(inner)}]]\n{toml(item, inner)}" for item in value]
        else:
            lines.append(f"{name} = {json.dumps(value)}\n")  # JSON strings, numbers, booleans and arrays are TOML
    return "".join(lines + nested)
