"""Freeze the preferences of a project: files that never change, their hashes, and a dataset card.

A snapshot is a folder that `datasets.load_dataset` opens as it is. It is written under a temporary
name and renamed in the transaction that creates its row: there is never a row without its files.
"""

import hashlib
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Max
from django.utils import timezone

from annotation.data import preferences
from annotation.data.consistent_read import consistent_read
from annotation.data.dataset_card import dataset_card
from annotation.data.filtering import why_not_exclude
from annotation.data.filters.table import FILTERS
from annotation.data.snapshot_files import (
    CARD,
    JUDGMENTS,
    MANIFEST,
    SUMS,
    SnapshotError,
    file_sha256,
    pair_file,
)
from annotation.data.snapshot_options import OptionsError, SnapshotOptions
from annotation.data.snapshot_record import manifest, snapshot_record
from annotation.data.snapshot_rows import SnapshotRows
from annotation.models import Batch, Event, Project, Snapshot
from annotation.statistics.reliability import Quality

ABANDONED_SECONDS = 86_400
# How often to try the next version number when other people freeze at the same moment.
ATTEMPTS = 10


def freeze_snapshot(
    project: Project,
    *,
    by: Any,
    batches: Iterable[Batch] | None = None,
    note: str = "",
    rounds: Mapping[int, Any] | None = None,
    options: SnapshotOptions = SnapshotOptions(),  # noqa: B008
    quality: Quality | None = None,
    on_progress: Callable[[int], None] = lambda n: None,
) -> Snapshot:
    """Write the judgments that training may see to SNAPSHOTS_DIR/<uid>/ and record the snapshot.

    All rows are of one state of the database. `rounds`, `quality` (needed for a consensus) and
    `on_progress` are those of SnapshotRows. Raises SnapshotError, with nothing written, when there is
    nothing to freeze and for options that the project does not have.
    """
    batches = None if batches is None else list(batches)
    options = checked_options(project, options)
    uid = uuid.uuid4()
    partial = Path(settings.SNAPSHOTS_DIR) / f".partial-{uid}"
    _remove_abandoned(partial.parent)
    partial.mkdir(parents=True)
    try:
        rows = SnapshotRows(project, partial, batches, rounds, on_progress, options, quality)
        with consistent_read():
            counts = preferences.judgment_counts(project, batches=batches, filters=options.filters)
            if not counts["used"]:
                raise SnapshotError(_why_empty(counts))
            rows.write()
            columns = snapshot_record(rows, counts)
        columns |= {"uid": uid, "note": note[:200], "agreement": rows.agreement.result()}
        for _ in range(ATTEMPTS):
            snapshot = _next_version(project, by, columns)
            _describe_files(snapshot, partial, rows)
            try:
                _record(snapshot, by, partial)
            except IntegrityError:
                continue
            return snapshot
        raise SnapshotError("Other people are freezing this project too; try again in a moment.")
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def checked_options(project: Project, options: SnapshotOptions) -> SnapshotOptions:
    """The options, with the filters that may exclude here; SnapshotError for one that may not."""
    try:
        options = options.checked(project)
    except OptionsError as error:
        raise SnapshotError(str(error)) from None
    settings = {setting.filter: setting for setting in project.filters.all()}
    for key in options.filters:
        if key not in settings:
            raise SnapshotError(f"The filter “{key}” has not been run in this project.")
        if not settings[key].excludes and (reasons := why_not_exclude(settings[key])):
            raise SnapshotError(f"{FILTERS[key].name} can't exclude rows yet. {' '.join(reasons)}")
    return options


def _next_version(project: Project, by: Any, columns: Mapping[str, Any]) -> Snapshot:
    latest = project.snapshots.aggregate(latest=Max("version"))["latest"]
    return Snapshot(
        project=project,
        version=(latest or 0) + 1,
        created_by=by,
        created_at=timezone.now(),
        **columns,
    )


def _record(snapshot: Snapshot, by: Any, partial: Path) -> None:
    """Save the row and give the folder its name; IntegrityError if the version is taken."""
    with transaction.atomic():
        snapshot.save(force_insert=True)
        Event.record(
            snapshot.project,
            by,
            "froze data",
            f"version {snapshot.version}",
            snapshot=snapshot.pk,
            sha256=snapshot.sha256,
        )
        partial.rename(snapshot.folder)


def _remove_abandoned(folder: Path) -> None:
    """Delete partial folders that a killed server left behind a day ago or more."""
    for partial in folder.glob(".partial-*"):
        if time.time() - partial.stat().st_mtime > ABANDONED_SECONDS:
            shutil.rmtree(partial, ignore_errors=True)


def _describe_files(snapshot: Snapshot, folder: Path, rows: SnapshotRows) -> None:
    """Write README.md, snapshot.json and SHA256SUMS; record each file with its hash, and that of all."""
    tally = rows.tally
    snapshot.card = dataset_card(snapshot, rows.schemas)
    (folder / CARD).write_text(snapshot.card, encoding="utf-8")
    (folder / MANIFEST).write_bytes(manifest(snapshot))
    (folder / SUMS).unlink(missing_ok=True)
    n_rows = {JUDGMENTS: tally.judgments}
    n_rows |= {pair_file(axis): n for axis, n in tally.pairs.items()} | dict(tally.response_rows)
    files = [
        {
            "name": path.name,
            "bytes": path.stat().st_size,
            "rows": n_rows.get(path.stem),
            "sha256": file_sha256(path),
        }
        for path in sorted(folder.iterdir())
    ]
    # The card is generated from snapshot.json, and may get a deprecation note when it is downloaded.
    hashed = [file for file in files if file["name"] != CARD]
    sums = "".join(f"{file['sha256']}  {file['name']}\n" for file in hashed).encode()
    (folder / SUMS).write_bytes(sums)
    snapshot.sha256 = hashlib.sha256(sums).hexdigest()
    snapshot.files = [
        *files,
        {"name": SUMS, "bytes": len(sums), "rows": None, "sha256": snapshot.sha256},
    ]


def _why_empty(counts: dict[str, int]) -> str:
    """One sentence: why there is nothing to freeze, and what would change that."""
    reasons = []
    if counts["not_signed_off"]:
        reasons.append(f"{counts['not_signed_off']} are from sources that nobody has signed off")
    if counts["filtered"]:
        reasons.append(f"{counts['filtered']} are on texts that a filter excludes")
    if counts["heldout"]:
        reasons.append(f"{counts['heldout']} are about held-out or watch prompts")
    if counts["excluded"]:
        reasons.append(f"{counts['excluded']} were excluded")
    if not reasons:
        return (
            "There are no judgments yet, so there is nothing to freeze; rank some responses first."
        )
    return f"Training may see none of the judgments: {' and '.join(reasons)}."
