"""Who writes the answers of a campaign: policies of ours, and a server somewhere else."""

import json
import threading
import uuid
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from django.urls import reverse

from annotation.judge import candidates as live_candidates
from annotation.judge.candidates import AnswerReport, CandidateError
from annotation.models import DialogueCampaign
from tests.annotation.talking import new_campaign

pytestmark = pytest.mark.django_db


def test_a_campaign_that_names_no_policy_of_the_project_is_off_and_says_so(project, grace):
    """What an import or another version wrote may be no uid at all."""
    for name in ("no uid", str(uuid.uuid4())):
        campaign = new_campaign(project, grace, writing={"policies": [name]})
        assert live_candidates.candidates().serving(campaign).state == "off"


def test_two_policies_both_write_and_temperatures_differ(project, grace):
    writing = {"policies": ["a", "b"], "temperatures": [0.5, 1.0], "max_new_tokens": 9}
    campaign = new_campaign(project, grace, writing=writing)
    ways = set()
    for _ in range(40):
        writers = live_candidates.candidates().writers(campaign, 2)
        assert {writer.source for writer in writers} == {"policy a", "policy b"}
        ways.add(tuple((writer.source, writer.sampling["temperature"]) for writer in writers))
    assert len(ways) == 4  # any policy with any temperature, in any place


# --- A server somewhere else ----------------------------------------------------------------------


@contextmanager
def outside_server(pieces, *, status=200, end=True):
    """An OpenAI-compatible server on this machine; yields its address and the requests that it got."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            requests.append((self.path, self.headers["Authorization"], None))
            self.reply(json.dumps({"data": [{"id": "big-policy"}]}).encode())

        def do_POST(self):
            length = int(self.headers["Content-Length"])
            body = json.loads(self.rfile.read(length))
            requests.append((self.path, self.headers["Authorization"], body))
            events = [{"choices": [{"delta": {"content": piece}}]} for piece in pieces]
            if end:
                events.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
                events.append({"choices": [], "usage": {"completion_tokens": len(pieces)}})
            text = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
            text += "data: [DONE]\n\n" if end else ""
            self.reply(text.encode(), "text/event-stream")

        def reply(self, data, kind="application/json"):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", requests
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def outside(settings):
    settings.POLICY_SERVER_TOKEN = "sk-secret"

    @contextmanager
    def at(pieces=("Rinse", " it."), **given):
        with outside_server(pieces, **given) as (url, requests):
            settings.POLICY_SERVER_URL = url
            yield requests

    return at


def write_outside(project, grace, report=None):
    writing = {"policies": ["external:big-policy"], "max_new_tokens": 9}
    source = live_candidates.candidates()
    campaign = DialogueCampaign.objects.first() or new_campaign(project, grace, writing=writing)
    state = source.serving(campaign)
    [writer, _] = source.writers(campaign, 2)
    messages = [{"role": "user", "content": "Hello"}]
    return state, "".join(source.write(writer, messages, report or AnswerReport()))


def test_an_outside_server_answers_with_the_key_it_wants(outside, project, grace, client):
    report = AnswerReport()
    with outside() as requests:
        state, text = write_outside(project, grace, report)
        client.force_login(grace)
        page = client.get(reverse("campaigns", args=["apollo"]))
    assert state.is_ready
    assert (text, report.n_tokens) == ("Rinse it.", 2)
    path, key, body = requests[-1]
    assert (path, key) == ("/v1/chat/completions", "Bearer sk-secret")
    assert (body["model"], body["max_tokens"], body["stream"]) == ("big-policy", 9, True)
    assert b"big-policy" in page.content
    assert b"sk-secret" not in page.content


def test_an_outside_server_that_breaks_off_or_refuses(outside, project, grace):
    with outside(end=False), pytest.raises(CandidateError, match="stopped during its answer"):
        write_outside(project, grace)
    with outside(status=500), pytest.raises(CandidateError, match="can't be reached"):
        write_outside(project, grace)
    with pytest.raises(CandidateError, match="can't be reached"):
        write_outside(project, grace)  # it has gone altogether
