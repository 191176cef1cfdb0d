"""The buttons of a round's page: each act happens once, and only admins may."""

import html
import json

import pytest
from django.urls import reverse

from annotation.judge.assignment import next_assignment
from annotation.models import Event
from rlhf import rounds
from rlhf.models import Checkpoint, Job, Round
from rlhf.verdict import propose_verdict
from rlhf.workers import tasks
from tests.rlhf.factories import new_job, new_round, passed
from tests.rlhf.pages.browsing import page, post, text_of

pytestmark = pytest.mark.django_db


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
    calls = []
    monkeypatch.setattr(tasks.simulate_batch, "apply_async", lambda *a, **k: calls.append(a))
    client.force_login(grace)
    post(client, "simulate", annotating)
    assert calls == []
    annotating.project.is_demo = True
    annotating.project.save()
    post(client, "simulate", annotating)
    assert calls == [((annotating.pk,),)]


def test_the_verdict_page_shows_the_gates_proposal_with_its_reasons(client, measured_round, grace):
    client.force_login(grace)
    body = text_of(page(client, "round", measured_round.project.slug, 1))
    reasons = propose_verdict(measured_round).reasons
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


def test_the_proposal_stays_on_the_round_with_every_figure_after_the_decision(
    client, measured_round, grace, rita
):
    client.force_login(grace)
    reasons = propose_verdict(measured_round).reasons
    post(client, "give_verdict", measured_round, verdict="refused", note="It is too curt.")
    measured_round.scores.all().delete()  # a later evaluation would replace them
    client.force_login(rita)
    project = measured_round.project
    body = text_of(page(client, "round", project.slug, 1, stage="verdict"))
    for words in (f"by {grace}", "It is too curt.", "The gate proposed to promote", *reasons):
        assert words in html.unescape(body)
    round = client.get(f"/api/v1/projects/{project.slug}/rounds/1/").json()
    assert (round["verdict"], round["verdict_by"]) == ("refused", "grace")
    evidence = round["verdict_evidence"]
    assert (evidence["verdict"], evidence["judge"]) == ("promoted", "gold")
    assert [finding["sentence"] for finding in evidence["findings"]] == reasons
    assert {"win_rate_vs_previous"} <= {finding["metric"] for finding in evidence["findings"]}


def test_a_round_that_was_decided_before_evidence_was_kept_shows_what_its_scores_say(
    client, measured_round, rita
):
    Round.objects.filter(pk=measured_round.pk).update(state="done", verdict="promoted")
    client.force_login(rita)
    body = text_of(page(client, "round", measured_round.project.slug, 1, stage="verdict"))
    assert "The gate proposed to promote" in body
    assert "did not keep the proposal" in body


def test_deciding_against_the_gate_needs_a_reason_and_says_so(client, measured_round, grace):
    client.force_login(grace)
    proposal = propose_verdict(measured_round).verdict
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
    assert "Retry the stage" in stopping
    assert "Stopping after the checkpoint" in stopping
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


@pytest.fixture
def in_doubt(ready):
    """A round that waits, because its reward models are no better than chance."""
    start = Checkpoint.objects.get(project=ready, name="base policy")
    round = new_round(ready, 1, state="reward_model", start=start)
    passed(round, generate=9, annotate=60, snapshot=1, reward_model=None)
    chance = {"accuracy": 0.52, "accuracy_ci": [0.42, 0.62], "n": 60}
    job = new_job(round, "reward_model", metrics={"train": {"helpfulness": chance}})
    rounds.advance(job)
    round.refresh_from_db()
    return round


