"""The embedded policy server answers this product and nobody else on the machine."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from rlhf.training.server_guard import MAX_BODY, Guard

CHAT = ("POST", "/v1/chat/completions")


def status_of(method, path, **headers):
    """What a request with these headers gets: 200 if it reaches the server behind the guard."""
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        sent.append(message)

    given = {"host": "127.0.0.1:8001", "content-length": "10", **headers}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in given.items() if v],
    }
    # In a thread of its own: browser tests leave an event loop in this one.
    with ThreadPoolExecutor() as pool:
        pool.submit(asyncio.run, Guard(app, key="right", port=8001)(scope, None, send)).result()
    return sent[0]["status"]


@pytest.mark.parametrize(
    ("request_line", "headers", "status"),
    [
        (CHAT, {"authorization": "Bearer right"}, 200),
        (("GET", "/health"), {}, 200),
        (CHAT, {}, 401),
        (CHAT, {"authorization": "Bearer wrong"}, 401),
        (CHAT, {"authorization": "right"}, 401),
        # A page of another site whose name was bound to 127.0.0.1.
        (CHAT, {"authorization": "Bearer right", "host": "evil.example:8001"}, 421),
        (("GET", "/health"), {"host": "evil.example"}, 421),
        (("GET", "/health"), {"host": ""}, 421),
        # Routes that load, unload or list models, and those that nothing here uses.
        (("POST", "/load_model"), {"authorization": "Bearer right"}, 404),
        (("POST", "/reset"), {"authorization": "Bearer right"}, 404),
        (("GET", "/v1/models"), {"authorization": "Bearer right"}, 404),
        (("POST", "/v1/completions"), {"authorization": "Bearer right"}, 404),
        (("OPTIONS", "/v1/chat/completions"), {"authorization": "Bearer right"}, 404),
        (CHAT, {"authorization": "Bearer right", "content-length": str(MAX_BODY + 1)}, 413),
        (CHAT, {"authorization": "Bearer right", "transfer-encoding": "chunked"}, 411),
    ],
)
def test_only_what_the_product_asks_passes(request_line, headers, status):
    assert status_of(*request_line, **headers) == status


def test_a_server_without_a_key_does_not_start():
    with pytest.raises(ValueError, match="key"):
        Guard(None, key="", port=1)
