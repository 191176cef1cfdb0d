"""Policies that answer people are started, watched and stopped."""

import json
import os
import signal
import time
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from annotation.judge import candidates as live_candidates
from annotation.models import Event
from rlhf.models import Checkpoint, PolicyServer
from rlhf.serving import client, server_process
from rlhf.serving import keeper as keeper_module
from rlhf.serving.client import ServingError
from rlhf.serving.keeper import Keeper
from rlhf.serving.servers import health, start_serving, stop_serving
from tests.annotation.talking import new_campaign

pytestmark = pytest.mark.django_db


class Warm:
    """A first answer that came at once."""

    is_done, problem = True, ""

    def __init__(self, folder, port):
        pass


@pytest.fixture
def keeper(monkeypatch):
    """A keeper whose servers are small programs of ours: they count as healthy."""
    own = Keeper()
    monkeypatch.setattr(keeper_module, "STARTING_CHECK_SECONDS", 0)
    monkeypatch.setattr(server_process, "command", lambda folder, port, **how: ["sleep", "60"])
    monkeypatch.setattr(client, "is_healthy", lambda port: True)
    monkeypatch.setattr(keeper_module, "WarmUp", Warm)
    yield own
    own.stop_all()


def row(policy):
    return PolicyServer.objects.get(checkpoint=policy)


def test_a_policy_is_started_answers_and_is_stopped(policy, keeper, grace):
    start_serving(policy, grace)
    assert health(row(policy)).state == "starting"
    keeper.check_all()
    keeper.check_all()
    server = row(policy)
    assert health(server).state == "ready"
    os.kill(server.process_id, 0)
    stop_serving(policy, grace)
    keeper.check_all()
    assert health(row(policy)).state == "off"
    with pytest.raises(ProcessLookupError):
        os.kill(server.process_id, 0)
    verbs = list(Event.objects.order_by("pk").values_list("verb", flat=True))
    assert verbs == ["started serving", "stopped serving"]


def test_ready_means_that_it_has_answered_once(policy, keeper, grace, monkeypatch):
    monkeypatch.setattr(Warm, "is_done", False)
    start_serving(policy, grace)
    for _ in range(4):
        keeper.check_all()
    assert health(row(policy)).state == "starting"
    assert "warmed up" in health(row(policy)).sentence
    monkeypatch.setattr(Warm, "is_done", True)
    keeper.check_all()
    assert health(row(policy)).state == "ready"


def test_a_model_that_cant_answer_side_by_side_answers_in_turn(policy, keeper, grace, monkeypatch):
    ways = []

    def started(folder, port, *, in_turn):
        ways.append(in_turn)
        monkeypatch.setattr(Warm, "problem", "" if in_turn else "It broke off.")
        return ["sleep", "60"]

    monkeypatch.setattr(server_process, "command", started)
    start_serving(policy, grace)
    for _ in range(4):
        keeper.check_all()
    assert ways == [False, True]
    assert health(row(policy)).state == "ready"
    assert "the second follows the first" in health(row(policy)).sentence


def test_a_model_that_cant_answer_at_all_fails_and_the_page_says_why(
    policy, keeper, grace, monkeypatch
):
    monkeypatch.setattr(Warm, "problem", "It broke off.")
    says = "echo 'no chat template'; exec sleep 60"
    monkeypatch.setattr(server_process, "command", lambda folder, port, **how: ["sh", "-c", says])
    start_serving(policy, grace)
    for _ in range(16):
        keeper.check_all()
        time.sleep(0.05)
    assert health(row(policy)).state == "failed"
    assert row(policy).reason == "It could not answer: no chat template"


def test_what_is_served_draws_its_words(policy, keeper):
    start_serving(policy, None)
    folder = server_process.prepare_folder(row(policy))
    config = json.loads((folder / "generation_config.json").read_text())
    assert config == {"do_sample": True, "eos_token_id": 1}
    assert (folder / "config.json").is_symlink()


def test_an_encoder_decoder_is_not_served_and_the_page_says_why(policy, keeper):
    config = Path(policy.path) / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"is_encoder_decoder": True}))
    start_serving(policy, None)
    for _ in range(12):
        keeper.check_all()
    server = row(policy)
    assert health(server).state == "failed"
    assert "is an encoder-decoder" in server.reason


