"""Mission control, as each of the cast sees it."""

from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from annotation.models import Project
from rlhf.models import Job, Round, Worker
from tests.rlhf.factories import (
    new_job,
    new_round,
    passed,
)
from tests.rlhf.pages.browsing import page, text_of

pytestmark = pytest.mark.django_db


def test_an_empty_demo_teaches_and_offers_grace_the_base_policy(client, project, grace):
    Project.objects.filter(pk=project.pk).update(is_demo=True)
    client.force_login(grace)
    body = text_of(page(client, "rounds", project.slug))
    assert "There is no base policy yet" in body
    assert "Build the base policy" in body
    assert "No round yet" in body


def test_rita_sees_what_is_missing_but_no_button(client, project, rita):
    client.force_login(rita)
    body = text_of(page(client, "rounds", project.slug))
    assert "There is no model yet" in body
    assert "Choose your model" not in body
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
    assert "no worker is running" in body
    assert "none running" in body


def test_work_whose_worker_died_is_said_to_wait(client, mission, project, grace):
    job = Job.objects.filter(pk=mission["running"].pk)
    Worker.objects.update(queues="default")
    client.force_login(grace)
    job.update(lease_until=timezone.now() + timedelta(seconds=9))
    assert "no worker for the queue" not in text_of(page(client, "rounds", project.slug))
    job.update(lease_until=timezone.now() - timedelta(seconds=1))
    body = text_of(page(client, "rounds", project.slug))
    assert "Jobs are waiting, but no worker for the queue gpu is running" in body
    number = mission["running"].round.number
    assert "Its worker was lost" in text_of(page(client, "round", project.slug, number))


def test_mission_control_asks_a_bounded_number_of_queries(
    client, mission, project, rita, django_assert_max_num_queries
):
    for number in range(10, 25):
        round = new_round(project, number, start=mission["policies"][0])
        passed(round, generate=3, annotate=4)
        new_job(round, "generate")
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
