"""What a round will take, by what has run before."""

from datetime import timedelta

import pytest
from django.utils import timezone

from rlhf.models import Job, Round
from rlhf.round_config import default_config
from tests.rlhf.machine import (
    checks,
)

pytestmark = pytest.mark.django_db


def test_the_estimate_learns_from_what_has_run_in_this_project(project, base):
    config = default_config(project, "tiny")
    guess = checks(project, config)["estimate"]
    assert guess.verdict == "warning", "nothing has run here: the demo's times may be far off"
    assert "a guess" in guess.evidence
    round = Round.objects.create(project=project, number=0, state="done", config=config)
    now = timezone.now()
    Job.objects.create(
        project=project, round=round, stage="evaluate", state="done",
        started_at=now - timedelta(seconds=3000), ended_at=now,
    )  # fmt: skip
    estimate = checks(project, config)["estimate"]
    assert estimate.verdict == "go"
    # 100 times as long as the demo's 30 s, and so are the other stages.
    assert "evaluate 50 min" in estimate.evidence
    assert "PPO 2.1 h" in estimate.evidence
    assert "from earlier runs of evaluate" in estimate.evidence
    config["round"]["heldout_prompts"] *= 2
    assert "evaluate 1.7 h" in checks(project, config)["estimate"].evidence
