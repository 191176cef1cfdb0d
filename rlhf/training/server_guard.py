"""What stands before the embedded policy server: its key, its own name, and the routes in use.

`transformers serve` answers everybody who reaches its port, and has routes that load and unload models.
A page of any site can make a browser on this machine send requests there; such a page knows no key, and
a name that was rebound to 127.0.0.1 is not this server's.
"""

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

KEY = "GROUND_CONTROL_SERVER_KEY"
"""The environment variable with the key: a command line can be read by everybody on the machine."""
ROUTES = {("POST", "/v1/chat/completions"), ("GET", "/health")}
NEEDS_NO_KEY = {"/health"}
MAX_BODY = 4 * 2**20
"""Bytes of a request: many times a full conversation."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """An ASGI application that passes on what may reach `app`, and refuses the rest."""

    def __init__(self, app: App, *, key: str, port: int) -> None:
        if not key:
            raise ValueError(f"{KEY} is not set: the server answers nobody without a key.")
        self.app = app
        self.key = f"Bearer {key}".encode()
        self.hosts = {f"{name}:{port}".encode() for name in ("127.0.0.1", "localhost", "[::1]")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            status = self.refusal(scope)
            if status:
                await refuse(send, status)
            else:
                await self.app(scope, receive, send)
        else:  # a websocket, which nothing here uses
            await send({"type": "websocket.close", "code": 1008})

    def refusal(self, scope: Scope) -> int:
        """The HTTP status of a refusal; 0 for a request that may pass."""
        headers = dict(scope["headers"])
        if headers.get(b"host", b"").lower() not in self.hosts:
            return 421
        if (scope["method"], scope["path"]) not in ROUTES:
            return 404
        given = headers.get(b"authorization", b"")
        if scope["path"] not in NEEDS_NO_KEY and not hmac.compare_digest(given, self.key):
            return 401
        length = headers.get(b"content-length", b"0")
        # Without a length it could be of any size: our own requests have one.
        if not length.isdigit() or b"transfer-encoding" in headers:
            return 411
        return 413 if int(length) > MAX_BODY else 0


async def refuse(send: Send, status: int) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
