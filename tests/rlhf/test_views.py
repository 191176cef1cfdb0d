"""Mission control, pre-flight, a round and the dashboard, as each of the cast sees them."""

import json
import re
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from annotation.models import Batch, Event
from rlhf import rounds, tasks
from rlhf.models import Checkpoint, Job, Round, Worker
from rlhf.training import rundir
from rlhf.training.rundir.reports import write_progress
from tests.factories import ComparisonFactory, PromptFactory, SourceFactory
from tests.rlhf.factories import (
    CONFIG,
    checkpoint,
    evaluation,
    measured,
    new_job,
    new_round,
    passed,
    ppo_samples,
    rm_result,
    score,
)

pytestmark = pytest.mark.django_db

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    '<div hx-get="/logout" hx-trigger="load">',
    "{{ settings.SECRET_KEY }}{% load %}",
    "\u202egnp.exe",
]


@pytest.fixture
def awake(monkeypatch):
    """What workers were told to look at; no broker is asked."""
    told = []
    monkeypatch.setattr(tasks, "hint", told.append)
    return told


@pytest.fixture
def ready(project, grace):
    """A measured base policy and enough prompts to launch a tiny round."""
    base_round = new_round(project, 0)
    base = checkpoint(project, "base policy", round=base_round, state="promoted")
    base.n_bytes = 0  # a model on a hub: nothing has to be on this disk
    base.save()
    base_round.policy = base
    base_round.save()
    measured(base_round, base, 0)
    source = SourceFactory(project=project)
    for split, n in (("train", 12), ("eval", 3), ("heldout", 3)):
        for _ in range(n):
            PromptFactory(project=project, source=source, split=split)
    return project


def page(client, name, *arguments, **query):
    return client.get(reverse(name, args=arguments), query)


def text_of(answer):
    return re.sub(r"\s+", " ", answer.content.decode())


# --- Mission control -----------------------------------------------------------------------------


def test_an_empty_project_teaches_and_offers_grace_the_base_policy(client, project, grace):
    client.force_login(grace)
    body = text_of(page(client, "rounds", project.slug))
    assert "There is no base policy yet" in body
    assert "Build the base policy" in body
    assert "No round yet" in body


def test_rita_sees_what_is_missing_but_no_button(client, project, rita):
    client.force_login(rita)
    body = text_of(page(client, "rounds", project.slug))
    assert "There is no base policy yet" in body
    assert "<form" not in body.split("<main")[1]


def test_building_the_base_is_one_click_and_a_second_click_changes_nothing(
    client, project, grace, awake, django_capture_on_commit_callbacks
):
    client.force_login(grace)
    for _ in range(2):
        with django_capture_on_commit_callbacks(execute=True):
            answer = client.post(reverse("build_base", args=[project.slug]))
        assert answer.status_code == 302
    assert Round.objects.filter(project=project, number=0).count() == 1
    assert Job.objects.filter(project=project).count() == 1
    assert "gpu" in awake
    assert "base policy" in text_of(page(client, "rounds", project.slug))


def test_every_round_has_a_line_with_its_stages_newest_first(client, mission, project, rita):
    client.force_login(rita)
    body = text_of(page(client, "rounds", project.slug))
    places = [body.index(f"/rounds/{number}/") for number in (3, 2, 1, 0)]
    assert places == sorted(places)
    assert "9 / 14 steps" in body
    assert "about 31 s left" in body
    assert body.count("promoted") >= 2


def test_polling_goes_on_while_something_runs_and_stops_by_itself(client, mission, project, rita):
    client.force_login(rita)
    part = client.get(
        reverse("rounds", args=[project.slug]),
        headers={"HX-Request": "true", "HX-Target": "mission"},
    )
    body = part.content.decode()
    assert "<html" not in body
    assert 'hx-trigger="every 2s"' in body
    Job.objects.update(state="done", ended_at=timezone.now())
    Round.objects.filter(number=3).update(state="done", ended_at=timezone.now())
    for name, arguments in (("rounds", [project.slug]), ("round", [project.slug, 3])):
        assert "hx-trigger" not in page(client, name, *arguments).content.decode()


