"""Jobs: who gets one, what happens to it when its worker or its process doesn't behave."""

import errno
import subprocess
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connection, connections
from django.utils import timezone

from annotation.models import Batch, Comparison, Event
from rlhf import job_run, jobs, rounds
from rlhf.models import Job, Round
from rlhf.run_folders import input_hash, resume_from_earlier
from rlhf.training import rundir
from rlhf.training.rundir.checkpoints import find_checkpoint, save_checkpoint
from rlhf.training.rundir.errors import DISK_FULL
from rlhf.training.rundir.files import read_json, write_json
from rlhf.training.rundir.reports import read_metrics
from rlhf.workers.next_job import run_next_job
from tests.rlhf.machine import (
    alive,
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


def in_threads(n, act):
    """Call `act(i)` in n threads that start at the same moment; what they returned, or raised."""
    gate, found = threading.Barrier(n), [None] * n

    def body(i):
        try:
            gate.wait()
            found[i] = act(i)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            found[i] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=body, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def expire(job):
    """As if the worker had been silent for longer than its lease."""
    Job.objects.filter(pk=job.pk).update(lease_until=timezone.now() - timedelta(seconds=1))


# --- Claiming ---------------------------------------------------------------------------------


def test_of_sixteen_workers_that_ask_at_once_one_gets_the_job(job):
    found = in_threads(16, lambda i: jobs.claim("gpu", owner=f"worker {i}"))
    winners = [claimed for claimed in found if claimed is not None]
    assert len(winners) == 1, found
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


def test_the_oldest_job_comes_first_and_one_that_rests_is_left(job):
    later = jobs.enqueue(job.round, "ppo")
    Job.objects.filter(pk=job.pk).update(not_before=timezone.now() + timedelta(minutes=1))
    assert jobs.claim("gpu", owner="hal") == later


def test_a_lost_claim_is_taken_up_again_and_counts_as_an_attempt(job):
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


# --- Doing ------------------------------------------------------------------------------------


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


def test_a_bug_is_tried_again_and_then_given_up(job, settings):
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


def test_what_broke_once_and_works_then_is_done(job):
    assert work("breaks-once").state == Job.State.QUEUED
    Job.objects.update(not_before=timezone.now())
    done = work("breaks-once")
    assert (done.state, done.epoch, done.attempt, done.reason) == ("done", 2, 1, "")


def test_the_process_sees_no_secret_and_no_hub(job, settings, monkeypatch, tmp_path):
    script = "import os, json, sys; json.dump(dict(os.environ), open(sys.argv[1], 'w'))"
    out = tmp_path / "environment.json"

    def command(job, run_dir):
        import sys

        return [sys.executable, "-c", script, str(out)]

    monkeypatch.setenv("SECRET_KEY", "hush")
    run_next_job("gpu", owner="hal", command=command)
    text = out.read_text()
    assert '"HF_HUB_OFFLINE": "1"' in text
    assert "hush" not in text
    assert "DATABASE_URL" not in text


# --- Losing and fencing -----------------------------------------------------------------------


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
    asked = []

    def cut_once():
        asked.append(True)
        if len(asked) == 2:
            connection.connection.close()
        return False

    done = work("slowly", should_stop=cut_once)
    assert (done.state, done.epoch, done.attempt) == ("done", 1, 0)


def test_another_input_does_not_resume_from_the_old_checkpoint(job):
    claimed = jobs.claim("gpu", owner="hal")
    job_run.prepare_run_folder(claimed)
    save_checkpoint(claimed.run_dir, lambda folder: (folder / "step").write_text("30"))
    round = Round.objects.get()
    round.config["generate"]["temperature"] = 0.5
    round.save()
    expire(job)
    assert work("slowly").metrics["first_step"] == 0


def test_a_setting_that_came_with_a_new_version_does_not_cost_the_checkpoint(job):
    """The folder of before lacks the setting: there it was what its default does."""
    claimed = jobs.claim("gpu", owner="hal")
    job_run.prepare_run_folder(claimed)
    save_checkpoint(claimed.run_dir, lambda folder: (folder / "step").write_text("30"))
    config = read_json(claimed.run_dir / rundir.CONFIG)
    del config["dtype"]
    write_json(claimed.run_dir / rundir.CONFIG, config)
    jobs.write(claimed, input_sha256=input_hash(claimed.run_dir))
    expire(job)
    assert work("slowly").metrics["first_step"] == 30


def test_a_folder_with_a_setting_that_there_is_no_more_is_not_gone_on_from(job):
    claimed = jobs.claim("gpu", owner="hal")
    job_run.prepare_run_folder(claimed)
    save_checkpoint(claimed.run_dir, lambda folder: (folder / "step").write_text("30"))
    config = read_json(claimed.run_dir / rundir.CONFIG)
    write_json(claimed.run_dir / rundir.CONFIG, config | {"beams": 4})
    expire(job)
    assert work("slowly").metrics["first_step"] == 0


def test_a_job_whose_worker_dies_again_and_again_is_given_up_with_a_reason(job, settings):
    settings.JOB_MAX_ATTEMPTS = 3
    for epoch in (1, 2, 3):
        assert jobs.claim("gpu", owner=f"worker {epoch}").epoch == epoch
        expire(job)
        assert bool(rounds.fail_expired()) == (epoch == 3)
    job.refresh_from_db()
    assert (job.state, job.attempt) == ("failed", 3)
    assert "died 3 times" in job.reason
    assert Round.objects.get().failed_stage == "generate"


# --- Stopping ---------------------------------------------------------------------------------


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


def test_a_worker_that_is_stopped_hands_its_job_back_and_the_next_goes_on_from_there(job):
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
    """Nobody may claim a job that is to stop, so on the queue it would stay for ever."""

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


def test_a_retried_round_goes_on_from_the_checkpoint_of_the_job_that_was_stopped(
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
    assert find_checkpoint(job.run_dir) is None, "what it went on from is of no use any more"


def test_a_damaged_checkpoint_of_an_earlier_claim_is_passed_over_for_the_one_before(tmp_path):
    for claim, step in (("1", 5), ("2", 9)):
        save_checkpoint(
            tmp_path / claim, lambda folder, step=step: (folder / "step").write_text(str(step))
        )
    (tmp_path / "2" / rundir.CHECKPOINT / "step").write_text("")
    (tmp_path / "3").mkdir()
    resume_from_earlier(tmp_path / "3", [tmp_path / "2", tmp_path / "1"])
    assert (find_checkpoint(tmp_path / "3") / "step").read_text() == "5"
    assert [path.name for path in (tmp_path / "3").iterdir()] == [rundir.CHECKPOINT]


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
