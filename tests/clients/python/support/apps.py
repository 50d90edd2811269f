"""An app's credentials and everything they sign. Source: protocol.md, section 3."""

import hashlib
import hmac
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class App:
    id: str
    key: str
    secret: str

    def hmac(self, text):
        return hmac.new(self.secret.encode(), text.encode(), hashlib.sha256).hexdigest()

    def channel_auth(self, socket_id, channel, channel_data=None):
        """`channel_data` is signed as the text it is: another spelling of the same JSON is another signature."""
        suffix = f":{channel_data}" if channel_data else ""
        return f"{self.key}:{self.hmac(f'{socket_id}:{channel}{suffix}')}"

    def user_auth(self, socket_id, user_data):
        return f"{self.key}:{self.hmac(f'{socket_id}::user::{user_data}')}"

    def signed_query(self, method, path, params=None, body=None, timestamp=None):
        """The query of an HTTP API request, values not yet percent-encoded, the signature last as PHP has it."""
        query = {
            "auth_key": self.key,
            "auth_timestamp": str(int(time.time()) if timestamp is None else timestamp),
            "auth_version": "1.0",
            **(params or {}),
        }
        if body is not None:
            query["body_md5"] = hashlib.md5(body).hexdigest()
        return self.sign(method, path, query)

    def sign(self, method, path, query):
        """Signs `query` just as it is, so that tests can sign what no library would."""
        unsigned = dict(sorted((name, value) for name, value in query.items() if name != "auth_signature"))
        return {**unsigned, "auth_signature": self.hmac(string_to_sign(method, path, unsigned))}


def string_to_sign(method, path, query):
    params = "&".join(f"{name}={value}" for name, value in sorted(query.items()) if name != "auth_signature")
    return f"{method}\n{path}\n{params}"


# The Python SDK insists on an app id of digits.
DEMO = App("42", "app-key", "app-secret")
OTHER = App("43", "other-key", "other-secret")
