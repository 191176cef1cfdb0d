"""The sweeper: lost jobs end or are due again, idle workers are woken."""

import os
import threading
import time
from datetime import timedelta

import pytest
from celery import current_app
from django.db import connection
from django.utils import timezone

from annotation.judge.assignment import next_assignment
from annotation.models import Assignment
from rlhf import jobs
from rlhf.models import Job, Round
from rlhf.workers import sweeper, tasks
from tests.factories import BatchFactory, ComparisonFactory
from tests.rlhf.machine import (
    a_worker,
    launch,
    ready,
    real_transactions,
)

pytestmark = real_transactions


@pytest.fixture
def hints(monkeypatch):
    sent: list[str] = []
    monkeypatch.setattr(tasks, "wake_queue", sent.append)
    return sent


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

    from config import transport

    options = transport.options(tmp_path)
    monkeypatch.setitem(current_app.conf, "broker_transport_options", options)
    old, new = (tmp_path / "messages" / name for name in ("1.gpu.msg", "2.gpu.msg"))
    for path in (old, new):
        path.write_text("{}")
    os.utime(old, (time.time() - 7200,) * 2)
    assert sweeper.clean_queue_folder() == 1
    assert (old.exists(), new.exists()) == (False, True)
