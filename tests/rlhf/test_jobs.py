"""The queue of jobs: who gets one, and how one is stopped, expires and is retried."""

import subprocess
import threading
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from annotation.models import Batch, Comparison, Event
from rlhf import job_run, jobs, rounds
from rlhf.models import Job, Round
from rlhf.training.rundir.checkpoints import find_checkpoint
from rlhf.training.rundir.reports import read_metrics
from rlhf.workers.next_job import run_next_job
from tests.rlhf.machine import (
    alive,
    expire,
    in_threads,
    launch,
    program,
    ready,
    real_transactions,
    wait_until,
    work,
)

pytestmark = real_transactions


@pytest.fixture
def job(project, grace, ada):
    ready(project)
    return launch(project, grace)


def test_of_sixteen_workers_that_ask_at_once_one_gets_the_job(job):
    claims = in_threads(16, lambda i: jobs.claim("gpu", owner=f"worker {i}"))
    winners = [claimed for claimed in claims if claimed is not None]
    assert len(winners) == 1, claims
    job.refresh_from_db()
    assert (job.state, job.epoch, job.owner) == ("running", 1, winners[0].owner)


def test_a_duplicate_message_finds_nothing_to_do(job):
    assert work().state == Job.State.DONE
    assert work() is None
    job.refresh_from_db()
    assert (job.epoch, job.attempt) == (1, 0)
    assert Comparison.objects.count() == 6


def test_a_worker_of_another_queue_leaves_it_alone(job):
    assert jobs.claim("default", owner="hal") is None


def test_the_oldest_job_comes_first_and_one_that_rests_is_skipped(job):
    later = jobs.enqueue(job.round, "ppo")
    Job.objects.filter(pk=job.pk).update(not_before=timezone.now() + timedelta(minutes=1))
    assert jobs.claim("gpu", owner="hal") == later


def test_a_lost_claim_is_claimed_again_and_counts_as_an_attempt(job):
    jobs.claim("gpu", owner="hal")
    assert jobs.claim("gpu", owner="eve") is None, "the lease still runs"
    expire(job)
    again = jobs.claim("gpu", owner="eve")
    assert (again.epoch, again.attempt, again.owner) == (2, 1, "eve")


def test_the_lease_is_as_long_as_the_setting_says_by_the_database_clock(job, settings):
    settings.JOB_LEASE_SECONDS = 77
    claimed = jobs.claim("gpu", owner="hal")
    length = (claimed.lease_until - claimed.heartbeat_at).total_seconds()
    assert length == pytest.approx(77, abs=0.1)
    assert abs((claimed.heartbeat_at - timezone.now()).total_seconds()) < 5


def test_a_job_whose_worker_dies_again_and_again_fails_with_a_reason(job, settings):
    settings.JOB_MAX_ATTEMPTS = 3
    for epoch in (1, 2, 3):
        assert jobs.claim("gpu", owner=f"worker {epoch}").epoch == epoch
        expire(job)
        assert bool(rounds.fail_expired()) == (epoch == 3)
    job.refresh_from_db()
    assert (job.state, job.attempt) == ("failed", 3)
    assert "died 3 times" in job.reason
    assert Round.objects.get().failed_stage == "generate"


def test_a_waiting_job_is_cancelled_at_once(job, grace):
    assert rounds.cancel_job(job, grace)
    job.refresh_from_db()
    assert job.state == Job.State.CANCELLED
    assert Round.objects.get().state == Round.State.CANCELLED
    assert work() is None
    assert Event.objects.filter(actor=grace, verb="asked to stop").exists()


def test_cancelling_a_running_job_lets_it_write_its_checkpoint(job, grace):
    thread = threading.Thread(target=lambda: (work("slowly"), connection.close()))
    thread.start()
    wait_until(lambda: (Job.objects.get().progress or {}).get("done"))
    assert rounds.cancel_job(Job.objects.get(), grace)
    thread.join()
    job.refresh_from_db()
    assert (job.state, job.exit_code, job.attempt) == ("cancelled", 143, 0)
    assert find_checkpoint(job.run_dir) is not None
    assert Round.objects.get().failed_stage == "generate"


def test_a_process_that_ignores_sigterm_is_killed_after_the_grace(job, grace, settings):
    settings.JOB_STOP_GRACE_SECONDS = 0.5
    thread = threading.Thread(target=lambda: (work("deaf"), connection.close()))
    thread.start()
    pid = wait_until(lambda: (j := Job.objects.get()).progress and j.process_id)
    rounds.cancel_job(Job.objects.get(), grace)
    thread.join(60)
    assert not alive(pid), "it would have gone on for minutes"
    job.refresh_from_db()
    assert (job.state, job.exit_code) == ("cancelled", -9)


