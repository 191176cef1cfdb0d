"""The stream of an answer ends where its reader or its server ends it."""

import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from annotation.judge.candidates import AnswerReport, CandidateError
from rlhf.serving import client

CHUNK = b'data: {"choices": [{"delta": {"content": "drip"}}]}\n\n'


@contextmanager
def endless_server(pause):
    """A server that writes a piece, pauses so many seconds, and so on until it is left alone."""
    left_alone = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            try:
                while True:
                    self.wfile.write(CHUNK)
                    time.sleep(pause)
            except OSError:
                left_alone.set()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", left_alone
    finally:
        server.shutdown()
        server.server_close()


def test_pieces_come_as_they_are_written_and_closing_the_iterator_ends_the_connection():
    with endless_server(0.05) as (url, left_alone):
        pieces = client.stream_completion(url, {"model": "m"}, AnswerReport())
        assert [next(pieces), next(pieces)] == ["drip", "drip"]
        pieces.close()
        assert left_alone.wait(5)


def test_a_server_that_falls_silent_has_broken_off(monkeypatch):
    monkeypatch.setattr(client, "ANSWER_SECONDS", 0.5)
    client._client.cache_clear()
    try:
        with endless_server(3) as (url, _):
            pieces = client.stream_completion(url, {"model": "m"}, AnswerReport())
            assert next(pieces) == "drip"
            with pytest.raises(CandidateError, match="stopped during its answer"):
                next(pieces)
    finally:
        client._client.cache_clear()
