"""A model is measured once for each device: begun by the page, done by a worker, kept for all projects."""

import json
import sys

import pytest
from django.urls import reverse
from django.utils import timezone

from rlhf.calibration import measure, measuring
from rlhf.models import Calibration, Job, Round, Worker
from rlhf.workers.next_job import run_next_job
from tests.rlhf.calibrations import FIGURES, MACHINE, calibrated
from tests.rlhf.machine import a_worker
from tests.rlhf.pages.browsing import page, text_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def machine(project, base):
    """A worker that has reported its machine, and the base round that its jobs belong to."""
    Round.objects.create(project=project, number=0, state="done", policy=base)
    worker = a_worker("gpu", "gpu")
    later = timezone.now() + timezone.timedelta(minutes=10)  # on a slow machine it stays online
    Worker.objects.filter(pk=worker.pk).update(machine=MACHINE, seen_at=later)
    return worker


def measured_by(figures):
    """A program in place of the stage that leaves these figures."""
    text = f"import json, pathlib, sys; pathlib.Path(sys.argv[1], 'result.json').write_text({json.dumps(json.dumps(figures))})"
    return lambda job, run_dir: [sys.executable, "-c", text, str(run_dir)]


def test_a_worker_measures_the_policy_and_the_estimate_uses_it(project, base, machine, grace):
    assert measuring(project).is_wanted
    job = measure(project, grace)
    assert measure(project, grace) is None, "it is being measured already"
    run_next_job("gpu", owner="hal", command=measured_by(FIGURES))
    job.refresh_from_db()
    assert job.state == Job.State.DONE, job.reason
    config = json.loads((job.run_dir / "config.json").read_text())
    assert config["policy"] == base.path
    prompts = (job.run_dir / "data" / "prompts.jsonl").read_text().splitlines()
    assert len(prompts) == 21, "all prompts of the project, as there are few"
    calibration = Calibration.objects.get()
    assert calibration.device == MACHINE["device"]
    base.refresh_from_db()
    assert base.n_parameters == FIGURES["model"]["n_parameters"]
    assert not measuring(project).is_wanted
    assert project.rounds.get().state == Round.State.DONE, "no round waits for it"


def test_it_is_measured_again_after_an_update_of_torch(project, base, machine):
    calibrated(base)
    assert not measuring(project).is_wanted
    newer = MACHINE | {"versions": "torch 2.14.0, transformers 5.24.0"}
    Worker.objects.filter(pk=machine.pk).update(machine=newer)
    assert measuring(project).is_wanted


def test_what_failed_is_not_begun_again_at_once(project, base, machine, grace):
    job = measure(project, grace)
    Job.objects.filter(pk=job.pk).update(state="failed", reason="No such model.")
    assert not measuring(project).is_wanted
    assert measuring(project).has_failed
    Job.objects.filter(pk=job.pk).update(created_at=timezone.now() - timezone.timedelta(hours=2))
    assert measuring(project).is_wanted


def test_nothing_is_measured_without_a_worker_that_has_reported_its_machine(project, base):
    Round.objects.create(project=project, number=0, state="done", policy=base)
    assert not measuring(project).is_wanted


def test_the_page_begins_the_measurement_and_follows_it(client, project, base, machine, grace):
    client.force_login(grace)
    address = reverse("measure_model", args=[project.slug])
    body = text_of(page(client, "launch", project.slug))
    assert f'hx-post="{address}" hx-vals=' in body
    assert not Job.objects.exists(), "looking at a page changes nothing"
    answer = client.post(address, headers={"HX-Request": "true"})
    assert "as soon as a worker is free" in text_of(answer)
    client.post(address, headers={"HX-Request": "true"})
    assert Job.objects.count() == 1, "the second request begins nothing"
    job = Job.objects.get()
    Job.objects.filter(pk=job.pk).update(
        state="running", progress={"done": 1, "total": 6, "note": "decoding"}
    )
    assert "device: decoding." in text_of(client.get(address, headers={"HX-Request": "true"}))
    Job.objects.filter(pk=job.pk).update(state="done")
    calibrated(base)
    body = text_of(client.get(address, headers={"HX-Request": "true"}))
    assert "The checks are made again" in body
    assert reverse("check_launch", args=[project.slug]) in body
    assert "measured in seconds on this device" in text_of(page(client, "launch", project.slug))


def test_without_scripts_a_button_begins_it(client, project, base, machine, grace):
    client.force_login(grace)
    answer = client.post(reverse("measure_model", args=[project.slug]))
    assert answer.status_code == 302
    assert Job.objects.count() == 1
