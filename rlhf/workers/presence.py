"""A worker's row, kept alive by a thread for as long as the process lives."""

import logging
import os
import socket
from collections.abc import Callable, Sequence
from datetime import timedelta

from django.db import DatabaseError, connection
from django.utils import timezone

from annotation.lib.heartbeat import Heartbeat, stale_before
from rlhf.code_version import code_version
from rlhf.models import Job, Worker

BEAT_SECONDS = 5.0
FORGET_AFTER = timedelta(minutes=10)
log = logging.getLogger(__name__)


class Presence:
    """Reports every few seconds that this worker lives, so that pages and the sweeper can tell."""

    def __init__(self, queues: Sequence[str]) -> None:
        self.queues = ",".join(queues)
        self.name = worker_name(self.queues)
        self._heartbeat = Heartbeat(self._report, every=BEAT_SECONDS, name="presence")

    def start(self) -> None:
        _unless_away(self._report)
        self._heartbeat.start()

    def stop(self) -> None:
        self._heartbeat.stop()
        _unless_away(Worker.objects.filter(name=self.name).delete)

    def _report(self) -> None:
        report(self.name, queues=self.queues, version=code_version())


def worker_name(queues: str) -> str:
    """A name for this process that no other process has."""
    return f"{queues}@{socket.gethostname()}:{os.getpid()}"


def report(name: str, *, queues: str, version: str = "") -> None:
    """Write that a worker lives; makes its row the first time."""
    now = timezone.now()
    if not Worker.objects.filter(name=name).update(seen_at=now):
        Worker.objects.update_or_create(
            name=name, defaults={"queues": queues, "version": version, "seen_at": now}
        )


def set_job(name: str, job: Job | None) -> None:
    """Write which job a worker does; None: it waits for one."""
    Worker.objects.filter(name=name).update(job=job, seen_at=timezone.now())


def forget_dead_workers() -> int:
    """Delete the rows of workers that have not reported for ten minutes; how many."""
    return int(Worker.objects.filter(seen_at__lt=stale_before(FORGET_AFTER)).delete()[0])


def _unless_away(act: Callable[[], object]) -> None:
    try:
        act()
    except DatabaseError:
        log.warning("The database can't be reached.", exc_info=True)
        connection.close_if_unusable_or_obsolete()
