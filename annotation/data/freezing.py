"""Freezing a large snapshot in the background: a thread of the web server writes it, and a row
records the progress.

A small snapshot is frozen within the request. If the server stops meanwhile, the heartbeat of the
row ends, the freezing counts as failed, and no partial version remains.
"""

import logging
import threading
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, TypedDict, Unpack

from django.db import connection, transaction
from django.utils import timezone

from annotation.data import preferences
from annotation.data.snapshot_files import SnapshotError
from annotation.data.snapshot_options import SnapshotOptions
from annotation.data.snapshots import checked_options, freeze_snapshot
from annotation.lib.heartbeat import Heartbeat, is_stale
from annotation.models import Batch, Freezing, Project, Snapshot
from annotation.statistics.reliability import Quality

State = Freezing.State
# Judgments that are written in about a second (docs/log/data.md: 10,000 take five to ten).
MAX_WAITED_FOR = 2_000
STALE_AFTER = timedelta(minutes=3)
PROGRESS_SECONDS = 1.0
INTERRUPTED = (
    "The server was stopped while it wrote this version. Nothing is left of it: freeze again."
)
FAILED = "The version could not be written; the server's log has the reason."

log = logging.getLogger(__name__)


class Choices(TypedDict, total=False):
    """What `freeze_snapshot` takes in addition to the project and the person."""

    batches: list[Batch] | None
    note: str
    rounds: Mapping[int, Any] | None
    options: SnapshotOptions
    quality: Quality | None


def freeze(project: Project, *, by: Any, **choices: Unpack[Choices]) -> Snapshot | Freezing:
    """Freeze a small snapshot at once; start a thread for a large one.

    Returns the snapshot, or the row with the progress. Raises SnapshotError as `freeze_snapshot`
    does, and while another snapshot of this project is being written.
    """
    options = checked_options(project, choices.get("options", SnapshotOptions()))
    counts = preferences.judgment_counts(
        project, batches=choices.get("batches"), filters=options.filters
    )
    total = counts["used"]
    if total <= MAX_WAITED_FOR:
        return freeze_snapshot(project, by=by, **choices)
    with transaction.atomic():
        Project.objects.lock(project.pk)
        last = latest_freezing(project)
        if last is not None and last.is_writing:
            raise SnapshotError(
                f"A version is being written, {last.done:,} of {last.total:,} judgments so far; "
                "one at a time."
            )
        freezing = Freezing.objects.create(project=project, total=total, created_by=by)
        thread = threading.Thread(
            target=_write_in_thread, args=(freezing,), kwargs=choices, name="freezing", daemon=True
        )
        transaction.on_commit(thread.start)
    return freezing


def latest_freezing(project: Project) -> Freezing | None:
    """The latest freezing, marked as failed if its heartbeat is stale."""
    last = project.freezings.first()
    if last is not None and last.is_writing and is_stale(last.beat_at, STALE_AFTER):
        unchanged = Freezing.objects.filter(pk=last.pk, state=State.WRITING, beat_at=last.beat_at)
        unchanged.update(state=State.FAILED, reason=INTERRUPTED)
        last.refresh_from_db()
    return last


def write_in_background(freezing: Freezing, **choices: Unpack[Choices]) -> None:
    """Write the snapshot, recording the progress once a second; the row says how it ended."""
    row = Freezing.objects.filter(pk=freezing.pk)
    n_written = 0

    def remember(n: int) -> None:
        nonlocal n_written
        n_written = n

    # In a thread of its own: the one that freezes reads one state of the database and writes nothing.
    heartbeat = Heartbeat(
        lambda: row.update(done=n_written, beat_at=timezone.now()),
        every=PROGRESS_SECONDS,
        name="freezing-progress",
    )
    try:
        with heartbeat:
            freeze_snapshot(
                freezing.project,
                by=freezing.created_by,
                on_progress=remember,
                **choices,
            )
    except SnapshotError as error:
        row.update(state=State.FAILED, reason=str(error)[:300])
    except Exception:
        row.update(state=State.FAILED, reason=FAILED)
        raise
    else:
        row.update(state=State.DONE, done=freezing.total)


def _write_in_thread(freezing: Freezing, **choices: Unpack[Choices]) -> None:
    try:
        write_in_background(freezing, **choices)
    except Exception:
        log.exception("A snapshot could not be written.")
    finally:
        connection.close()
