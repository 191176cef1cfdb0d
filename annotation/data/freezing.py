"""Freezing what is too large to be waited for: a thread of the web server writes it, a row says how far.

What is small is frozen while the request waits, as before. If the server is stopped in between, the
row goes without a sign of life, says so, and nothing of the version is left.
"""

import logging
import threading
from datetime import timedelta
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from annotation.data import preferences
from annotation.data.snapshots import SnapshotError, freeze_snapshot
from annotation.lib.heartbeat import Heartbeat, is_stale
from annotation.models import Batch, Freezing, Project, Snapshot

State = Freezing.State
# Judgments that are written in about a second (docs/log/data.md: 10,000 take five to ten).
AT_ONCE = 2_000
STALE_AFTER = timedelta(minutes=3)
PROGRESS_SECONDS = 1.0
INTERRUPTED = "The server was stopped while it was written. Nothing is left of it: freeze again."

log = logging.getLogger(__name__)


def freeze(
    project: Project, *, by: Any, batches: list[Batch] | None = None, note: str = ""
) -> Snapshot | Freezing:
    """The snapshot where it is small, else the row that says how far it is.

    SnapshotError as for a snapshot, and while another one of this project is being written.
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
    if last is not None and last.is_writing and is_stale(last.beat_at, STALE_AFTER):
        lost = Freezing.objects.filter(pk=last.pk, state=State.WRITING, beat_at=last.beat_at)
        lost.update(state=State.FAILED, reason=INTERRUPTED)
        last.refresh_from_db()
    return last


def write(freezing: Freezing, batches: list[Batch] | None, note: str) -> None:
    """Write a version to its end; a second thread writes once a second how far it is.

    The thread that freezes reads one consistent state of the database, so it can write nothing.
    """
    mine = Freezing.objects.filter(pk=freezing.pk)
    n_written = 0

    def on_progress(n: int) -> None:
        nonlocal n_written
        n_written = n

    def report_progress() -> None:
        mine.update(done=n_written, beat_at=timezone.now())

    try:
        with Heartbeat(report_progress, every=PROGRESS_SECONDS, name="freezing progress"):
            freeze_snapshot(
                freezing.project,
                by=freezing.created_by,
                batches=batches,
                note=note,
                told=on_progress,
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


def _write_and_close(*args: Any) -> None:
    try:
        write(*args)
    except Exception:
        log.exception("A snapshot could not be written.")
    finally:
        connection.close()
