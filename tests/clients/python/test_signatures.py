"""The suite's own signatures, checked against what the libraries produced: a wrong helper would make every other test lie."""

import json

import pytest

from support.apps import App, string_to_sign
from support.laravel import guzzle_target, php_json
from support.server import REPOSITORY


def vectors(name, library=""):
    found = json.loads((REPOSITORY / f"crates/protocol/tests/vectors/{name}.json").read_text())["vectors"]
    return [pytest.param(vector, id=vector["id"]) for vector in found if library in vector["library"]]


def app(vector):
    given = vector["input"]
    return App(given.get("app_id", ""), given["key"], given["secret"])


@pytest.mark.parametrize("vector", vectors("http_signature"))
def test_http_signatures_match(vector):
    given = vector["input"]
    body = given["body"].encode() if given.get("body") is not None else None
    query = {"auth_key": given["key"], "auth_timestamp": given["auth_timestamp"], "auth_version": "1.0"}
    query |= {name: str(value) for name, value in given.get("query_params", {}).items()}
    if vector["body_md5"]:
        query["body_md5"] = vector["body_md5"]
    assert string_to_sign(given["method"], given["path"], query) == vector["string_to_sign"]
    assert app(vector).sign(given["method"], given["path"], query)["auth_signature"] == vector["expected_auth_signature"]


@pytest.mark.parametrize("vector", vectors("http_signature", library="pusher-http-php"))
def test_the_laravel_helper_writes_the_request_target_php_writes(vector):
    given = vector["input"]
    body = given["body"].encode() if given.get("body") is not None else None
    query = app(vector).signed_query(
        given["method"], given["path"], given.get("query_params"), body, timestamp=given["auth_timestamp"]
    )
    assert guzzle_target(given["path"], query) == vector["wire_request_target"]
    if body:
        assert php_json(json.loads(body)).encode() == body


@pytest.mark.parametrize("vector", vectors("channel_auth"))
def test_channel_signatures_match(vector):
    given, expected = vector["input"], vector["expected"]
    auth = app(vector).channel_auth(given["socket_id"], given["channel"], expected.get("channel_data"))
    assert auth == expected["auth"]


@pytest.mark.parametrize("vector", vectors("user_auth"))
def test_user_signatures_match(vector):
    expected = vector["expected"]
    assert app(vector).user_auth(vector["input"]["socket_id"], expected["user_data"]) == expected["auth"]
