"""Forms of a version, made when they are asked for and kept in the cache folder.

A small form is made within the request, a large one by a thread of the web server, as a large
snapshot is (decision 21). The row records the progress. A form follows from the frozen files alone, so
its files can be deleted at any time: the next request makes them again.
"""

import logging
import re
import shutil
import threading
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Q
from django.utils import timezone

from annotation.data.export_forms import checked_choice, heldout_prompts, read_file, write_form
from annotation.data.exports.forms import ARCHIVE, Form
from annotation.data.exports.zips import zip_of
from annotation.data.snapshot_files import SnapshotError, file_sha256
from annotation.lib.heartbeat import Heartbeat, is_stale, stale_before
from annotation.models import Export, Snapshot

State = Export.State
# Rows that are written in about two seconds.
MAX_WAITED_FOR = 20_000
STALE_AFTER = timedelta(minutes=3)
PROGRESS_SECONDS = 1.0
FAILED = "It could not be made; the server's log has the reason."
INTERRUPTED = "The server was stopped while it made this form: ask for it again."

log = logging.getLogger(__name__)


def export_folder(export: Export) -> Path:
    """The folder of a form's files, and of what is downloaded."""
    return Path(settings.CACHE_DIR) / "forms" / str(export.folder)


def download_path(export: Export) -> Path:
    """The file that is downloaded."""
    return export_folder(export) / str(export.download["name"])


def ask_for(snapshot: Snapshot, key: str, axis: str = "", *, by: Any) -> Export:
    """The form, made at once if it is small; else a row whose thread is still writing.

    Raises SnapshotError as `write_form` does.
    """
    form, axis = checked_choice(snapshot, key, axis)
    export, _ = Export.objects.get_or_create(
        snapshot=snapshot,
        form=key,
        axis=axis,
        defaults={"revision": form.revision, "state": State.FAILED, "created_by": by},
    )
    if _is_there(export, form) or not _claim(export, form, by):
        return export
    export.total = _n_rows(snapshot, form, axis)
    export.save(update_fields=["total"])
    if export.total <= MAX_WAITED_FOR:
        make(export)
        if export.state == State.FAILED:
            raise SnapshotError(export.reason)
    else:
        thread = threading.Thread(target=_in_thread, args=(export,), name="export", daemon=True)
        transaction.on_commit(thread.start)
    return export


def forget(snapshot: Snapshot, key: str) -> None:
    """Delete what was made of a form, because it is not what would be made now."""
    for export in snapshot.exports.filter(form=key):
        shutil.rmtree(export_folder(export), ignore_errors=True)
        export.delete()


def made_or_small(snapshot: Snapshot, key: str, axis: str = "", *, by: Any) -> Export | None:
    """The form if it is made or can be made at once; None if that takes longer than a request may."""
    form, axis = checked_choice(snapshot, key, axis)
    export = snapshot.exports.filter(form=key, axis=axis).first()
    if export is None or not _is_there(export, form):
        if _n_rows(snapshot, form, axis) > MAX_WAITED_FOR:
            return None
        export = ask_for(snapshot, key, axis, by=by)
    return export if export.state == State.DONE else None


def _is_there(export: Export, form: Form) -> bool:
    return (
        export.state == State.DONE
        and export.revision == form.revision
        and download_path(export).is_file()
    )


def _claim(export: Export, form: Form, by: Any) -> bool:
    """Whether this request makes it: nobody else is at it, or who was has died."""
    mine = {
        "state": State.WRITING,
        "folder": uuid.uuid4(),
        "revision": form.revision,
        "done": 0,
        "reason": "",
        "beat_at": timezone.now(),
        "created_by": by,
        "created_at": timezone.now(),
    }
    old = Path(export_folder(export))
    free = ~Q(state=State.WRITING) | Q(beat_at__lt=stale_before(STALE_AFTER))
    claimed = Export.objects.filter(free, pk=export.pk, folder=export.folder).update(**mine)
    export.refresh_from_db()
    if claimed:
        shutil.rmtree(old, ignore_errors=True)
    return bool(claimed)