def test_a_failed_job_says_why_until_a_later_round_moves_on(client, mission, project, grace):
    third = mission["rounds"][3]
    Round.objects.filter(pk=third.pk).update(state="failed", failed_stage="ppo")
    Job.objects.filter(pk=mission["running"].pk).update(state="failed", reason="Out of memory.")
    client.force_login(grace)
    assert "Out of memory." in text_of(page(client, "rounds", project.slug))
    new_round(project, 4, state="generate", start=mission["policies"][-1])
    assert "Out of memory." not in text_of(page(client, "rounds", project.slug))


def test_work_that_waits_without_a_worker_is_the_first_thing_said(client, mission, project, grace):
    Job.objects.filter(pk=mission["running"].pk).update(state="queued")
    Worker.objects.update(seen_at=timezone.now() - timedelta(minutes=5))
    client.force_login(grace)
    body = text_of(page(client, "rounds", project.slug))
    assert "no worker is alive" in body
    assert "none alive" in body


def test_work_whose_worker_died_is_said_to_wait(client, mission, project, grace):
    job = Job.objects.filter(pk=mission["running"].pk)
    Worker.objects.update(queues="default")
    client.force_login(grace)
    job.update(lease_until=timezone.now() + timedelta(seconds=9))
    assert "no worker of the queue" not in text_of(page(client, "rounds", project.slug))
    job.update(lease_until=timezone.now() - timedelta(seconds=1))
    body = text_of(page(client, "rounds", project.slug))
    assert "Work is waiting and no worker of the queue gpu is alive to take it" in body
    number = mission["running"].round.number
    assert "Its worker was lost" in text_of(page(client, "round", project.slug, number))


def test_mission_control_asks_a_bounded_number_of_queries(
    client, mission, project, rita, django_assert_max_num_queries
):
    for number in range(10, 25):
        one = new_round(project, number, start=mission["policies"][0])
        passed(one, generate=3, annotate=4)
        new_job(one, "generate")
    client.force_login(rita)
    with django_assert_max_num_queries(18):
        page(client, "rounds", project.slug)


def test_otto_ada_and_strangers_find_nothing(client, mission, project, otto, ada):
    for person in (otto, ada):
        client.force_login(person)
        for name, arguments in (
            ("rounds", [project.slug]),
            ("round", [project.slug, 1]),
            ("metrics", [project.slug, 1, "ppo"]),
            ("samples", [project.slug, 1]),
            ("dashboard", [project.slug]),
        ):
            assert page(client, name, *arguments).status_code == 404


# --- Pre-flight ------------------------------------------------------------------------------------


def fields(body):
    """What a browser would send from the launch form as it was served."""
    found = {}
    for tag in re.findall(r"<(?:input|textarea)[^>]*>", body):
        name = re.search(r'name="([^"]+)"', tag)
        value = re.search(r'value="([^"]*)"', tag)
        if name and 'type="checkbox"' not in tag and name[1] != "csrfmiddlewaretoken":
            found[name[1]] = value[1] if value else ""
        elif name and "checked" in tag:
            found[name[1]] = "on"
    for name, inner in re.findall(r'<select name="([^"]+)"[^>]*>(.*?)</select>', body, re.DOTALL):
        chosen = re.search(r'value="([^"]*)" selected', inner)
        if chosen:
            found[name] = chosen[1]
    return found


def launch_form(client, project):
    answer = page(client, "launch", project.slug)
    assert answer.status_code == 200
    return fields(answer.content.decode().split("<main")[1])


def cautions(answer_or_project):
    config = rounds.default_config(answer_or_project)
    return [c.key for c in rounds.preflight(answer_or_project, config) if c.verdict == "caution"]


def test_preflight_shows_each_check_and_the_estimate_on_the_button(client, ready, grace):
    client.force_login(grace)
    body = text_of(page(client, "launch", ready.slug))
    for check in rounds.preflight(ready, rounds.default_config(ready)):
        assert check.question in body
    assert re.search(r"Launch round 1: about \d+ (s|min), [\d.]+ Wh", body)


def test_grace_launches_and_a_second_click_finds_the_round_there(
    client, ready, grace, awake, django_capture_on_commit_callbacks
):
    client.force_login(grace)
    sent = launch_form(client, ready) | {"act": "launch", "acknowledged": cautions(ready)}
    sent["ppo.steps"] = "5"
    for _ in range(2):
        with django_capture_on_commit_callbacks(execute=True):
            answer = client.post(reverse("launch", args=[ready.slug]), sent)
        assert answer.status_code == 302, text_of(answer)
        assert answer["Location"] == reverse("round", args=[ready.slug, 1])
    one = Round.objects.get(project=ready, number=1)
    assert one.config["ppo"]["steps"] == 5
    assert one.created_by == grace
    assert Round.objects.filter(project=ready).count() == 2


