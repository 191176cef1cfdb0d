"""Sweeper, supervisor and real workers: what dies is noticed, what was lost is taken up again."""

import os
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta

import pytest
from celery import current_app
from django.db import OperationalError, connection, connections
from django.utils import timezone

from annotation.judge.assignment import next_assignment
from annotation.models import Assignment
from rlhf import jobs, rounds
from rlhf.launchers import processes
from rlhf.models import Checkpoint, Job, Round, Worker
from rlhf.training.rundir.checkpoints import find_checkpoint
from rlhf.training.rundir.reports import read_metrics
from rlhf.workers import presence, sweeper, tasks
from rlhf.workers.presence import worker_name
from rlhf.workers.supervisor import Child, PortBusy, Supervisor, check_port
from tests.factories import BatchFactory, ComparisonFactory
from tests.rlhf.machine import (
    ROOT,
    a_worker,
    alive,
    celery_worker,
    environment,
    launch,
    own_data_folder,
    ready,
    real_transactions,
    wait_until,
)

pytestmark = real_transactions


@pytest.fixture
def hints(monkeypatch):
    sent: list[str] = []
    monkeypatch.setattr(tasks, "wake_queue", sent.append)
    return sent


@pytest.fixture
def cut(monkeypatch):
    """Cuts this thread's connection for good, as a restart of the database does."""

    def now():
        connection.ensure_connection()
        connection.connection.close()
        # PostgreSQL's notices; SQLite's, which nothing can cut, doesn't ask.
        monkeypatch.setattr(connections["default"].__class__, "is_usable", _is_whole)

    def _is_whole(wrapper):
        try:
            wrapper.connection.execute("SELECT 1")
        except wrapper.Database.Error:
            return False
        return True

    return now


# --- Sweeping ---------------------------------------------------------------------------------


def test_a_sweeper_goes_on_after_a_restart_of_the_database(cut, settings):
    settings.SWEEP_SECONDS = 0.01
    swept = []
    real, until = sweeper.sweep, time.monotonic() + 10

    def sweep():
        swept.append(real())

    cut()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweeper, "sweep", sweep)
        sweeper.keep_sweeping(lambda: bool(swept) or time.monotonic() > until)
    assert swept


def test_a_worker_shows_again_after_a_restart_of_the_database(monkeypatch, cut):
    monkeypatch.setattr(presence, "BEAT_SECONDS", 0.01)
    real, cuts = presence.report, iter([cut])

    def seen(name, **fields):
        if threading.current_thread().name == "presence":
            next(cuts, lambda: None)()
        real(name, **fields)

    monkeypatch.setattr(presence, "report", seen)
    mine = presence.Presence(["gpu"])
    mine.start()
    began = Worker.objects.get().seen_at
    wait_until(lambda: Worker.objects.get().seen_at > began)
    mine.stop()
    assert not Worker.objects.exists()


def test_a_worker_that_starts_before_the_database_shows_once_that_is_there(monkeypatch):
    monkeypatch.setattr(presence, "BEAT_SECONDS", 0.01)
    real, away = presence.report, [OperationalError("starting up")]

    def seen(name, **fields):
        if away:
            raise away.pop()
        real(name, **fields)

    monkeypatch.setattr(presence, "report", seen)
    mine = presence.Presence(["gpu"])
    mine.start()
    wait_until(Worker.objects.exists)
    mine.stop()


def test_a_worker_that_lost_the_database_looks_again_and_waits_for_work(
    project, grace, ada, monkeypatch, cut
):
    """As busy with what it lost nobody would wake it any more."""
    ready(project)
    job = launch(project, grace)
    monkeypatch.setattr(tasks, "AWAY_SECONDS", 0.01)
    mine = a_worker(worker_name("gpu"), "gpu", job=job)
    looks = []

    def run_next_job(queue, **options):
        looks.append(queue)
        if len(looks) == 1:
            cut()
        Job.objects.first()

    monkeypatch.setattr(tasks, "run_next_job", run_next_job)
    tasks.run_due_jobs("gpu")
    mine.refresh_from_db()
    assert (looks, mine.job) == (["gpu", "gpu"], None)


def test_a_worker_waits_for_its_broker_for_ever():
    assert current_app.conf.broker_connection_max_retries is None


