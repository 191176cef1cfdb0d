"""Policies that answer people: started, watched and stopped; and an outside server."""

import json
import os
import re
import signal
import threading
import time
import uuid
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from django.urls import reverse
from django.utils import timezone

from annotation.judge import candidates as seam
from annotation.judge.candidates import CandidateError, Told
from annotation.models import DialogueCampaign, Event
from annotation.protocols import PRESETS
from rlhf import serving
from rlhf.models import Checkpoint, PolicyServer
from rlhf.serving import Keeper, ServingError, health
from tests.annotation.talking import new_campaign

pytestmark = pytest.mark.django_db


@pytest.fixture
def policy(project, tmp_path):
    folder = tmp_path / "policy"
    folder.mkdir()
    (folder / "config.json").write_text('{"max_position_embeddings": 200, "eos_token_id": 1}')
    return Checkpoint.objects.create(
        project=project, kind="policy", name="base", path=str(folder), n_parameters=1000
    )


class Warm:
    """A first answer that came at once."""

    is_done, problem = True, ""

    def __init__(self, folder, port):
        pass


@pytest.fixture
def keeper(monkeypatch):
    """A keeper whose servers are small programs of ours: `answers` says whether they are well."""
    one = Keeper()
    monkeypatch.setattr(serving, "BEAT_SECONDS", 0)
    monkeypatch.setattr(serving, "command", lambda folder, port, **how: ["sleep", "60"])
    monkeypatch.setattr(serving, "answers", lambda port: True)
    monkeypatch.setattr(serving, "_WarmUp", Warm)
    yield one
    one.stop_all()


def row(policy):
    return PolicyServer.objects.get(checkpoint=policy)


def test_a_policy_is_started_answers_and_is_stopped(policy, keeper, grace):
    serving.want(policy, grace)
    assert health(row(policy)).state == "starting"
    keeper.look()
    keeper.look()
    server = row(policy)
    assert health(server).state == "ready"
    os.kill(server.process_id, 0)
    serving.unwant(policy, grace)
    keeper.look()
    assert health(row(policy)).state == "off"
    with pytest.raises(ProcessLookupError):
        os.kill(server.process_id, 0)
    verbs = list(Event.objects.order_by("pk").values_list("verb", flat=True))
    assert verbs == ["started serving", "stopped serving"]


def test_ready_means_that_it_has_answered_once(policy, keeper, grace, monkeypatch):
    monkeypatch.setattr(Warm, "is_done", False)
    serving.want(policy, grace)
    for _ in range(4):
        keeper.look()
    assert health(row(policy)).state == "starting"
    assert "warmed up" in health(row(policy)).sentence
    monkeypatch.setattr(Warm, "is_done", True)
    keeper.look()
    assert health(row(policy)).state == "ready"


def test_a_model_that_cant_answer_side_by_side_answers_in_turn(policy, keeper, grace, monkeypatch):
    ways = []

    def started(folder, port, *, in_turn):
        ways.append(in_turn)
        monkeypatch.setattr(Warm, "problem", "" if in_turn else "It broke off.")
        return ["sleep", "60"]

    monkeypatch.setattr(serving, "command", started)
    serving.want(policy, grace)
    for _ in range(4):
        keeper.look()
    assert ways == [False, True]
    assert health(row(policy)).state == "ready"
    assert "the second follows the first" in health(row(policy)).sentence


def test_a_model_that_cant_answer_at_all_fails_and_the_page_says_why(
    policy, keeper, grace, monkeypatch
):
    monkeypatch.setattr(Warm, "problem", "It broke off.")
    says = "echo 'no chat template'; exec sleep 60"
    monkeypatch.setattr(serving, "command", lambda folder, port, **how: ["sh", "-c", says])
    serving.want(policy, grace)
    for _ in range(16):
        keeper.look()
        time.sleep(0.05)
    assert health(row(policy)).state == "failed"
    assert row(policy).reason == "It could not answer: no chat template"