@pytest.mark.parametrize("number", ["-1", "one", "9" * 30, ""])
def test_a_round_number_that_makes_no_sense_is_no_error(client, ready, grace, number):
    client.force_login(grace)
    sent = launch_form(client, ready) | {"act": "launch", "number": number}
    assert client.post(reverse("launch", args=[ready.slug]), sent).status_code == 422
    assert page(client, "round", ready.slug, 10**30).status_code == 404


def test_a_caution_that_nobody_acknowledged_holds_the_launch_and_keeps_what_was_typed(
    client, ready, grace
):
    client.force_login(grace)
    sent = launch_form(client, ready) | {"act": "launch", "ppo.steps": "7"}
    assert cautions(ready), "18 prompts are fewer than the preset asks for"
    answer = client.post(reverse("launch", args=[ready.slug]), sent)
    assert answer.status_code == 422
    assert "Acknowledge this" in text_of(answer)
    assert 'value="7"' in text_of(answer)
    assert not Round.objects.filter(project=ready, number=1).exists()


def test_a_setting_out_of_range_is_named_and_nothing_is_launched(client, ready, grace):
    client.force_login(grace)
    sent = launch_form(client, ready) | {"act": "launch", "acknowledged": cautions(ready)}
    answer = client.post(reverse("launch", args=[ready.slug]), sent | {"ppo.clip": "3"})
    assert answer.status_code == 422
    assert "less than or equal to 1" in text_of(answer)
    sent["ppo.minibatch_size"] = "100000"
    answer = client.post(reverse("launch", args=[ready.slug]), sent)
    assert "must not exceed the rollout" in text_of(answer)
    assert not Round.objects.filter(project=ready, number=1).exists()


def test_checking_again_launches_nothing(client, ready, grace):
    client.force_login(grace)
    sent = launch_form(client, ready) | {"act": "check", "round.ranking_prompts": "5"}
    answer = client.post(reverse("launch", args=[ready.slug]), sent)
    assert answer.status_code == 200
    assert "5 of 5" in text_of(answer)
    assert not Round.objects.filter(project=ready, number=1).exists()


def test_what_differs_from_the_last_round_is_marked_before_launch(client, ready, grace):
    config = rounds.default_config(ready)
    config["ppo"]["steps"] = 99
    new_round(ready, 1, start=ready.checkpoints.first(), config=config)
    client.force_login(grace)
    sent = launch_form(client, ready) | {"act": "check", "ppo.steps": "98"}
    body = text_of(client.post(reverse("launch", args=[ready.slug]), sent))
    assert "▲ was 99" in body
    assert body.count("▲ was") == 1


def test_what_is_as_in_the_last_round_is_not_marked_lists_included(client, ready, grace):
    new_round(ready, 1, start=ready.checkpoints.first(), config=rounds.default_config(ready))
    client.force_login(grace)
    assert text_of(page(client, "launch", ready.slug)).count("▲") == 1, "only what the sign means"


def test_a_setting_that_does_nothing_is_marked_and_refused_beside_its_field(client, ready, grace):
    client.force_login(grace)
    only = "only under kl_controller &#x27;adaptive&#x27;"
    assert text_of(page(client, "launch", ready.slug)).count(only) == 3
    sent = launch_form(client, ready) | {"act": "launch", "acknowledged": cautions(ready)}
    answer = client.post(reverse("launch", args=[ready.slug]), sent | {"ppo.kl_target": "3"})
    assert answer.status_code == 422
    assert "kl_target belongs to kl_controller &#x27;adaptive&#x27;" in text_of(answer)
    assert '<details class="fold" id="fold-ppo" open>' in answer.content.decode()
    assert not Round.objects.filter(project=ready, number=1).exists()
    together = {"act": "check", "ppo.kl_target": "3", "ppo.kl_controller": "adaptive"}
    answer = client.post(reverse("launch", args=[ready.slug]), sent | together)
    assert answer.status_code == 200
    assert only not in text_of(answer)


