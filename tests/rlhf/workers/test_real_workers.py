"""Real workers: killed, stopped, or without their message, they lose nothing."""

import signal
import subprocess
import sys
import time
from datetime import timedelta

import pytest
from django.utils import timezone

from rlhf import rounds
from rlhf.models import Checkpoint, Job, Round, Worker
from rlhf.training.rundir.checkpoints import find_checkpoint
from rlhf.training.rundir.reports import read_metrics
from tests.rlhf.machine import (
    ROOT,
    alive,
    celery_worker,
    environment,
    own_data_folder,
    real_transactions,
    wait_until,
)

pytestmark = real_transactions


@pytest.fixture
def base_job(project, grace, settings, tmp_path):
    """A base policy that takes some seconds to build, checkpointed as often as possible."""
    own_data_folder(settings, tmp_path)
    job = rounds.open_base_round(project, grace, preset_name="ci")
    round = job.round
    round.plan = ["base"]
    round.config["round"]["corpus"] = 300
    round.config["base"] |= {
        "layers": 1, "hidden_size": 32, "intermediate_size": 64, "heads": 2, "batch_size": 8,
        "clean_steps": 200, "mix_steps": 200, "checkpoint_seconds": 0.3,
    }  # fmt: skip
    round.save()
    return job


def sweeper_process(folder):
    return subprocess.Popen(
        [sys.executable, "manage.py", "sweep"],
        cwd=ROOT,
        env=environment(folder, SWEEP_SECONDS="0.5", JOB_LEASE_SECONDS="3"),
        process_group=0,
    )


def test_a_worker_killed_in_the_middle_loses_nothing(base_job, tmp_path):
    """kill -9: its training process dies with it, another worker goes on from the checkpoint."""
    lease = {"JOB_LEASE_SECONDS": "3"}
    sweeping = sweeper_process(tmp_path)
    try:
        with celery_worker(tmp_path, **lease) as first:
            pid = wait_until(lambda: Job.objects.get().process_id, 60)
            wait_until(lambda: find_checkpoint(Job.objects.get().run_dir), 60)
            first.send_signal(signal.SIGKILL)
            wait_until(lambda: not alive(pid), 5)
        stopped_at = Job.objects.get()
        assert (stopped_at.state, stopped_at.epoch) == ("running", 1)
        with celery_worker(tmp_path, **lease):
            wait_until(lambda: Job.objects.get().has_ended, 90)
        job = Job.objects.get()
        assert (job.state, job.epoch, job.attempt, job.reason) == ("done", 2, 1, "")
        steps = [row["step"] for row in read_metrics(job.run_dir)]
        assert steps == list(range(1, 401)), "no step is missing and none is there twice"
        assert Round.objects.get().state == Round.State.DONE
        assert Checkpoint.objects.get().state == Checkpoint.State.PROMOTED
    finally:
        sweeping.terminate()
        sweeping.wait()


def test_an_emptied_broker_loses_nothing(base_job, tmp_path):
    """The message that announced the job is gone; the sweeper wakes the idle worker."""
    Job.objects.update(not_before=timezone.now() + timedelta(hours=1))
    with celery_worker(tmp_path):
        wait_until(lambda: Worker.objects.exists(), 60)
        wait_until(lambda: not list((tmp_path / "queue" / "messages").glob("*.gpu.msg")), 10)
        time.sleep(1)
        Job.objects.update(not_before=timezone.now())
        time.sleep(2)
        assert Job.objects.get().state == Job.State.QUEUED, "nobody has told the worker"
        sweeping = sweeper_process(tmp_path)
        try:
            wait_until(lambda: Job.objects.get().state == Job.State.RUNNING, 20)
        finally:
            sweeping.terminate()
            sweeping.wait()


def test_a_worker_that_is_stopped_hands_its_job_back_without_counting_an_attempt(
    base_job, tmp_path
):
    with celery_worker(tmp_path) as worker:
        pid = wait_until(lambda: Job.objects.get().process_id, 60)
        wait_until(lambda: (Job.objects.get().progress or {}).get("done"), 60)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0
    job = Job.objects.get()
    assert (job.state, job.attempt) == ("queued", 0)
    assert not alive(pid)
    assert find_checkpoint(job.run_dir) is not None
    assert not Worker.objects.exists()