def test_what_is_served_draws_its_words(policy, keeper):
    serving.want(policy, None)
    folder = serving.prepare(row(policy))
    told = json.loads((folder / "generation_config.json").read_text())
    assert told == {"do_sample": True, "eos_token_id": 1}
    assert (folder / "config.json").is_symlink()


def test_an_encoder_decoder_is_not_served_and_the_page_says_why(policy, keeper):
    config = Path(policy.path) / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"is_encoder_decoder": True}))
    serving.want(policy, None)
    for _ in range(12):
        keeper.look()
    server = row(policy)
    assert health(server).state == "failed"
    assert "is an encoder-decoder" in server.reason


def test_a_server_that_dies_comes_back_and_fails_in_the_end(policy, keeper, monkeypatch):
    serving.want(policy, None)
    for _ in range(2):
        keeper.look()
    first = row(policy).process_id
    os.killpg(first, signal.SIGKILL)
    keeper.running[row(policy).pk].process.wait()
    keeper.look()  # sees it
    assert "started again" in health(row(policy)).sentence
    for _ in range(2):
        keeper.look()
    assert health(row(policy)).state == "ready"
    assert row(policy).process_id != first
    monkeypatch.setattr(
        serving, "command", lambda f, p, **how: ["sh", "-c", "echo no memory; exit 3"]
    )
    os.killpg(row(policy).process_id, signal.SIGKILL)
    for _ in range(12):
        keeper.look()
        time.sleep(0.05)
    server = row(policy)
    assert health(server).state == "failed"
    assert server.reason == "It ended with 3: no memory"
    serving.want(policy, None)  # an admin tries again
    assert row(policy).state == "off"


def test_a_missing_model_is_said_not_tried(policy, keeper):
    Checkpoint.objects.update(path="/nowhere/policy")
    serving.want(policy, None)
    keeper.look()
    assert health(row(policy)).state == "failed"
    assert "there is no model in /nowhere/policy" in row(policy).reason


def test_unused_it_sleeps_and_the_next_dialogue_wakes_it(policy, keeper, project, grace):
    campaign = new_campaign(project, grace, writing={"policies": [str(policy.uid)]})
    serving.want(policy, grace)
    for _ in range(2):
        keeper.look()
    source = seam.candidates()
    assert source.serving(campaign).is_ready
    PolicyServer.objects.update(used_at=timezone.now() - timedelta(hours=2))
    keeper.look()
    assert health(row(policy)).state == "asleep"
    assert not keeper.running
    assert source.serving(campaign).state == "starting"
    for _ in range(2):
        keeper.look()
    assert source.serving(campaign).is_ready


def test_a_sleeping_policy_wakes_only_where_there_is_room(policy, project, grace, settings):
    settings.POLICY_SERVERS_MAX = 1
    campaign = new_campaign(project, grace, writing={"policies": [str(policy.uid)]})
    PolicyServer.objects.create(checkpoint=policy, sleeps=True)
    other = Checkpoint.objects.create(project=project, kind="policy", name="b", path="x")
    serving.want(other, grace)
    assert seam.candidates().serving(campaign).state == "off"
    assert not PolicyServer.objects.get(checkpoint=policy).is_wanted
    serving.unwant(other, grace)
    assert seam.candidates().serving(campaign).state == "starting"


def test_without_a_keeper_the_page_says_what_to_start(policy, project, grace):
    campaign = new_campaign(project, grace, writing={"policies": [str(policy.uid)]})
    assert seam.candidates().serving(campaign).state == "off"
    serving.want(policy, grace)
    PolicyServer.objects.update(wanted_at=timezone.now() - timedelta(minutes=1))
    assert "serve_policies" in health(row(policy)).sentence
    said = seam.candidates().serving(campaign)
    assert said.state == "gone"
    assert "base" not in said.sentence