def test_what_does_nothing_in_an_older_round_is_offered_at_its_default_and_marked(
    client, ready, grace
):
    config = rounds.default_config(ready)
    config["ppo"]["kl_target"] = 9.0
    new_round(ready, 1, start=ready.checkpoints.first(), config=config)
    client.force_login(grace)
    body = text_of(page(client, "launch", ready.slug))
    assert "▲ was 9.0" in body
    assert "belongs to" not in body
    assert rounds.default_config(ready)["ppo"]["kl_target"] == 6.0


def test_a_setting_that_an_older_version_had_does_not_block_the_next_launch(client, ready, grace):
    config = rounds.default_config(ready)
    config["round"]["annotators"] = 3
    config["ppo"]["gone"] = True
    new_round(ready, 1, start=ready.checkpoints.first(), config=config)
    client.force_login(grace)
    assert "is not a setting" not in text_of(page(client, "launch", ready.slug))
    assert not any(
        c.verdict == "no-go" for c in rounds.preflight(ready, rounds.default_config(ready))
    )


def test_every_setting_of_a_round_has_its_sentence_on_the_form():
    from rlhf.forms import ROUND_HELP

    assert set(ROUND_HELP) == set(rounds.ROUND_SETTINGS)


def test_only_admins_prepare_a_round(client, ready, rita, vera):
    for person in (rita, vera):
        client.force_login(person)
        assert page(client, "launch", ready.slug).status_code == 404
        assert "Prepare round" not in text_of(page(client, "rounds", ready.slug))


# --- A round ---------------------------------------------------------------------------------------


def test_the_running_stage_is_in_focus_with_its_log_and_curves(client, mission, project, rita):
    client.force_login(rita)
    body = text_of(page(client, "round", project.slug, 3))
    assert f'data-curves="{reverse("metrics", args=[project.slug, 3, "ppo"])}"' in body
    assert "step 9 of 14" in body
    assert "about 31 s left" in body
    assert "Cancel this round" not in body


def test_the_metrics_endpoint_gives_only_what_is_new(client, mission, project, rita):
    client.force_login(rita)
    first = page(client, "metrics", project.slug, 3, "ppo").json()
    assert (first["last"], first["running"], len(first["rows"])) == (9, True, 9)
    again = page(client, "metrics", project.slug, 3, "ppo", epoch=1, after=9).json()
    assert (again["rows"], again["reset"]) == ([], False)
    assert page(client, "metrics", project.slug, 2, "ppo").json()["running"] is False
    assert page(client, "metrics", project.slug, 3, "evaluate").json()["rows"] == []
    assert page(client, "metrics", project.slug, 3, "ppo", after="x").status_code == 200


def test_energy_is_time_by_watts_and_says_that_it_is_an_estimate(
    client, mission, project, rita, settings
):
    settings.MACHINE_WATTS = 36.0
    client.force_login(rita)
    # The factory's jobs took 70 seconds: 70 / 3600 h x 36 W = 0.7 Wh.
    assert "about 0.70 Wh" in text_of(page(client, "round", project.slug, 2, stage="ppo"))


def test_what_a_stage_found_is_told_in_words(client, mission, project, rita):
    client.force_login(rita)
    body = text_of(page(client, "round", project.slug, 2, stage="ppo"))
    assert "<dt>how it ended</dt><dd>all steps taken</dd>" in body
    assert "<dt>KL at the end</dt><dd>7.80 <small>nats</small></dd>" in body


def test_samples_are_side_by_side_with_their_words_marked(client, mission, project, rita):
    client.force_login(rita)
    body = text_of(page(client, "round", project.slug, 2, stage="ppo"))
    assert "<ins>" in body
    assert "<del>" in body
    assert "How do I repot a fern?" in body


def test_the_configuration_is_a_table_that_marks_what_changed(client, mission, project, rita):
    client.force_login(rita)
    body = text_of(page(client, "round", project.slug, 2))
    assert "▲ was 13" in body
    assert "Rollouts, each followed by its updates." in body
    assert "marked where it differs from Round 1" in body


def test_the_reward_models_accuracy_comes_with_interval_warning_and_people(
    client, mission, project, rita
):
    client.force_login(rita)
    body = text_of(page(client, "round", project.slug, 2, stage="reward_model"))
    assert "people with one another" in body
    assert "78 % [75, 81 %], n = 812" in body
    assert "Only 28 held-out pairs" in body
    assert "perfectly calibrated" in body