def test_a_worker_that_is_stopped_hands_its_job_back_and_the_next_resumes_from_there(job):
    stop = threading.Event()
    thread = threading.Thread(
        target=lambda: (work("slowly", should_stop=stop.is_set), connection.close())
    )
    thread.start()
    wait_until(lambda: (Job.objects.get().progress or {}).get("done", 0) > 3)
    stop.set()
    thread.join()
    job.refresh_from_db()
    assert (job.state, job.attempt) == ("queued", 0), "being stopped is no failure"
    done = work("slowly")
    assert done.metrics["first_step"] > 3
    steps = [row["step"] for row in read_metrics(done.run_dir)]
    assert steps == list(range(1, 41)), "the curve has no gap and no step twice"
    left = list(done.run_dir.parent.glob("*/checkpoint"))
    assert left == [], "a job that is done needs no checkpoint, nor do its earlier claims"


def test_cancelling_a_job_whose_worker_has_died_ends_it(job, grace):
    jobs.claim("gpu", owner="hal")
    rounds.cancel_job(job, grace)
    expire(job)
    assert jobs.claim("gpu", owner="eve") is None
    rounds.fail_expired()
    job.refresh_from_db()
    assert job.state == Job.State.CANCELLED


def test_a_stopped_round_is_retried_from_its_stage(job, grace):
    rounds.cancel_job(job, grace)
    again = rounds.retry_stage(Round.objects.get(), grace)
    assert (again.stage, again.state) == ("generate", "queued")
    assert again.pk != job.pk
    assert work().state == Job.State.DONE
    assert Round.objects.get().state == Round.State.ANNOTATE


def test_of_two_admins_who_retry_at_once_one_makes_the_job(job, grace):
    rounds.cancel_job(job, grace)
    stopped = Round.objects.get()
    in_threads(8, lambda i: rounds.retry_stage(stopped, grace))
    assert Job.objects.filter(state=Job.State.QUEUED).count() == 1


def test_a_job_that_breaks_after_it_was_asked_to_stop_is_cancelled_and_not_left_waiting(job, grace):
    """Nobody may claim a job that is to stop, so it would stay on the queue."""

    def command(job, run_dir):
        rounds.cancel_round(job.round, grace)
        return program("breaks")(job, run_dir)

    run_next_job("gpu", owner="hal", command=command)
    job.refresh_from_db()
    assert (job.state, job.attempt) == ("cancelled", 0)
    assert job.ended_at
    assert Round.objects.get().state == Round.State.CANCELLED


def test_a_job_that_is_asked_to_stop_while_its_worker_stops_is_cancelled(job, grace):
    def command(job, run_dir):
        rounds.cancel_job(job, grace)
        return program("slowly")(job, run_dir)

    run_next_job("gpu", owner="hal", command=command, should_stop=lambda: True)
    job.refresh_from_db()
    assert job.state == Job.State.CANCELLED
    assert Round.objects.get().state == Round.State.CANCELLED


def test_a_retried_round_resumes_from_the_checkpoint_of_the_job_that_was_stopped(
    job, grace, monkeypatch
):
    monkeypatch.setattr(job_run, "PROGRESS_SECONDS", 0.1)  # else it is done before it is stopped
    thread = threading.Thread(target=lambda: (work("slowly"), connection.close()))
    thread.start()
    wait_until(lambda: (Job.objects.get().progress or {}).get("done", 0) > 3)
    rounds.cancel_job(Job.objects.get(), grace)
    thread.join()
    rounds.retry_stage(Round.objects.get(), grace)
    done = work("slowly")
    assert (done.state, done.epoch) == ("done", 1)
    assert done.pk != job.pk
    assert done.metrics["first_step"] > 3
    steps = [row["step"] for row in read_metrics(done.run_dir)]
    assert steps == list(range(1, 41))
    assert find_checkpoint(job.run_dir) is None, (
        "the checkpoint that it resumed from is of no use any more"
    )


def test_a_round_retried_while_its_old_job_still_stops_belongs_to_the_new_job(job, grace):
    jobs.claim("gpu", owner="hal")
    rounds.cancel_round(Round.objects.get(), grace)
    again = rounds.retry_stage(Round.objects.get(), grace)
    expire(job)
    rounds.fail_expired()
    job.refresh_from_db()
    assert job.state == Job.State.CANCELLED
    assert Round.objects.get().state == Round.State.GENERATE, "the old job's end is no news for it"
    assert work() == again
    assert Round.objects.get().state == Round.State.ANNOTATE


def test_what_finishes_after_its_round_was_cancelled_makes_no_batch_until_it_is_retried(job, grace):
    """Else people would be asked to judge a batch that belongs to nothing."""

    def command(job, run_dir):
        subprocess.run(program()(job, run_dir), check=True)
        rounds.cancel_round(job.round, grace)
        return ["true"]

    run_next_job("gpu", owner="hal", command=command)
    job.refresh_from_db()
    assert job.state == Job.State.CANCELLED
    assert not Batch.objects.exists()
    rounds.retry_stage(Round.objects.get(), grace)
    assert work("breaks").state == Job.State.DONE, "its answers were there: nothing ran again"
    assert Batch.objects.count() == 1
    assert Round.objects.get().state == Round.State.ANNOTATE
