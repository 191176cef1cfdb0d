"""Pre-flight: the checks, the configuration and the launch."""

import re

import pytest
from django.urls import reverse
from django.utils import timezone

from annotation.models import Event
from rlhf.models import Checkpoint, Round, Worker
from rlhf.preflight import preflight
from rlhf.round_config import default_config
from tests.rlhf.factories import (
    new_round,
)
from tests.rlhf.pages.browsing import launch_form, page, text_of, warnings

pytestmark = pytest.mark.django_db


def test_preflight_shows_each_check_and_the_estimate_on_the_button(client, ready, grace):
    client.force_login(grace)
    body = text_of(page(client, "launch", ready.slug))
    for check in preflight(ready, default_config(ready)):
        assert check.question in body
    assert re.search(r"Launch round 1: about [\d.]+ (s|min|h), [\d.]+ Wh", body)


def test_grace_launches_and_a_second_click_finds_the_round_there(
    client, ready, grace, awake, django_capture_on_commit_callbacks
):
    client.force_login(grace)
    sent = launch_form(client, ready) | {"acknowledged": warnings(ready)}
    sent["ppo.steps"] = "5"
    for _ in range(2):
        with django_capture_on_commit_callbacks(execute=True):
            answer = client.post(reverse("launch", args=[ready.slug]), sent)
        assert answer.status_code == 302, text_of(answer)
        assert answer["Location"] == reverse("round", args=[ready.slug, 1])
    round = Round.objects.get(project=ready, number=1)
    assert round.config["ppo"]["steps"] == 5
    assert round.created_by == grace
    assert Round.objects.filter(project=ready).count() == 2


@pytest.mark.parametrize("number", ["-1", "one", "9" * 30, ""])
def test_a_round_number_that_makes_no_sense_is_no_error(client, ready, grace, number):
    client.force_login(grace)
    sent = launch_form(client, ready) | {"number": number}
    assert client.post(reverse("launch", args=[ready.slug]), sent).status_code == 422
    assert page(client, "round", ready.slug, 10**30).status_code == 404


def test_a_warning_that_nobody_acknowledged_holds_the_launch_and_keeps_what_was_typed(
    client, ready, grace
):
    client.force_login(grace)
    sent = launch_form(client, ready) | {"ppo.steps": "7"}
    assert warnings(ready), "18 prompts are fewer than the preset asks for"
    answer = client.post(reverse("launch", args=[ready.slug]), sent)
    assert answer.status_code == 422
    assert "Acknowledge this" in text_of(answer)
    assert 'value="7"' in text_of(answer)
    assert not Round.objects.filter(project=ready, number=1).exists()


def test_a_setting_out_of_range_is_named_and_nothing_is_launched(client, ready, grace):
    client.force_login(grace)
    sent = launch_form(client, ready) | {"acknowledged": warnings(ready)}
    answer = client.post(reverse("launch", args=[ready.slug]), sent | {"ppo.loss.clip": "3"})
    assert answer.status_code == 422
    assert "less than or equal to 1" in text_of(answer)
    sent["ppo.optimizer.minibatch_size"] = "100000"
    answer = client.post(reverse("launch", args=[ready.slug]), sent)
    assert "must not exceed the rollout" in text_of(answer)
    assert not Round.objects.filter(project=ready, number=1).exists()


def test_checking_again_launches_nothing(client, ready, grace):
    client.force_login(grace)
    sent = launch_form(client, ready) | {"round.ranking_prompts": "5"}
    answer = client.post(reverse("check_launch", args=[ready.slug]), sent)
    assert answer.status_code == 200
    assert "5 of 5" in text_of(answer)
    assert not Round.objects.filter(project=ready, number=1).exists()


@pytest.mark.parametrize("act", ["check", "launch"])
def test_a_page_that_was_open_during_an_update_launches_nothing(client, ready, grace, act):
    """Its settings have other names, and its check has the address of the launch."""
    client.force_login(grace)
    sent = launch_form(client, ready) | {"acknowledged": warnings(ready), "act": act}
    answer = client.post(reverse("launch", args=[ready.slug]), sent)
    assert "This page was outdated" in text_of(answer)
    assert not Round.objects.filter(project=ready, number=1).exists()


def test_what_differs_from_the_last_round_is_marked_before_launch(client, ready, grace):
    config = default_config(ready)
    config["ppo"]["steps"] = 99
    new_round(ready, 1, start=ready.checkpoints.first(), config=config)
    client.force_login(grace)
    sent = launch_form(client, ready) | {"ppo.steps": "98"}
    body = text_of(client.post(reverse("check_launch", args=[ready.slug]), sent))
    assert "▲ was 99" in body
    assert body.count("▲ was") == 1


