"""What workers do when they are woken, and with a broker or database that is away."""

from celery import current_app

from rlhf.models import Job
from rlhf.workers import tasks
from rlhf.workers.presence import worker_name
from tests.rlhf.machine import (
    a_worker,
    launch,
    ready,
    real_transactions,
)

pytestmark = real_transactions


def test_a_worker_that_lost_the_database_tries_again_and_waits_for_work(
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


def test_a_worker_waits_for_its_broker_without_a_limit():
    assert current_app.conf.broker_connection_max_retries is None
