"""Celery tasks: the work of a worker when a message wakes it. A message says "run what is due in
this queue", no more."""

import logging
import time
from typing import Any

from celery import shared_task
from celery.signals import worker_ready, worker_shutdown
from celery.worker import state as worker_state
from django.db import DatabaseError, connection, transaction
from kombu.exceptions import OperationalError

from annotation.models import Event
from rlhf import jobs, simulation
from rlhf.models import Job, Round
from rlhf.stages import QUEUES, STAGES
from rlhf.workers.next_job import run_next_job
from rlhf.workers.presence import Presence, set_job, worker_name

log = logging.getLogger(__name__)
presence: Presence | None = None
AWAY_SECONDS = 2.0


@shared_task  # type: ignore[untyped-decorator]
def run_due_jobs(queue: str) -> None:
    """Run the queue's due jobs, one after the other.

    - No job is due: it ends, and the next message wakes the worker again.
    - A job has ended: the queues that have work now are woken, and it goes on.
    - The worker is asked to stop: it ends; a running job goes back to the queue.
    - The database can't be reached: it waits and tries again.
    """
    owner = presence.name if presence else worker_name(queue)
    was_away = False
    while not stopping():
        try:
            if was_away:
                # Its row still names the job that it lost, and a busy worker is not woken.
                set_job(owner, None)
                was_away = False
            job = run_next_job(queue, owner=owner, should_stop=stopping)
        except DatabaseError:
            log.warning("The database can't be reached; trying again.", exc_info=True)
            connection.close_if_unusable_or_obsolete()
            was_away = True
            time.sleep(AWAY_SECONDS)
            continue
        if job is None:
            return
        wake_all()


@shared_task  # type: ignore[untyped-decorator]
def simulate_batch(round_id: int) -> None:
    """Let the demo's simulated annotators judge what is left of a round's batch."""
    round = Round.objects.select_related("batch__project", "project").get(pk=round_id)
    if round.batch is not None:
        n = simulation.judge_batch(round.batch)
        Event.record(round.project, None, "simulated judgments of", round, judgments=n)


def wake(job: Job | None) -> None:
    """Wake a worker for a new job, once this transaction is committed."""
    if job is not None:
        transaction.on_commit(lambda: wake_queue(STAGES[job.stage].queue))


def wake_queue(queue: str) -> None:
    """Send the message now. If the broker can't be reached, the sweeper sends it again later."""
    try:
        run_due_jobs.apply_async((queue,), queue=queue, retry=False)
    except (OperationalError, OSError):
        log.warning("The broker can't be reached; the sweeper will wake the workers.")


def wake_all() -> None:
    """Wake a worker of every queue that has due jobs."""
    for queue in QUEUES:
        if jobs.due(queue).exists():
            wake_queue(queue)


def stopping() -> bool:
    """Whether this worker was asked to stop (Celery keeps False, or an exit code that may be 0)."""
    codes = (worker_state.should_stop, worker_state.should_terminate)
    return any(code is not None and code is not False for code in codes)


@worker_ready.connect  # type: ignore[untyped-decorator]
def _start_presence(sender: Any, **_: Any) -> None:
    global presence
    queues = sorted(sender.app.amqp.queues.consume_from)
    presence = Presence(queues)
    presence.start()
    for queue in queues:
        wake_queue(queue)


@worker_shutdown.connect  # type: ignore[untyped-decorator]
def _stop_presence(**_: Any) -> None:
    if presence:
        presence.stop()