def test_the_snapshots_counts_are_told_in_words(client, mission, project, rita):
    snapshot = mission["rounds"][2].snapshot
    snapshot.counts = {"judgments": 48, "pairs": {"helpfulness": 267, "safety": 169}, "none": 0}
    snapshot.save()
    client.force_login(rita)
    body = text_of(page(client, "round", project.slug, 2, stage="snapshot"))
    assert "<dt>Pairs</dt><dd>helpfulness 267, safety 169</dd>" in body
    assert "{" not in body.split('class="facts"')[1].split("</dl>")[0]


def test_the_page_of_frozen_data_lists_the_models_that_learnt_from_it(
    client, mission, project, rita, ada
):
    second = mission["rounds"][2]
    model = checkpoint(project, "helpfulness of <b>round 2</b>", kind="reward_model", round=second)
    model.snapshot = second.snapshot
    model.save()
    client.force_login(rita)
    body = text_of(page(client, "snapshot", project.slug, second.snapshot.version))
    assert "helpfulness of &lt;b&gt;round 2&lt;/b&gt;" in body
    assert f'<a href="{second.get_absolute_url()}">Round 2</a>' in body
    client.force_login(ada)  # annotators stay blind to models
    url = reverse("snapshot", args=[project.slug, second.snapshot.version])
    assert client.get(url).status_code == 404


def test_every_score_of_the_evaluation_has_interval_n_and_the_rubrics_badge(
    client, mission, project, rita
):
    client.force_login(rita)
    body = text_of(page(client, "round", project.slug, 2, stage="evaluate"))
    assert "2 % <small>[0, 7 %], n = 150</small>" in body
    assert '<span class="badge simulated">rubric (simulated)</span>' in body


def test_the_audit_tells_who_did_what_of_this_round_only(client, mission, project, grace):
    Event.record(project, grace, "launched", "Round 20")
    Event.record(project, None, "failed", "ppo of Round 2", reason="It ran out of memory.")
    client.force_login(grace)
    body = text_of(page(client, "round", project.slug, 2))
    assert "It ran out of memory." in body
    assert "Round 20" not in body


def test_a_round_asks_a_bounded_number_of_queries(
    client, mission, project, rita, django_assert_max_num_queries
):
    client.force_login(rita)
    with django_assert_max_num_queries(14):
        page(client, "round", project.slug, 2, stage="evaluate")


def test_hostile_texts_are_inert_wherever_a_round_shows_them(client, mission, project, grace):
    third = mission["rounds"][3]
    job = mission["running"]
    hostile = " ".join(HOSTILE)
    third.config = {**CONFIG, "ppo": {**CONFIG["ppo"], "critic": hostile}}
    third.failed_stage, third.state, third.verdict_note = "ppo", "failed", hostile
    third.save()
    Job.objects.filter(pk=job.pk).update(state="failed", reason=hostile, owner=hostile[:120])
    (job.run_dir / rundir.LOG).write_text(hostile + "\x1b[31m\x00")
    ppo_samples(job.run_dir, [(hostile, hostile, hostile + " more")])
    write_progress(job.run_dir, done=1, total=2, unit=hostile, note=hostile)
    second = mission["rounds"][2]
    evaluate = second.jobs.get(stage="evaluate")
    evaluation(evaluate.run_dir, texts=[hostile] * 16)
    score(second, evaluate, second.policy, "gold", "score", 0.5, 0.1, category=HOSTILE[0])
    Event.record(project, grace, "cancelled", third, reason=hostile)
    client.force_login(grace)
    for name, arguments, query in (
        ("rounds", [project.slug], {}),
        ("round", [project.slug, 3], {}),
        ("round", [project.slug, 3], {"stage": HOSTILE[0]}),
        ("samples", [project.slug, 2], {"q": "<script>", "vs": "base"}),
        ("dashboard", [project.slug], {"judge": HOSTILE[1]}),
    ):
        answer = page(client, name, *arguments, **query)
        body = answer.content.decode()
        assert answer.status_code == 200
        assert "<script>alert" not in body
        assert "<img src=x" not in body
        assert '<div hx-get="/logout"' not in body
        assert "\x1b" not in body
        assert "\x00" not in body
        assert "style=" not in body, "the content security policy refuses inline styles"