def test_two_keepers_never_run_one_policy_twice(policy, keeper):
    serving.want(policy, None)
    other = Keeper()
    other.name = "other:1"
    keeper.look()
    other.look()
    assert (len(keeper.running), len(other.running)) == (1, 0)
    PolicyServer.objects.update(seen_at=timezone.now() - timedelta(minutes=1))
    other.look()  # the first was not heard of for a minute
    keeper.look()
    assert (len(keeper.running), len(other.running)) == (0, 1)
    other.stop_all()


def test_only_so_many_at_once_and_only_policies(policy, settings):
    settings.POLICY_SERVERS_MAX = 1
    serving.want(policy, None)
    other = Checkpoint.objects.create(project=policy.project, kind="policy", name="b", path="x")
    with pytest.raises(ServingError, match="stop one first"):
        serving.want(other, None)
    other.kind = "reward_model"
    with pytest.raises(ServingError, match="not a policy"):
        serving.want(other, None)


def test_a_campaign_that_names_no_policy_of_the_project_is_off_and_says_so(project, grace):
    """What an import or another version wrote may be no uid at all."""
    for name in ("no uid", str(uuid.uuid4())):
        campaign = new_campaign(project, grace, writing={"policies": [name]})
        assert seam.candidates().serving(campaign).state == "off"


def test_two_policies_both_write_and_temperatures_differ(project, grace):
    writing = {"policies": ["a", "b"], "temperatures": [0.5, 1.0], "max_new_tokens": 9}
    campaign = new_campaign(project, grace, writing=writing)
    ways = set()
    for _ in range(40):
        writers = seam.candidates().writers(campaign, 2)
        assert {one.source for one in writers} == {"policy a", "policy b"}
        ways.add(tuple((one.source, one.sampling["temperature"]) for one in writers))
    assert len(ways) == 4  # any policy with any temperature, in any place


# --- The admin's page ---------------------------------------------------------------------------


def test_an_admin_opens_a_campaign_and_closes_it(client, grace, policy):
    client.force_login(grace)
    page = reverse("campaigns", args=["apollo"])
    form = {
        "act": "open",
        "name": "Kitchen talk",
        "kind": "helpful",
        "policies": [str(policy.uid)],
        "temperatures": "0.7, 1.2",
        "max_new_tokens": 64,
        "max_turns": 4,
        "licence": "CC0-1.0",
    }
    assert client.post(page, form).status_code == 422  # nobody signed it off
    assert client.post(page, {**form, "signed_off": "on", "temperatures": "9"}).status_code == 422
    assert DialogueCampaign.objects.count() == 0
    assert client.post(page, {**form, "signed_off": "on"}).status_code == 302
    campaign = DialogueCampaign.objects.get()
    assert campaign.writing == {
        "policies": [str(policy.uid)],
        "temperatures": [0.7, 1.2],
        "max_new_tokens": 64,
    }
    assert campaign.source.signed_off_by == grace
    assert b"Kitchen talk" in client.get(page).content
    client.post(page, {"act": "close", "campaign": campaign.pk})
    campaign.batch.refresh_from_db()
    assert campaign.batch.state == "closed"


def test_an_admin_says_what_is_asked_and_reads_what_cannot_be(client, grace, policy, project):
    client.force_login(grace)
    page = reverse("campaigns", args=["apollo"])
    form = {
        "act": "open",
        "name": "Kitchen talk",
        "kind": "helpful",
        "policies": [str(policy.uid)],
        "temperatures": "0.7",
        "max_new_tokens": 64,
        "max_turns": 4,
        "licence": "CC0-1.0",
        "signed_off": "on",
    }
    asks = re.findall(r'name="asks" value="([^"]*)"', client.get(page).content.decode())
    assert asks == ["hh-rlhf", "llama2-dialogue"]
    client.post(page, form | {"asks": "llama2-dialogue"})
    campaign = DialogueCampaign.objects.get()
    assert campaign.batch.rules == PRESETS["llama2-dialogue"].protocol
    assert client.post(page, form | {"asks": "llama2"}).status_code == 422
    # A project whose protocol has what a dialogue can't ask: told which part, and not asked without.
    project.interface, project.protocol = "pair", PRESETS["pair"].protocol.as_json()
    project.save()
    shown = client.get(page).content.decode()
    assert re.findall(r'name="asks" value="([^"]*)"', shown) == ["", "hh-rlhf", "llama2-dialogue"]
    refused = client.post(page, form | {"asks": ""})
    assert refused.status_code == 422
    told = "A live dialogue can&#x27;t ask for flags on answers"
    assert told in refused.content.decode()
    assert DialogueCampaign.objects.count() == 1
    project.protocol = PRESETS["safe-rlhf"].protocol.as_json()
    project.save()
    client.post(page, form | {"asks": ""})
    assert DialogueCampaign.objects.last().batch.rules == PRESETS["safe-rlhf"].protocol


