"""Running a job: its outcome when its input, its process or its worker fails."""

import errno
import subprocess
import threading
from pathlib import Path

import pytest
from django.db import connection, connections
from django.utils import timezone

from annotation.models import Comparison
from rlhf import job_run, jobs
from rlhf.models import Job, Round
from rlhf.training import rundir
from rlhf.training.rundir.errors import DISK_FULL
from rlhf.workers.next_job import run_next_job
from tests.rlhf.machine import (
    alive,
    expire,
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


def test_a_finished_stage_leaves_its_outputs_its_state_and_the_next_stage_together(job):
    done = work()
    assert (done.state, done.exit_code, done.reason) == ("done", 0, "")
    assert done.metrics["n_prompts"] == 6
    round = Round.objects.get()
    assert round.state == Round.State.ANNOTATE
    assert round.batch.comparisons.count() == 6
    texts = set(round.batch.comparisons.first().responses.values_list("text", flat=True))
    assert texts == {f"{word}, said claim 1." for word in ("Yes", "No", "Perhaps")}
    assert round.stage_times["generate"][1], "the stage's end is on record"


def test_progress_of_the_process_reaches_the_row_while_it_runs(job):
    thread = threading.Thread(target=lambda: (work("slowly"), connection.close()))
    thread.start()
    seen = wait_until(lambda: (Job.objects.get().progress or {}).get("done"))
    thread.join()
    assert 0 < seen < 40
    assert Job.objects.get().progress["done"] == 40


def test_bad_input_fails_at_once_with_its_sentence(job):
    done = work("refuses")
    assert (done.state, done.attempt, done.exit_code) == ("failed", 0, 2)
    assert done.reason == "data/prompts.jsonl speaks of fish; give it birds."
    round = Round.objects.get()
    assert (round.state, round.failed_stage) == ("failed", "generate")
    assert work() is None


def test_a_stage_that_can_t_be_given_its_input_fails_at_once_and_says_why(job):
    Round.objects.update(start_policy=None)
    done = work()
    assert done.state == Job.State.FAILED
    assert "no policy to start from" in done.reason


def test_a_bug_is_retried_and_then_fails_the_job(job, settings):
    settings.JOB_MAX_ATTEMPTS = 2
    first = work("breaks")
    assert (first.state, first.attempt) == ("queued", 1)
    assert "a screw came loose" in first.reason
    assert work("breaks") is None, "it rests before the next attempt"
    Job.objects.update(not_before=timezone.now())
    second = work("breaks")
    assert (second.state, second.attempt, second.epoch) == ("failed", 2, 2)
    assert Round.objects.get().state == Round.State.FAILED


def test_a_full_disk_is_said_in_a_sentence_that_says_what_to_do(job, settings):
    settings.JOB_MAX_ATTEMPTS = 1
    assert work("fills").reason == DISK_FULL


def test_a_full_disk_that_takes_no_error_file_is_said_too(job, settings, monkeypatch):
    settings.JOB_MAX_ATTEMPTS = 1
    usage = job_run.shutil.disk_usage
    monkeypatch.setattr(job_run.shutil, "disk_usage", lambda path: usage(path)._replace(free=4096))
    assert work("dies").reason == DISK_FULL


def test_a_full_disk_before_the_process_began_ends_the_claim_at_once(job, settings, monkeypatch):
    settings.JOB_MAX_ATTEMPTS = 1

    def full(self):
        raise OSError(errno.ENOSPC, "No space left on device", "config.json")

    def takes_no_log(self, *args, **kwargs):
        if self.name == rundir.LOG:
            full(self)
        return opened(self, *args, **kwargs)

    opened = Path.open
    monkeypatch.setattr(job_run, "prepare_run_folder", full)
    monkeypatch.setattr(Path, "open", takes_no_log)
    done = work()
    assert (done.state, done.reason) == ("failed", DISK_FULL)


def test_a_job_that_broke_once_and_works_then_is_done(job):
    assert work("breaks-once").state == Job.State.QUEUED
    Job.objects.update(not_before=timezone.now())
    done = work("breaks-once")
    assert (done.state, done.epoch, done.attempt, done.reason) == ("done", 2, 1, "")


def test_a_worker_that_lost_its_lease_kills_its_process_and_writes_nothing(job, settings):
    settings.JOB_LEASE_SECONDS = 60  # its next heartbeat is ten seconds away
    first = threading.Thread(target=lambda: (work("slowly", owner="frozen"), connection.close()))
    first.start()
    pid = wait_until(lambda: Job.objects.get().process_id)
    wait_until(lambda: (Job.objects.get().run_dir / "checkpoint" / "step").exists())
    # Again, if a heartbeat came in between after all: this machine may be slow.
    done = wait_until(lambda: expire(job) or work("slowly", owner="eve"))
    first.join()
    assert not alive(pid)
    assert (done.state, done.owner, done.epoch) == ("done", "eve", 2)
    assert done.metrics["first_step"] > 0, "it went on from the frozen worker's checkpoint"
    texts = Comparison.objects.first().responses.values_list("text", flat=True)
    assert all(text.endswith("claim 2.") for text in texts)
    assert Comparison.objects.count() == 6


def test_a_late_result_of_an_old_claim_is_ignored(job, settings):
    """The zombie's process ends well, but its claim has been taken over meanwhile."""
    settings.JOB_LEASE_SECONDS = 600
    taken = []

    def command(job, run_dir):
        from tests.rlhf.machine import program

        expire(job)
        taken.append(jobs.claim("gpu", owner="eve"))
        return program()(job, run_dir)

    run_next_job("gpu", owner="zombie", command=command)
    row = Job.objects.get()
    assert (row.state, row.owner, row.epoch) == ("running", "eve", 2)
    assert not Comparison.objects.exists()
    assert Round.objects.get().state == Round.State.GENERATE


def test_a_result_whose_news_was_lost_is_not_computed_twice(job):
    """The worker died between the end of the process and the commit."""
    claimed = jobs.claim("gpu", owner="hal")
    job_run.prepare_run_folder(claimed)
    subprocess.run(program()(claimed, claimed.run_dir), check=True)
    expire(job)

    def never(job, run_dir):
        raise AssertionError("the process was started again")

    done = run_next_job("gpu", owner="eve", command=never)
    assert (done.state, done.epoch) == ("done", 2)
    assert Comparison.objects.count() == 6


def test_a_restart_of_the_database_costs_a_running_process_nothing(job, monkeypatch, settings):
    settings.JOB_LEASE_SECONDS = 6
    monkeypatch.setattr(connections["default"].__class__, "is_usable", lambda wrapper: False)
    calls = []

    def cut_once():
        calls.append(True)
        if len(calls) == 2:
            connection.connection.close()
        return False

    done = work("slowly", should_stop=cut_once)
    assert (done.state, done.epoch, done.attempt) == ("done", 1, 0)
