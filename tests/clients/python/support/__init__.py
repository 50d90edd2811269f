"""Helpers shared by the Python client suite.

`apps` signs, `server` starts the real binary, `subscriber` looks at single WebSocket frames, `http` speaks HTTP/1.1 over
a bare socket, `laravel` writes the requests Laravel writes, `webhooks` receives, `waiting` holds the deadlines.
"""