def _n_rows(snapshot: Snapshot, form: Form, axis: str) -> int:
    name = read_file(form, axis)
    if form.reads == "heldout":
        return len(heldout_prompts(snapshot))
    return sum(
        file["rows"] or 0
        for file in snapshot.files
        if file["name"].endswith(".parquet") and name in ("", file["name"].removesuffix(".parquet"))
    )


def latest(snapshot: Snapshot) -> dict[tuple[str, str], Export]:
    """The forms of a version that were asked for, by form and axis; what died is marked as failed."""
    exports = list(snapshot.exports.all())
    for export in exports:
        if export.is_writing and is_stale(export.beat_at, STALE_AFTER):
            unchanged = Export.objects.filter(
                pk=export.pk, state=State.WRITING, beat_at=export.beat_at
            )
            unchanged.update(state=State.FAILED, reason=INTERRUPTED)
            export.refresh_from_db()
    return {(export.form, export.axis): export for export in exports}


def make(export: Export) -> None:
    """Write the files of a claimed row; the row says how it ended."""
    row = Export.objects.filter(pk=export.pk, folder=export.folder)
    folder = export_folder(export)
    n_written = 0

    def remember(n: int) -> None:
        nonlocal n_written
        n_written = n

    heartbeat = Heartbeat(
        lambda: row.update(done=n_written, beat_at=timezone.now()),
        every=PROGRESS_SECONDS,
        name="export-progress",
    )
    try:
        folder.mkdir(parents=True)
        if export.total > MAX_WAITED_FOR:
            with heartbeat:
                columns = _write(export, folder, remember)
        else:
            columns = _write(export, folder, remember)
    except SnapshotError as error:
        columns = {"state": State.FAILED, "reason": str(error)[:300]}
    except Exception:
        row.update(state=State.FAILED, reason=FAILED)
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if columns["state"] == State.FAILED or not row.update(**columns):
        shutil.rmtree(folder, ignore_errors=True)  # of no use, or somebody else has taken over
        row.update(**columns)
    export.refresh_from_db()


def _write(export: Export, folder: Path, on_progress: Any) -> dict[str, Any]:
    """Write the form, and the zip if it has several files; the row's columns."""
    inner = folder / "files"
    inner.mkdir()
    output = write_form(export.snapshot, export.form, export.axis, inner, on_progress)
    paths = sorted(path for path in inner.rglob("*") if path.is_file())
    files = [
        {
            "name": path.relative_to(inner).as_posix(),
            "rows": output.rows.get(path.name),
            "bytes": path.stat().st_size,
            "sha256": file_sha256(path),
        }
        for path in paths
    ]
    snapshot = export.snapshot
    stem = f"{snapshot.project.slug}-v{snapshot.version}"
    stem += f"-{export.form}" if export.form != ARCHIVE else ""
    stem += "-" + re.sub(r"[^A-Za-z0-9_-]", "_", export.axis) if export.axis else ""
    if len(files) == 1:
        download = files[0] | {"name": f"{stem}{paths[0].suffix}"}
        paths[0].rename(folder / str(download["name"]))
        inner.rmdir()
    else:
        packed = folder / f"{stem}.zip"
        with packed.open("wb") as file:
            for chunk in zip_of(
                [(path, str(entry["name"])) for path, entry in zip(paths, files, strict=True)],
                snapshot.created_at,
            ):
                file.write(chunk)
        download = {
            "name": packed.name,
            "bytes": packed.stat().st_size,
            "sha256": file_sha256(packed),
        }
    return {
        "state": State.DONE,
        "done": sum(output.rows.values()),
        "files": files,
        "download": download,
        "left_out": dict(output.left_out),
    }


def files_of(export: Export) -> list[tuple[str, Path]]:
    """(name, path) of each file of a form that is made."""
    folder = export_folder(export)
    if len(export.files) == 1:
        return [(export.files[0]["name"], download_path(export))]
    return [(file["name"], folder / "files" / file["name"]) for file in export.files]


def _in_thread(export: Export) -> None:
    try:
        make(export)
    except Exception:
        log.exception("A form of a version could not be made.")
    finally:
        connection.close()