def test_what_is_as_in_the_last_round_is_not_marked_lists_included(client, ready, grace):
    new_round(ready, 1, start=ready.checkpoints.first(), config=default_config(ready))
    client.force_login(grace)
    assert text_of(page(client, "launch", ready.slug)).count("▲") == 1, "only what the sign means"


def test_a_setting_that_does_nothing_is_marked_and_refused_beside_its_field(client, ready, grace):
    client.force_login(grace)
    only = "requires kl.controller = adaptive"
    assert text_of(page(client, "launch", ready.slug)).count(only) == 3
    sent = launch_form(client, ready) | {"acknowledged": warnings(ready)}
    answer = client.post(reverse("launch", args=[ready.slug]), sent | {"ppo.kl.target": "3"})
    assert answer.status_code == 422
    assert "kl.target requires kl.controller = adaptive" in text_of(answer)
    assert '<details class="fold" id="fold-ppo" open>' in answer.content.decode()
    assert not Round.objects.filter(project=ready, number=1).exists()
    together = {"ppo.kl.target": "3", "ppo.kl.controller": "adaptive"}
    answer = client.post(reverse("check_launch", args=[ready.slug]), sent | together)
    assert answer.status_code == 200
    assert only not in text_of(answer)


def test_what_does_nothing_in_an_older_round_is_offered_at_its_default_and_marked(
    client, ready, grace
):
    config = default_config(ready)
    config["ppo"]["kl"]["target"] = 9.0
    new_round(ready, 1, start=ready.checkpoints.first(), config=config)
    client.force_login(grace)
    body = text_of(page(client, "launch", ready.slug))
    assert "▲ was 9.0" in body
    assert "leave it at" not in body
    assert default_config(ready)["ppo"]["kl"]["target"] == 6.0


def test_a_setting_that_an_older_version_had_does_not_block_the_next_launch(client, ready, grace):
    config = default_config(ready)
    config["round"]["annotators"] = 3
    config["ppo"]["gone"] = True
    new_round(ready, 1, start=ready.checkpoints.first(), config=config)
    client.force_login(grace)
    assert "is not a setting" not in text_of(page(client, "launch", ready.slug))
    assert not any(c.verdict == "no-go" for c in preflight(ready, default_config(ready)))


def test_only_admins_prepare_a_round(client, ready, rita, vera):
    for person in (rita, vera):
        client.force_login(person)
        assert page(client, "launch", ready.slug).status_code == 404
        assert "Prepare round" not in text_of(page(client, "rounds", ready.slug))


def test_ten_settings_come_first_for_the_model_and_device_and_what_changed_is_listed(
    client, ready, grace
):
    new_round(ready, 1, config=default_config(ready))
    client.force_login(grace)
    body = text_of(page(client, "launch", ready.slug))
    first = body.split('id="setting-search"')[0].split("These ten settings matter most")[1]
    assert first.count("data-setting=") == 10
    assert "a model of 1.05 million parameters on a CPU" in first
    assert 'data-setting="reward_model.epochs"' in first
    assert "Nothing: every setting is as in Round 1." in body
    assert f'href="{reverse("own_model", args=[ready.slug])}"' in body, (
        "where a person looks for it"
    )
    sent = launch_form(client, ready) | {"ppo.kl.weight": "0.5"}
    answer = text_of(client.post(reverse("check_launch", args=[ready.slug]), sent))
    assert "<code>ppo.kl.weight</code>" in answer
    assert "→ <b>0.5</b>" in answer
    assert 'data-setting="ppo.kl.weight" data-changed' in answer
    policy = Checkpoint.objects.current_policy(ready)
    Checkpoint.objects.filter(pk=policy.pk).update(n_parameters=7_000_000_000)
    large = text_of(page(client, "launch", ready.slug)).split('id="setting-search"')[0]
    assert 'data-setting="ppo.lora.rank"' in large
    assert 'data-setting="reward_model.epochs"' not in large


def test_opening_the_page_is_nobodys_act_although_it_begins_a_measurement(
    client, ready, grace, awake, django_capture_on_commit_callbacks
):
    Worker.objects.create(
        name="lab", queues="gpu", machine={"device": "cpu", "kind": "cpu"}, seen_at=timezone.now()
    )
    client.force_login(grace)
    body = page(client, "launch", ready.slug).content.decode()
    assert "begun" in body
    assert not Event.objects.filter(verb="asked to measure").exists(), "a GET records nothing"
    address = reverse("measure_model", args=[ready.slug])
    with django_capture_on_commit_callbacks(execute=True):
        client.post(address, {"begun": "by the page"}, headers={"HX-Request": "true"})
    assert Event.objects.get(verb="asked to measure").actor is None