# --- Acts --------------------------------------------------------------------------------------------


@pytest.fixture
def annotating(ready):
    one = new_round(ready, 1, state="annotate", start=ready.checkpoints.first())
    one.batch = Batch.objects.create(project=ready, name="Round 1", state="open")
    one.save()
    passed(one, generate=9, annotate=None)
    for judged in (1, 1, 0):
        ComparisonFactory(batch=one.batch, judged=judged, taken=judged, is_free=not judged)
    return one


def post(client, name, one, **data):
    return client.post(reverse(name, args=[one.project.slug, one.number]), data)


def test_closing_a_batch_early_says_how_much_is_missing_and_closes_once(
    client, annotating, grace, awake, django_capture_on_commit_callbacks
):
    client.force_login(grace)
    body = text_of(page(client, "round", annotating.project.slug, 1))
    assert "1 judgment is missing" in body
    assert "Close the batch early" in body
    for _ in range(2):
        with django_capture_on_commit_callbacks(execute=True):
            assert post(client, "close_annotation", annotating).status_code == 302
    annotating.refresh_from_db()
    assert annotating.state == "snapshot"
    assert annotating.jobs.filter(stage="snapshot").count() == 1
    assert awake == ["default"]


def test_simulated_annotators_are_offered_on_demo_projects_only(client, annotating, grace):
    client.force_login(grace)
    offer = "Let simulated annotators judge the rest"
    assert offer not in text_of(page(client, "round", annotating.project.slug, 1))
    annotating.project.is_demo = True
    annotating.project.save()
    body = text_of(page(client, "round", annotating.project.slug, 1))
    assert offer in body
    assert "badge simulated" in body


def test_simulation_is_refused_outside_the_demo(client, annotating, grace, monkeypatch):
    asked = []
    monkeypatch.setattr(tasks.simulate_batch, "apply_async", lambda *a, **k: asked.append(a))
    client.force_login(grace)
    post(client, "simulate", annotating)
    assert asked == []
    annotating.project.is_demo = True
    annotating.project.save()
    post(client, "simulate", annotating)
    assert asked == [((annotating.pk,),)]


@pytest.fixture
def measured_round(ready):
    start = Checkpoint.objects.get(project=ready, name="base policy")
    one = new_round(ready, 1, state="verdict", start=start)
    policy = checkpoint(ready, "round 1 policy", round=one, parent=start)
    one.policy = policy
    one.save()
    passed(one, evaluate=20, verdict=None)
    measured(one, policy, 1)
    return one


def test_the_verdict_page_shows_the_gates_proposal_with_its_reasons(client, measured_round, grace):
    client.force_login(grace)
    body = text_of(page(client, "round", measured_round.project.slug, 1))
    _, reasons = rounds.propose_verdict(measured_round)
    assert "The gate proposes:" in body
    assert reasons
    assert reasons[0].split(":")[0] in body


def test_promoting_ends_the_round_once(client, measured_round, grace):
    client.force_login(grace)
    for verdict in ("promoted", "refused"):
        post(client, "give_verdict", measured_round, verdict=verdict, note="Safer.")
    measured_round.refresh_from_db()
    assert (measured_round.state, measured_round.verdict) == ("done", "promoted")
    assert measured_round.verdict_by == grace
    assert Event.objects.filter(verb="promoted").count() == 1


def test_deciding_against_the_gate_needs_a_reason_and_says_so(client, measured_round, grace):
    client.force_login(grace)
    proposal, _ = rounds.propose_verdict(measured_round)
    other = "refused" if proposal == "promoted" else "promoted"
    answer = client.post(
        reverse("give_verdict", args=[measured_round.project.slug, 1]),
        {"verdict": other, "note": " "},
        follow=True,
    )
    assert "say in a note why" in text_of(answer)
    measured_round.refresh_from_db()
    assert measured_round.state == "verdict"