def test_a_server_that_dies_comes_back_and_fails_in_the_end(policy, keeper, monkeypatch):
    start_serving(policy, None)
    for _ in range(2):
        keeper.check_all()
    first = row(policy).process_id
    os.killpg(first, signal.SIGKILL)
    keeper.running[row(policy).pk].process.wait()
    keeper.check_all()  # sees it
    assert "started again" in health(row(policy)).sentence
    for _ in range(2):
        keeper.check_all()
    assert health(row(policy)).state == "ready"
    assert row(policy).process_id != first
    monkeypatch.setattr(
        server_process, "command", lambda f, p, **how: ["sh", "-c", "echo no memory; exit 3"]
    )
    os.killpg(row(policy).process_id, signal.SIGKILL)
    for _ in range(12):
        keeper.check_all()
        time.sleep(0.05)
    server = row(policy)
    assert health(server).state == "failed"
    assert server.reason == "It ended with 3: no memory"
    start_serving(policy, None)  # an admin tries again
    assert row(policy).state == "off"


def test_a_missing_model_is_said_not_tried(policy, keeper):
    Checkpoint.objects.update(path="/nowhere/policy")
    start_serving(policy, None)
    keeper.check_all()
    assert health(row(policy)).state == "failed"
    assert "there is no model in /nowhere/policy" in row(policy).reason


def test_unused_it_sleeps_and_the_next_dialogue_wakes_it(policy, keeper, project, grace):
    campaign = new_campaign(project, grace, writing={"policies": [str(policy.uid)]})
    start_serving(policy, grace)
    for _ in range(2):
        keeper.check_all()
    source = live_candidates.candidates()
    assert source.serving(campaign).is_ready
    PolicyServer.objects.update(used_at=timezone.now() - timedelta(hours=2))
    keeper.check_all()
    assert health(row(policy)).state == "asleep"
    assert not keeper.running
    assert source.serving(campaign).state == "starting"
    for _ in range(2):
        keeper.check_all()
    assert source.serving(campaign).is_ready


def test_a_sleeping_policy_wakes_only_where_there_is_room(policy, project, grace, settings):
    settings.POLICY_SERVERS_MAX = 1
    campaign = new_campaign(project, grace, writing={"policies": [str(policy.uid)]})
    PolicyServer.objects.create(checkpoint=policy, sleeps=True)
    other = Checkpoint.objects.create(project=project, kind="policy", name="b", path="x")
    start_serving(other, grace)
    assert live_candidates.candidates().serving(campaign).state == "off"
    assert not PolicyServer.objects.get(checkpoint=policy).is_wanted
    stop_serving(other, grace)
    assert live_candidates.candidates().serving(campaign).state == "starting"


def test_without_a_keeper_the_page_says_what_to_start(policy, project, grace):
    campaign = new_campaign(project, grace, writing={"policies": [str(policy.uid)]})
    assert live_candidates.candidates().serving(campaign).state == "off"
    start_serving(policy, grace)
    PolicyServer.objects.update(wanted_at=timezone.now() - timedelta(minutes=1))
    assert "serve_policies" in health(row(policy)).sentence
    serving = live_candidates.candidates().serving(campaign)
    assert serving.state == "gone"
    assert "base" not in serving.sentence


def test_two_keepers_never_run_one_policy_twice(policy, keeper):
    start_serving(policy, None)
    other = Keeper()
    other.name = "other:1"
    keeper.check_all()
    other.check_all()
    assert (len(keeper.running), len(other.running)) == (1, 0)
    PolicyServer.objects.update(seen_at=timezone.now() - timedelta(minutes=1))
    other.check_all()  # the first has been silent for a minute
    keeper.check_all()
    assert (len(keeper.running), len(other.running)) == (0, 1)
    other.stop_all()


def test_only_so_many_at_once_and_only_policies(policy, settings):
    settings.POLICY_SERVERS_MAX = 1
    start_serving(policy, None)
    other = Checkpoint.objects.create(project=policy.project, kind="policy", name="b", path="x")
    with pytest.raises(ServingError, match="stop one first"):
        start_serving(other, None)
    other.kind = "reward_model"
    with pytest.raises(ServingError, match="not a policy"):
        start_serving(other, None)