def test_reward_models_in_doubt_wait_for_an_admin_who_says_why_they_may_be_used(
    client, in_doubt, grace, rita, awake, django_capture_on_commit_callbacks
):
    slug = in_doubt.project.slug
    client.force_login(rita)
    seen = text_of(page(client, "round", slug, 1))
    assert "The reward models are in doubt" in seen
    assert "52 % [42, 62 %], n = 60 pairs" in seen
    assert "An admin decides" in seen
    assert "awaiting decision" in seen
    assert post(client, "continue_in_doubt", in_doubt, note="Mine.").status_code == 404
    client.force_login(grace)
    assert "reward models are in doubt" in text_of(page(client, "rounds", slug))
    body = text_of(page(client, "round", slug, 1))
    assert "Train them again" in body
    assert body.count("hx-morph-skip") >= 2, "what grace types stays when the page refreshes"
    post(client, "continue_in_doubt", in_doubt, note="")
    in_doubt.refresh_from_db()
    assert in_doubt.open_hold
    for note in ("A <b>rehearsal</b>.", "Sent twice."):
        with django_capture_on_commit_callbacks(execute=True):
            post(client, "continue_in_doubt", in_doubt, note=note)
    in_doubt.refresh_from_db()
    assert in_doubt.state == "ppo"
    assert in_doubt.jobs.filter(stage="ppo").count() == 1
    later = text_of(page(client, "round", slug, 1))
    assert "grace let this round go on with reward models in doubt" in later
    assert "“A &lt;b&gt;rehearsal&lt;/b&gt;.”" in later
    assert "Sent twice" not in later


def test_reward_models_in_doubt_are_trained_again_from_the_page_and_over_the_api(
    client, in_doubt, grace, rita, awake, django_capture_on_commit_callbacks
):
    client.force_login(grace)
    answer = client.post(
        reverse("retrain", args=[in_doubt.project.slug, 1]),
        {"epochs": "none", "rankings_per_batch": 16, "learning_rate": 0.0005},
        follow=True,
    )
    assert "epochs: Enter a whole number" in text_of(answer)
    with django_capture_on_commit_callbacks(execute=True):
        post(client, "retrain", in_doubt, epochs=6, rankings_per_batch=4, learning_rate=0.0005)
    in_doubt.refresh_from_db()
    assert in_doubt.config["reward_model"]["epochs"] == 6
    assert in_doubt.jobs.filter(stage="reward_model").count() == 2
    assert "had reward models in doubt trained again" in text_of(
        page(client, "round", in_doubt.project.slug, 1)
    )
    again = in_doubt.jobs.filter(stage="reward_model").latest("pk")
    again.metrics, again.state = {"train": {"helpfulness": {"accuracy": None}}}, "done"
    again.save()
    rounds.advance(again)
    base = f"/api/v1/projects/{in_doubt.project.slug}/rounds/1"
    held = client.get(f"{base}/").json()["holds"]
    assert [hold["decision"] for hold in held] == ["retrained", ""]

    def say(act, body):
        return client.post(f"{base}/{act}/", json.dumps(body), content_type="application/json")

    assert say("retrain", {"settings": {"moon": 1}}).status_code == 409
    assert say("continue", {}).status_code == 400
    client.force_login(rita)
    assert say("continue", {"note": "Mine."}).status_code == 404
    client.force_login(grace)
    with django_capture_on_commit_callbacks(execute=True):
        gone_on = say("continue", {"note": "The safety axis is not used."}).json()
    assert gone_on["state"] == "ppo"
    assert gone_on["holds"][1]["by"] == "grace"


def test_who_holds_the_last_comparisons_is_said_and_they_can_be_taken_back(
    client, annotating, grace, rita, ada
):
    slug, batch = annotating.project.slug, annotating.batch
    held = next_assignment(ada, annotating.project)
    client.force_login(rita)
    body = text_of(page(client, "round", slug, 1))
    assert "holds 1 comparison" in body
    assert ">ada<" not in body, "researchers see no names"
    address = reverse("batch_take_back", args=[slug, batch.pk])
    assert client.post(address, {"person": "ada"}).status_code == 404
    client.force_login(grace)
    body = text_of(page(client, "round", slug, 1))
    assert "The last judgment is with the people who hold a comparison now" in body
    assert "<b>ada</b> holds 1 comparison since" in body
    assert " left<" not in body
    back = annotating.get_absolute_url()
    answer = client.post(address, {"person": "ada", "next": back}, follow=True)
    assert answer.redirect_chain[0][0] == back
    assert "1 comparison is taken back from ada" in text_of(answer)
    held.refresh_from_db()
    assert held.state == "expired"
    again = client.post(address, {"person": "ada", "next": "//evil.example/"}, follow=True)
    assert "ada holds nothing in this batch any more." in text_of(again)
    assert again.redirect_chain[0][0] == reverse("batch", args=[slug, batch.pk])
    assert Event.objects.filter(verb="took back comparisons from", target="ada").count() == 1
