"""The sweeper: what keeps the promise that nothing is lost, whatever happens to the broker.

Every sweep is idempotent, so two sweepers do no harm.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from celery import current_app
from django.conf import settings
from django.db import DatabaseError, connection

from annotation.judge.assignment import release_overdue
from rlhf import jobs, rounds, tasks
from rlhf.stages import QUEUES

log = logging.getLogger(__name__)
CLEAN_SECONDS = 600.0
MESSAGE_SECONDS = 3600.0


def sweep() -> dict[str, int]:
    """Look once: end lost jobs, free overdue comparisons, wake idle workers that have work to do."""
    ended = len(jobs.bury_lost(rounds.advance))
    freed = release_overdue()
    hints = 0
    for queue in QUEUES:
        # A busy worker looks at the queue by itself when it is done, and one that starts does too.
        if jobs.due(queue) and jobs.workers_alive(queue, idle=True):
            tasks.hint(queue)
            hints += 1
    return {"ended": ended, "freed": freed, "hints": hints}


def keep_sweeping(should_stop: Callable[[], bool]) -> None:
    """Sweep every SWEEP_SECONDS until told to stop. A database that is away is waited for."""
    cleaned_at = 0.0
    while not should_stop():
        try:
            sweep()
            if time.monotonic() - cleaned_at > CLEAN_SECONDS or not cleaned_at:
                clean_queue_folder()
                jobs.forget_dead_workers()
                cleaned_at = time.monotonic()
        except DatabaseError:
            log.warning("The database can't be reached; sweeping goes on.", exc_info=True)
            # A connection that a restart has cut stays dead: the next look needs a new one.
            connection.close_if_unusable_or_obsolete()
        until = time.monotonic() + settings.SWEEP_SECONDS
        while time.monotonic() < until and not should_stop():
            time.sleep(0.1)


def clean_queue_folder(*, older_than: float = MESSAGE_SECONDS) -> int:
    """Remove messages that nobody has read for so long (seconds), and torn ones; how many.

    Only for the embedded broker. Nothing is lost by it: messages are hints.
    """
    folders = current_app.conf.broker_transport_options
    removed, limit = 0, time.time() - older_than
    for name in ("data_folder_in", "processed_folder"):
        if name not in folders:
            continue
        for path in Path(folders[name]).iterdir():
            try:
                if path.is_file() and path.stat().st_mtime < limit:
                    path.unlink()
                    removed += 1
            except FileNotFoundError:
                continue
    return removed