def test_an_admin_starts_and_stops_a_policy_but_no_other_projects(client, grace, otto, policy):
    page = {"grace": reverse("campaigns", args=["apollo"])}
    client.force_login(grace)
    client.post(page["grace"], {"act": "start", "checkpoint": policy.pk})
    assert row(policy).is_wanted
    client.post(page["grace"], {"act": "stop", "checkpoint": policy.pk})
    assert not row(policy).is_wanted
    client.force_login(otto)
    said = {"act": "start", "checkpoint": policy.pk}
    assert client.post(reverse("campaigns", args=["soyuz"]), said).status_code == 404
    assert not row(policy).is_wanted


# --- A server somewhere else ----------------------------------------------------------------------


@contextmanager
def outside_server(pieces, *, status=200, end=True):
    """An OpenAI-compatible server on this machine; yields its address and what it was asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            asked.append((self.path, self.headers["Authorization"], None))
            self.reply(json.dumps({"data": [{"id": "big-policy"}]}).encode())

        def do_POST(self):
            length = int(self.headers["Content-Length"])
            body = json.loads(self.rfile.read(length))
            asked.append((self.path, self.headers["Authorization"], body))
            events = [{"choices": [{"delta": {"content": piece}}]} for piece in pieces]
            if end:
                events.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
                events.append({"choices": [], "usage": {"completion_tokens": len(pieces)}})
            text = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
            self.reply((text + ("data: [DONE]\n\n" if end else "")).encode())

        def reply(self, data):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def outside(settings):
    settings.POLICY_SERVER_TOKEN = "sk-secret"

    @contextmanager
    def at(pieces=("Rinse", " it."), **given):
        with outside_server(pieces, **given) as (url, asked):
            settings.POLICY_SERVER_URL = url
            yield asked

    return at


def write_outside(project, grace, told=None):
    writing = {"policies": ["external:big-policy"], "max_new_tokens": 9}
    source = seam.candidates()
    campaign = DialogueCampaign.objects.first() or new_campaign(project, grace, writing=writing)
    state = source.serving(campaign)
    [writer, _] = source.writers(campaign, 2)
    messages = [{"role": "user", "content": "Hello"}]
    return state, "".join(source.write(writer, messages, told or Told()))


def test_an_outside_server_answers_with_the_key_it_wants(outside, project, grace, client):
    told = Told()
    with outside() as asked:
        state, text = write_outside(project, grace, told)
        client.force_login(grace)
        page = client.get(reverse("campaigns", args=["apollo"]))
    assert state.is_ready
    assert (text, told.n_tokens) == ("Rinse it.", 2)
    path, key, body = asked[-1]
    assert (path, key) == ("/v1/chat/completions", "Bearer sk-secret")
    assert (body["model"], body["max_tokens"], body["stream"]) == ("big-policy", 9, True)
    assert b"big-policy" in page.content
    assert b"sk-secret" not in page.content


def test_an_outside_server_that_breaks_off_or_refuses(outside, project, grace):
    with outside(end=False), pytest.raises(CandidateError, match="in the middle"):
        write_outside(project, grace)
    with outside(status=500), pytest.raises(CandidateError, match="can't be reached"):
        write_outside(project, grace)
    with pytest.raises(CandidateError, match="can't be reached"):
        write_outside(project, grace)  # it has gone altogether
