"""The sweeper: fails expired jobs and wakes workers, so that a lost message delays but loses no job.

Every sweep is idempotent, so two sweepers do no harm.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from celery import current_app
from django.conf import settings
from django.db import DatabaseError, connection

from annotation.judge.leases import release_overdue
from rlhf import jobs, rounds
from rlhf.models import Worker
from rlhf.stages import QUEUES
from rlhf.workers import tasks
from rlhf.workers.presence import forget_dead_workers

log = logging.getLogger(__name__)
CLEAN_SECONDS = 600.0
MESSAGE_SECONDS = 3600.0


def sweep() -> dict[str, int]:
    """One sweep: end lost jobs, free overdue comparisons, wake idle workers that have work to do."""
    ended = len(rounds.fail_expired())
    freed = release_overdue()
    hints = 0
    for queue in QUEUES:
        # A busy worker asks its queue when it is done, and one that starts does too.
        if jobs.due(queue).exists() and Worker.objects.online(queue, idle=True):
            tasks.wake_queue(queue)
            hints += 1
    return {"ended": ended, "freed": freed, "hints": hints}


def keep_sweeping(should_stop: Callable[[], bool]) -> None:
    """Sweep every SWEEP_SECONDS until `should_stop`. A database that can't be reached is waited for."""
    cleaned_at = 0.0
    while not should_stop():
        try:
            sweep()
            if time.monotonic() - cleaned_at > CLEAN_SECONDS or not cleaned_at:
                clean_queue_folder()
                forget_dead_workers()
                cleaned_at = time.monotonic()
        except DatabaseError:
            log.warning("The database can't be reached; sweeping goes on.", exc_info=True)
            # A connection that a restart has cut stays dead: the next sweep needs a new one.
            connection.close_if_unusable_or_obsolete()
        until = time.monotonic() + settings.SWEEP_SECONDS
        while time.monotonic() < until and not should_stop():
            time.sleep(0.1)


def clean_queue_folder(*, older_than: float = MESSAGE_SECONDS) -> int:
    """Remove messages that no worker has read within `older_than` seconds; how many.

    Only for the embedded broker. Nothing is lost by it: messages only wake workers.
    """
    folder = current_app.conf.broker_transport_options.get("data_folder_in")
    if folder is None:
        return 0
    removed, limit = 0, time.time() - older_than
    for path in Path(folder).iterdir():
        try:
            if path.is_file() and path.stat().st_mtime < limit:
                path.unlink()
                removed += 1
        except FileNotFoundError:
            continue
    return removed