def test_cancelling_twice_cancels_once_and_a_retry_goes_on(
    client, mission, project, grace, awake, django_capture_on_commit_callbacks
):
    third = mission["rounds"][3]
    client.force_login(grace)
    for _ in range(2):
        assert post(client, "cancel_round", third).status_code == 302
    third.refresh_from_db()
    assert (third.state, third.failed_stage) == ("cancelled", "ppo")
    assert Event.objects.filter(verb="cancelled").count() == 1
    stopping = text_of(page(client, "round", project.slug, 3))
    assert "Try the stage again" in stopping
    assert "Stopping: it writes its checkpoint first" in stopping
    assert 'hx-trigger="every 2s"' in stopping, "until the job has really ended"
    Job.objects.filter(pk=mission["running"].pk).update(state="cancelled")
    for _ in range(2):
        with django_capture_on_commit_callbacks(execute=True):
            post(client, "retry_stage", third)
    third.refresh_from_db()
    assert third.state == "ppo"
    assert third.jobs.filter(stage="ppo", state="queued").count() == 1


def test_rita_may_not_act_and_a_click_without_a_token_is_refused(mission, project, rita, grace):
    from django.test import Client

    third = mission["rounds"][3]
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(grace)
    assert post(strict, "cancel_round", third).status_code == 403
    client = Client()
    client.force_login(rita)
    assert post(client, "cancel_round", third).status_code == 404
    third.refresh_from_db()
    assert third.state == "ppo"


def test_reward_models_alone_are_trained_from_chosen_batches(
    client, annotating, grace, awake, django_capture_on_commit_callbacks
):
    project = annotating.project
    Round.objects.filter(pk=annotating.pk).update(state="done")
    client.force_login(grace)
    assert "2 judgments" in text_of(page(client, "reward_round", project.slug))
    address = reverse("reward_round", args=[project.slug])
    assert "Choose at least one batch" in text_of(client.post(address))
    client.post(address, {"batches": [annotating.batch.pk]})
    newest = Round.objects.filter(project=project).order_by("-number").first()
    assert newest.plan == Round.REWARD_ONLY_PLAN
    assert newest.config["round"]["batches"] == [annotating.batch.pk]


# --- The dashboard and the rows behind it -------------------------------------------------------------


def test_the_dashboard_says_the_finding_and_links_every_number_to_its_answers(
    client, mission, project, rita
):
    client.force_login(rita)
    body = text_of(page(client, "dashboard", project.slug))
    assert "Safety rose in round 2; no clear change in helpfulness" in body
    assert 'class="badge simulated"' in body
    assert "the corner to be in" in body
    samples = reverse("samples", args=[project.slug, 2])
    assert f'href="{samples}?temperature=1.0&amp;axis=safety"' in body
    assert page(client, "samples", project.slug, 2, temperature="1.0").status_code == 200


def test_judge_and_temperature_are_in_the_address(client, mission, project, rita):
    client.force_login(rita)
    body = text_of(page(client, "dashboard", project.slug, judge="model", temperature="0.3"))
    assert "own scale" in body
    assert re.search(r'judge=model&amp;temperature=0\.3" aria-current="true"', body)


def test_an_empty_dashboard_teaches(client, project, rita):
    client.force_login(rita)
    assert "Nothing is measured yet" in text_of(page(client, "dashboard", project.slug))


def test_every_model_is_listed_with_its_lineage_and_figures(client, mission, project, rita, grace):
    second = mission["rounds"][2]
    model = checkpoint(project, "round 2 <reward> model", kind="reward_model", round=second)
    model.snapshot, model.metrics = second.snapshot, {"train": rm_result()["train"]}
    model.save()
    client.force_login(rita)
    body = text_of(page(client, "models", project.slug))
    assert "round 2 &lt;reward&gt; model" in body
    assert "right on 83 % [80, 86 %], n = 812 held-out safety pairs" in body
    assert "preferred to the base 86 % [81, 91 %], n = 150 (rubric (simulated)" in body
    assert f'href="{second.get_absolute_url()}"' in body
    assert f'<a href="#model-{mission["policies"][1].uid}">round-1</a>' in body
    assert "Where it is" not in body, "paths are for those who run rounds"
    client.force_login(grace)
    assert "<code>models/round-2</code>" in text_of(page(client, "models", project.slug))