def test_an_idle_worker_is_woken_for_a_due_job_and_a_busy_one_is_not(project, grace, ada, hints):
    ready(project)
    job = launch(project, grace)
    sweeper.sweep()
    assert hints == [], "nobody is there to be woken"
    worker = a_worker(queues="gpu")
    a_worker("other", "default")
    sweeper.sweep()
    assert hints == ["gpu"]
    worker.job = job
    worker.save()
    sweeper.sweep()
    assert hints == ["gpu"]


def test_a_lost_job_is_due_again_and_its_worker_s_successor_is_woken(project, grace, ada, hints):
    ready(project)
    launch(project, grace)
    jobs.claim("gpu", owner="hal")
    a_worker("eve", "gpu")
    sweeper.sweep()
    assert hints == []
    Job.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    sweeper.sweep()
    assert hints == ["gpu"]


def test_overdue_comparisons_are_freed(project, ada):
    comparison = ComparisonFactory(batch=BatchFactory(project=project))
    assignment = next_assignment(ada, project)
    Assignment.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    assert sweeper.sweep()["freed"] == 1
    assignment.refresh_from_db()
    comparison.refresh_from_db()
    assert (assignment.state, comparison.taken) == ("expired", 0)


def test_two_sweepers_at_once_end_a_lost_job_once(project, grace, ada, settings):
    settings.JOB_MAX_ATTEMPTS = 1
    ready(project)
    launch(project, grace)
    jobs.claim("gpu", owner="hal")
    Job.objects.update(lease_until=timezone.now() - timedelta(seconds=1), state="running")
    gate, ended = threading.Barrier(6), []

    def go():
        gate.wait()
        ended.append(sweeper.sweep()["ended"])
        connection.close()

    threads = [threading.Thread(target=go) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(ended) == 1
    assert Round.objects.get().state == Round.State.FAILED


def test_messages_that_nobody_reads_are_cleaned_up(tmp_path, monkeypatch):
    from celery import current_app

    from config import transport

    options = transport.options(tmp_path)
    monkeypatch.setitem(current_app.conf, "broker_transport_options", options)
    old, new = (tmp_path / "messages" / name for name in ("1.gpu.msg", "2.gpu.msg"))
    for path in (old, new):
        path.write_text("{}")
    os.utime(old, (time.time() - 7200,) * 2)
    assert sweeper.clean_queue_folder() == 1
    assert (old.exists(), new.exists()) == (False, True)


# --- Real workers -----------------------------------------------------------------------------


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


# --- The supervisor and its children ----------------------------------------------------------


def test_a_child_that_dies_is_started_again_and_all_are_stopped_in_the_end(tmp_path):
    lines: list[str] = []
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    supervisor = Supervisor([Child("sleeper", sleeper)], tmp_path, grace=5, on_restart=lines.append)
    supervisor.start()
    first = supervisor.children[0].process
    first.kill()
    first.wait()
    wait_until(lambda: supervisor.check() or supervisor.children[0].process is not None, 5)
    second = supervisor.children[0].process
    assert second.pid != first.pid
    assert "starting it again" in lines[0]
    supervisor.stop()
    assert not alive(second.pid)


def test_what_dies_at_once_is_started_ever_less_often(tmp_path):
    supervisor = Supervisor([Child("dud", [sys.executable, "-c", "exit(3)"])], tmp_path)
    supervisor.start()
    child = supervisor.children[0]
    pauses = []
    for _ in range(3):
        child.due_at = 0.0
        supervisor.check() if child.process is None else None
        child.process.wait()
        supervisor.check()
        pauses.append(child.pause)
    supervisor.stop()
    assert pauses == [2.0, 4.0, 8.0]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's help is Linux's")
def test_children_die_with_a_parent_that_was_killed(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from rlhf.launchers import processes;"
        "p = processes.start([sys.executable, '-c', 'import time; time.sleep(60)'], cwd=Path('.'));"
        "print(p.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE)
    pid = int(parent.stdout.readline())
    assert alive(pid)
    parent.kill()
    parent.wait()
    wait_until(lambda: not alive(pid), 5)


def test_stopping_takes_grandchildren_along(tmp_path):
    script = (
        "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', "
        "'import time; time.sleep(60)']); open('pid', 'w').write(str(p.pid)); time.sleep(60)"
    )
    process = processes.start([sys.executable, "-c", script], cwd=tmp_path)
    pid = wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    processes.stop(process, grace=2)
    wait_until(lambda: not alive(int(pid)), 5)


def test_a_busy_port_is_said_in_one_sentence():
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortBusy, match=f"Port {port} is in use"):
            check_port("127.0.0.1", port)
