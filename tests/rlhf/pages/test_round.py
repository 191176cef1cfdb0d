"""A round's page: the stage in focus, its log, curves, samples and configuration."""

import pytest
from django.urls import reverse

from annotation.models import Event
from rlhf.models import Job
from rlhf.training import rundir
from rlhf.training.rundir.reports import write_progress
from tests.rlhf.factories import (
    CONFIG,
    checkpoint,
    evaluation,
    ppo_samples,
    score,
)
from tests.rlhf.pages.browsing import page, text_of

pytestmark = pytest.mark.django_db


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    '<div hx-get="/logout" hx-trigger="load">',
    "{{ settings.SECRET_KEY }}{% load %}",
    "\u202egnp.exe",
]


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


def test_the_figures_of_a_stage_have_their_names_and_units(client, mission, project, rita):
    client.force_login(rita)
    body = text_of(page(client, "round", project.slug, 2, stage="ppo"))
    assert "<dt>stop reason</dt><dd>all steps done</dd>" in body
    assert "<dt>KL at the end</dt><dd>7.80 <small>nats</small></dd>" in body


def test_samples_are_side_by_side_with_their_words_marked(client, mission, project, rita):
    client.force_login(rita)
    body = text_of(page(client, "round", project.slug, 2, stage="ppo"))
    assert "<ins>" in body
    assert "<del>" in body
    assert "How do I repot a fern?" in body


def test_most_responses_cut_off_is_a_caution_in_every_stage_that_has_some(
    client, mission, project, rita
):
    second = mission["rounds"][2]
    client.force_login(rita)
    unfinished = {"value": 0.81, "ci": [0.66, 0.9], "n": 40}
    results = {
        "generate": {"unfinished": unfinished},
        "ppo": {"unfinished": unfinished},
        "evaluate": {"responses": {"1.0": {"unfinished_rate": unfinished}, "0.3": {}}},
    }
    for stage, result in results.items():
        job = second.newest_job(stage)
        before = text_of(page(client, "round", project.slug, 2, stage=stage))
        assert "without an end" not in before
        rundir.reports.write_result(job.run_dir, result)
        body = text_of(page(client, "round", project.slug, 2, stage=stage))
        assert "81 % of the responses reached their token limit without an end" in body
        assert "(81 % [66, 90 %], n = 40)" in body
    body = text_of(page(client, "round", project.slug, 2, stage="ppo"))
    assert "no_eos_score (-2)" in body


def test_a_response_that_was_cut_off_is_marked_before_and_after(client, mission, project, rita):
    client.force_login(rita)
    body = text_of(page(client, "round", project.slug, 2, stage="ppo"))
    marked = [part for part in body.split('class="side"')[1:] if ">cut off<" in part]
    assert len(marked) == 1
    assert "<b>before</b>" in marked[0]


def test_the_configuration_is_a_table_that_marks_what_changed(client, mission, project, rita):
    client.force_login(rita)
    body = text_of(page(client, "round", project.slug, 2))
    assert "▲ was 13" in body
    assert "Rollouts, each followed by its updates." in body
    assert "▲ differs from Round 1" in body


def test_the_reward_models_accuracy_comes_with_interval_warning_and_people(
    client, mission, project, rita
):
    client.force_login(rita)
    body = text_of(page(client, "round", project.slug, 2, stage="reward_model"))
    assert "human agreement" in body
    assert "78 % [75, 81 %], n = 812" in body
    assert "Only 28 held-out pairs" in body
    assert "perfectly calibrated" in body


def test_the_snapshots_counts_are_told_in_words(client, mission, project, rita):
    snapshot = mission["rounds"][2].snapshot
    snapshot.counts = {
        "judgments": 48,
        "pairs": {"helpfulness": 267, "safety": 169},
        "guidelines": {"1": 1718},
        "left_out": {"heldout": 4, "not_signed_off": 0, "excluded": 0, "overruled": 2},
        "none": 0,
    }
    snapshot.save()
    client.force_login(rita)
    body = text_of(page(client, "round", project.slug, 2, stage="snapshot"))
    assert "<dt>Pairs</dt><dd>helpfulness 267, safety 169</dd>" in body
    assert "<dt>Guidelines</dt><dd>version 1: 1,718 judgments</dd>" in body
    assert "<dd>4 on held-out prompts, 2 superseded by review</dd>" in body
    assert "not signed off" not in body
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
    with django_assert_max_num_queries(22):
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


def test_a_phase_of_unknown_length_is_named_instead_of_only_starting(
    client, mission, project, rita
):
    job = mission["running"]
    write_progress(job.run_dir, done=0, total=0, unit="", note="loading the models")
    client.force_login(rita)
    for name, arguments in (("round", [project.slug, 3]), ("rounds", [project.slug])):
        body = text_of(page(client, name, *arguments))
        assert "Loading the models" in body
        assert "Starting" not in body
