"""What a round will take, by what has run before."""

from datetime import timedelta

import pytest
from django.utils import timezone

from rlhf.computing_cost import round_cost
from rlhf.models import Job, Round, Worker
from rlhf.round_config import default_config
from tests.rlhf.calibrations import MACHINE, calibrated
from tests.rlhf.machine import a_worker, checks

pytestmark = pytest.mark.django_db


def ran(project, stage, seconds, config, **metrics):
    """A job of the base round that took so many seconds."""
    round, _ = Round.objects.get_or_create(
        project=project,
        number=0,
        defaults={
            "state": "done",
            "config": config,
            "policy": project.checkpoints.first(),
        },
    )
    now = timezone.now()
    return Job.objects.create(
        project=project,
        round=round,
        stage=stage,
        state="done",
        started_at=now - timedelta(seconds=seconds),
        ended_at=now,
        metrics=metrics,
    )


def test_without_any_measurement_the_estimate_is_arithmetic_and_says_so(project, base):
    estimate = checks(project, default_config(project, "tiny"))["estimate"]
    assert estimate.verdict == "warning", "arithmetic may be far off"
    assert "rough: 6 N D operations" in estimate.evidence
    assert "the model's size is not known yet" in estimate.evidence


def test_the_estimate_learns_from_what_has_run_in_this_project(project, base):
    config = default_config(project, "tiny")
    before = round_cost(project, config).stages
    ran(project, "evaluate", before["evaluate"].likely * 3, config)
    check = checks(project, config)["estimate"]
    assert check.verdict == "go"
    assert "from earlier runs of evaluate" in check.evidence
    after = round_cost(project, config).stages
    assert after["evaluate"].likely == pytest.approx(3 * before["evaluate"].likely, rel=0.01)
    # The stages that have not run yet are expected to be as much slower than the arithmetic.
    assert after["ppo"].likely == pytest.approx(3 * before["ppo"].likely, rel=0.01)
    config["evaluate"]["samples_per_prompt"] *= 2
    doubled = round_cost(project, config).stages["evaluate"].likely
    assert 1.5 < doubled / after["evaluate"].likely < 2.05


def test_a_run_on_another_device_tells_nothing(project, base):
    worker = a_worker("gpu", "gpu")
    Worker.objects.filter(pk=worker.pk).update(machine=MACHINE)
    config = default_config(project, "tiny")
    ran(project, "evaluate", 9999, config, device="another GPU")
    assert round_cost(project, config).measured == ()
    ran(project, "evaluate", 9999, config, device=MACHINE["device"])
    assert round_cost(project, config).measured == ("evaluate",)


def test_prompts_that_do_not_exist_cost_nothing(project, base):
    """The project has 12 prompts to rank and 6 held out, whatever the settings request."""
    config = default_config(project, "tiny")
    few = round_cost(project, config)
    config["round"] |= {"ranking_prompts": 100_000, "heldout_prompts": 100_000}
    many = round_cost(project, config)
    assert many.stages["generate"] == few.stages["generate"]
    assert many.stages["evaluate"] == few.stages["evaluate"]


def test_a_measurement_on_the_workers_device_replaces_the_arithmetic(project, base):
    worker = a_worker("gpu", "gpu")
    Worker.objects.filter(pk=worker.pk).update(machine=MACHINE)
    calibrated(base)
    config = default_config(project, "tiny")
    cost = round_cost(project, config)
    assert not cost.is_guess
    assert "measured in seconds on this device" in cost.evidence
    slow = calibrated(base)
    for point in slow.figures["decoding"]:
        point["seconds"] *= 10
    slow.save()
    assert (
        round_cost(project, config).stages["generate"].likely > 3 * cost.stages["generate"].likely
    )
    # On another device the measurement says nothing.
    Worker.objects.filter(pk=worker.pk).update(machine=MACHINE | {"device": "another"})
    assert round_cost(project, config).is_guess


def test_the_range_contains_the_likely_time_and_stages_add_up(project, base):
    cost = round_cost(project, default_config(project, "tiny"))
    assert all(s.low < s.likely < s.high for s in cost.stages.values())
    assert cost.total.likely == pytest.approx(sum(s.likely for s in cost.stages.values()))