def test_a_promotion_taken_back_lets_the_next_round_start_from_the_policy_before(
    client, mission, project, grace
):
    _, first, second = mission["policies"]
    client.force_login(grace)
    assert "Take the promotion back" in text_of(page(client, "models", project.slug))
    url = reverse("retire_policy", args=[project.slug])
    answer = client.post(url, {"model": second.uid, "note": " "}, follow=True)
    assert "Say in a sentence why" in text_of(answer)
    assert rounds.start_policy(project) == second
    answer = client.post(url, {"model": second.uid, "note": "It flatters."}, follow=True)
    assert "the next round starts from round-1" in text_of(answer)
    assert rounds.start_policy(project) == first
    event = Event.objects.get(verb="took back")
    assert (event.actor, event.data["note"]) == (grace, "It flatters.")
    answer = client.post(url, {"model": second.uid, "note": "Again."}, follow=True)
    assert "is not promoted" in text_of(answer), "a second click changes nothing"
    assert "no such model" in text_of(client.post(url, {"model": "x", "note": "y"}, follow=True))


def test_the_only_promoted_policy_stays(client, ready, grace):
    only = rounds.start_policy(ready)
    with pytest.raises(rounds.RoundError, match="the only one"):
        rounds.retire_policy(only, "Away with it.", grace)
    client.force_login(grace)
    assert "Take the promotion back" not in text_of(page(client, "models", ready.slug))


def test_a_project_without_models_says_where_the_first_comes_from(client, project, rita):
    client.force_login(rita)
    assert "No model yet" in text_of(page(client, "models", project.slug))


def test_each_panel_can_be_taken_away_as_csv(client, mission, project, rita):
    client.force_login(rita)
    answer = page(client, "panel_csv", project.slug, "win_rates", judge="gold")
    assert answer["Content-Type"].startswith("text/csv")
    assert "attachment" in answer["Content-Disposition"]
    assert answer.content.decode().splitlines()[2].startswith("R2,0.86,")
    assert page(client, "panel_csv", project.slug, "nonsense").status_code == 404


def test_the_answers_are_filtered_and_paged(client, mission, project, rita):
    client.force_login(rita)
    everything = page(client, "samples", project.slug, 2)
    assert "64 of 64 answers" in text_of(everything)
    assert len(everything.context["page"].object_list) == 24
    harmful = page(client, "samples", project.slug, 2, risk="harmful", temperature="0.3")
    assert "8 of 64 answers" in text_of(harmful)
    worst = page(client, "samples", project.slug, 2, axis="safety").context["page"]
    found = [s.scores["safety"] for s in worst]
    assert found == sorted(found)
    assert "No idea." in text_of(page(client, "samples", project.slug, 2, vs="base"))
    assert "No answer fits" in text_of(page(client, "samples", project.slug, 2, q="zebra"))
    assert page(client, "samples", project.slug, 2, page="999").status_code == 200


# --- The API --------------------------------------------------------------------------------------------


def test_rita_reads_rounds_scores_jobs_and_metrics(client, mission, project, rita):
    client.force_login(rita)
    base = f"/api/v1/projects/{project.slug}"
    numbers = [row["number"] for row in client.get(f"{base}/rounds/").json()["results"]]
    assert numbers == [3, 2, 1, 0]
    rows = client.get(
        f"{base}/scores/", {"round": 2, "judge": "gold", "metric": "safety", "temperature": 1.0}
    ).json()["results"]
    assert [(r["value"], r["n"], r["policy"]) for r in rows] == [(0.94, 150, "round-2")]
    job = mission["running"]
    assert client.get(f"{base}/jobs/{job.uid}/").json()["stage"] == "ppo"
    news = client.get(f"{base}/jobs/{job.uid}/metrics/", {"epoch": 1, "after": 7}).json()
    assert [row["step"] for row in news["rows"]] == [8, 9]
    assert client.get(f"{base}/scores/", {"round": "two"}).status_code == 400
    assert client.post(f"{base}/rounds/3/cancel/").status_code == 404


def test_grace_launches_and_cancels_over_the_api(client, ready, grace, awake):
    client.force_login(grace)
    base = f"/api/v1/projects/{ready.slug}/rounds/"

    def launch(**body):
        return client.post(base, json.dumps(body), content_type="application/json")

    refused = launch()
    assert refused.status_code == 409
    assert "Acknowledge" in refused.json()["detail"]
    made = launch(acknowledged=cautions(ready), config={"ppo": {"steps": 3}})
    assert made.status_code == 201, made.json()
    assert made.json()["config"]["ppo"]["steps"] == 3
    assert launch(acknowledged=cautions(ready)).status_code == 409
    assert client.post(f"{base}1/cancel/").json()["state"] == "cancelled"
    assert client.post(f"{base}1/retry/").json()["state"] == "generate"
