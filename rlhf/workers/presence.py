"""A worker's row, kept alive by a thread for as long as the process lives."""

import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import DatabaseError, connection
from django.utils import timezone

from annotation.lib.code_version import code_version
from annotation.lib.heartbeat import Heartbeat, stale_before
from rlhf.models import Job, Worker
from rlhf.training import machine

BEAT_SECONDS = 5.0
MACHINE_SECONDS = 30.0
"""Seconds between two looks at the machine's free memory and disk."""
FORGET_AFTER = timedelta(minutes=10)
log = logging.getLogger(__name__)


class Presence:
    """Reports every few seconds that this worker lives, so that pages and the sweeper can tell."""

    def __init__(self, queues: Sequence[str]) -> None:
        self.queues = ",".join(queues)
        self.name = worker_name(self.queues)
        self._looked_at = -MACHINE_SECONDS
        self._heartbeat = Heartbeat(self._report, every=BEAT_SECONDS, name="presence")

    def start(self) -> None:
        _unless_away(self._report)
        self._heartbeat.start()

    def stop(self) -> None:
        self._heartbeat.stop()
        _unless_away(Worker.objects.filter(name=self.name).delete)

    def _report(self) -> None:
        fields: dict[str, Any] = {"queues": self.queues, "version": code_version()}
        if time.monotonic() - self._looked_at >= MACHINE_SECONDS:
            fields["machine"] = machine_now()
            self._looked_at = time.monotonic()
        report(self.name, **fields)


def worker_name(queues: str) -> str:
    """A name for this process that no other process has."""
    return f"{queues}@{socket.gethostname()}:{os.getpid()}"


def report(
    name: str, *, queues: str, version: str = "", machine: dict[str, Any] | None = None
) -> None:
    """Write that a worker lives, and what its machine has now; makes its row the first time."""
    changed: dict[str, Any] = {"seen_at": timezone.now()}
    if machine is not None:
        changed["machine"] = machine
    if not Worker.objects.filter(name=name).update(**changed):
        Worker.objects.update_or_create(
            name=name, defaults={"queues": queues, "version": version, **changed}
        )


def machine_now() -> dict[str, Any]:
    """This worker's machine as its row has it; the disk is that of the run folders."""
    settings.RUNS_DIR.mkdir(parents=True, exist_ok=True)
    return asdict(machine.describe(settings.RUNS_DIR))


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
