"""Freezing what is too large to be waited for: a thread of the web server writes it, a row says how far.

What is small is frozen while the request waits, as before. If the server is stopped in between, the
row goes without a sign of life, says so, and nothing of the version is left.
"""

import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from annotation.data import preferences
from annotation.data.snapshots import SnapshotError, freeze_snapshot
from annotation.models import Batch, Freezing, Project, Snapshot

State = Freezing.State
# Judgments that are written in about a second (docs/log/data.md: 10,000 take five to ten).
AT_ONCE = 2_000
STALE = timedelta(minutes=3)
INTERRUPTED = "The server was stopped while it was written. Nothing is left of it: freeze again."

log = logging.getLogger(__name__)


def freeze(
    project: Project, *, by: Any, batches: list[Batch] | None = None, note: str = ""
) -> Snapshot | Freezing:
    """The snapshot where it is small, else what says how far it is; SnapshotError as for a snapshot,

    and while another one of this project is being written.
    """
    total = preferences.counts(project, batches=batches)["used"]
    if total <= AT_ONCE:
        return freeze_snapshot(project, by=by, batches=batches, note=note)
    with transaction.atomic():
        Project.objects.lock(project.pk)
        last = latest(project)
        if last is not None and last.is_writing:
            raise SnapshotError(
                f"A version is being written, {last.done:,} of {last.total:,} judgments so far; "
                "one at a time."
            )
        freezing = Freezing.objects.create(project=project, total=total, created_by=by)
        thread = threading.Thread(
            target=_write_and_close, args=(freezing, batches, note), name="freezing", daemon=True
        )
        transaction.on_commit(thread.start)
    return freezing


def latest(project: Project) -> Freezing | None:
    """The last one that was begun. One that nobody writes any more has failed."""
    last = project.freezings.first()
    if last is not None and last.is_writing and last.beat_at < timezone.now() - STALE:
        lost = Freezing.objects.filter(pk=last.pk, state=State.WRITING, beat_at=last.beat_at)
        lost.update(state=State.FAILED, reason=INTERRUPTED)
        last.refresh_from_db()
    return last


def write(freezing: Freezing, batches: list[Batch] | None, note: str) -> None:
    """Write it to its end, telling once a second how far it is."""
    mine = Freezing.objects.filter(pk=freezing.pk)
    try:
        with _Telling(freezing) as told:
            freeze_snapshot(
                freezing.project, by=freezing.created_by, batches=batches, note=note, told=told
            )
    except SnapshotError as problem:
        mine.update(state=State.FAILED, reason=str(problem)[:300])
    except Exception:
        mine.update(
            state=State.FAILED, reason="It could not be written: the log of the server says why."
        )
        raise
    else:
        mine.update(state=State.DONE, done=freezing.total)


class _Telling:
    """Writes once a second how far it is, in a thread: who freezes reads one moment, writes nothing."""

    def __init__(self, freezing: Freezing) -> None:
        self.mine = Freezing.objects.filter(pk=freezing.pk)
        self.done, self.is_over = 0, threading.Event()
        self.thread = threading.Thread(target=self._tell, name="telling", daemon=True)

    def __enter__(self) -> Callable[[int], None]:
        self.thread.start()
        return self._hear

    def __exit__(self, *problem: object) -> None:
        self.is_over.set()
        self.thread.join()

    def _hear(self, n: int) -> None:
        self.done = n

    def _tell(self) -> None:
        try:
            while not self.is_over.wait(1.0):
                self.mine.update(done=self.done, beat_at=timezone.now())
        except DatabaseError:
            log.warning("How far the freezing is can't be told any more.", exc_info=True)
        finally:
            connection.close()


def _write_and_close(*args: Any) -> None:
    try:
        write(*args)
    except Exception:
        log.exception("A snapshot could not be written.")
    finally:
        connection.close()
