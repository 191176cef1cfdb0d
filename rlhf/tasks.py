"""What workers do when they are woken. A message says "look at the queue", nothing else."""

import logging
import time
from typing import Any

from celery import shared_task
from celery.signals import worker_ready, worker_shutdown
from celery.worker import state as worker_state
from django.db import DatabaseError, connection, transaction
from kombu.exceptions import OperationalError

from annotation.models import Event
from rlhf import jobs, rounds, simulation
from rlhf.models import Job, Round
from rlhf.stages import STAGES
from rlhf.worker import Presence

log = logging.getLogger(__name__)
presence: Presence | None = None
AWAY_SECONDS = 2.0


@shared_task  # type: ignore[untyped-decorator]
def look(queue: str) -> None:
    """Do every job of the queue that is due, one after the other."""
    owner = presence.name if presence else jobs.this_worker(queue)
    was_away = False
    while not stopping():
        try:
            if was_away:
                # Or nobody would wake this worker any more: its row has it at what it lost.
                jobs.worker_at(owner, None)
                was_away = False
            job = jobs.run_next(queue, owner=owner, then=rounds.advance, should_stop=stopping)
        except DatabaseError:
            log.warning("The database can't be reached; looking again.", exc_info=True)
            connection.close_if_unusable_or_obsolete()
            was_away = True
            time.sleep(AWAY_SECONDS)
            continue
        if job is None:
            return
        hint_all()


@shared_task  # type: ignore[untyped-decorator]
def simulate_batch(round_id: int) -> None:
    """Let the demo's simulated annotators judge what is left of a round's batch."""
    round = Round.objects.select_related("batch__project", "project").get(pk=round_id)
    if round.batch is not None:
        n = simulation.judge_batch(round.batch)
        Event.record(round.project, None, "simulated judgments of", round, judgments=n)


def wake(job: Job | None) -> None:
    """Tell a worker, once this transaction is written, that there is something to do."""
    if job is not None:
        transaction.on_commit(lambda: hint(STAGES[job.stage].queue))


def hint(queue: str) -> None:
    """Send the message now. A broker that can't be reached is no harm: the sweeper tries again."""
    try:
        look.apply_async((queue,), queue=queue, retry=False)
    except (OperationalError, OSError):
        log.warning("The broker can't be reached; the sweeper will wake the workers.")


def hint_all() -> None:
    for queue in {stage.queue for stage in STAGES.values()}:
        if jobs.due(queue):
            hint(queue)


def stopping() -> bool:
    """Whether this worker was asked to stop (Celery keeps False, or an exit code that may be 0)."""
    asked = (worker_state.should_stop, worker_state.should_terminate)
    return any(code is not None and code is not False for code in asked)


@worker_ready.connect  # type: ignore[untyped-decorator]
def _arrive(sender: Any, **_: Any) -> None:
    global presence
    queues = sorted(sender.app.amqp.queues.consume_from)
    presence = Presence(queues)
    presence.start()
    for queue in queues:
        hint(queue)


@worker_shutdown.connect  # type: ignore[untyped-decorator]
def _leave(**_: Any) -> None:
    if presence:
        presence.stop()
