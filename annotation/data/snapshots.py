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
from django.db.models import Count, Max
from django.utils import timezone

from annotation.data import preferences
from annotation.data.admission import admitted, exclusions
from annotation.data.consistent_read import consistent_read
from annotation.data.dataset_card import dataset_card
from annotation.data.filter_report import filter_report
from annotation.data.snapshot_files import (
    CARD,
    DEMONSTRATIONS,
    JUDGMENTS,
    RATINGS,
    SUMS,
    SnapshotError,
    file_sha256,
    pair_file,
)
from annotation.data.snapshot_rows import SnapshotRows, Tally
from annotation.models import Batch, Event, Project, Snapshot, Source

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
    on_progress: Callable[[int], None] = lambda n: None,
) -> Snapshot:
    """Write the judgments that training may see to SNAPSHOTS_DIR/<uid>/ and record the snapshot.

    All rows are of one state of the database. `rounds` and `on_progress` are those of SnapshotRows.
    Raises SnapshotError, with nothing written, when there is nothing to freeze.
    """
    batches = None if batches is None else list(batches)
    uid = uuid.uuid4()
    partial = Path(settings.SNAPSHOTS_DIR) / f".partial-{uid}"
    _remove_abandoned(partial.parent)
    partial.mkdir(parents=True)
    try:
        rows = SnapshotRows(project, partial, batches, rounds, on_progress)
        with consistent_read():
            counts = preferences.judgment_counts(project, batches=batches)
            if not counts["used"]:
                raise SnapshotError(_why_empty(counts))
            rows.write()
            columns = _columns(project, rows.tally, counts, batches)
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


def _columns(
    project: Project, tally: Tally, counts: dict[str, int], batches: list[Batch] | None
) -> dict[str, Any]:
    """The snapshot's columns that follow from what was counted."""
    used = Batch.objects.in_bulk(list(tally.batches))
    sources = Source.objects.in_bulk(list(tally.sources))
    left_out = {
        name: counts[name]
        for name in ("heldout", "not_signed_off", "filtered", "excluded", "overruled")
    }
    return {
        "query": {
            "batches": [
                {
                    "id": pk,
                    "name": used[pk].name,
                    "is_imported": used[pk].is_imported,
                    "interface": used[pk].effective_interface,
                    "protocol": used[pk].effective_protocol.as_json(),
                    "n_judgments": n,
                    "sources": sorted(tally.sources_by_batch[pk]),
                }
                for pk, n in sorted(tally.batches.items())
            ],
            "all_batches": batches is None,
            "split": "train",
            "ties": "drop",
            "filters": [
                {
                    "filter": setting.filter,
                    "threshold": setting.threshold,
                    "version": setting.version,
                }
                for setting, *_ in exclusions(project)
            ],
            "filter_report": filter_report(project),
        },
        "counts": {
            "judgments": tally.judgments,
            "ratings": tally.response_rows[RATINGS],
            "demonstrations": tally.response_rows[DEMONSTRATIONS],
            "prompts": len(tally.prompts),
            "pairs": {axis: tally.pairs[axis] for axis in project.axis_keys},
            "ties": {axis: tally.ties[axis] for axis in project.axis_keys},
            "annotators": tally.people("annotator"),
            "simulated_annotators": tally.people("simulated"),
            "imported_annotators": tally.people("imported"),
            "reviewers": tally.people("reviewer"),
            "rulings": tally.judgments_by("reviewer"),
            "judgments_simulated": tally.judgments_by("simulated"),
            "judgments_imported": tally.judgments_by("imported"),
            "guidelines": _guidelines(project, batches),
            "responses_per_judgment": round(tally.responses / max(1, tally.judgments), 2),
            "left_out": left_out,
        },
        "licences": [
            {
                "id": pk,
                "source": sources[pk].name,
                "licence": sources[pk].licence,
                "url": sources[pk].url,
                "n_judgments": n,
            }
            for pk, n in sorted(tally.sources.items())
        ],
    }


def _guidelines(project: Project, batches: list[Batch] | None) -> dict[str, int]:
    """How many of the judgments made here were made under each version of the guidelines."""
    judgments = admitted(project, preferences.judgments_of(project, batches=batches)).filter(
        assignment__comparison__batch__is_imported=False
    )
    versions = judgments.values_list("guideline_version").annotate(n=Count("pk"))
    return {str(version): n for version, n in versions.order_by("guideline_version")}


def _describe_files(snapshot: Snapshot, folder: Path, rows: SnapshotRows) -> None:
    """Write README.md and SHA256SUMS; record each file with its hash, and the hash of them all."""
    tally = rows.tally
    snapshot.card = dataset_card(snapshot, rows.schemas)
    (folder / CARD).write_text(snapshot.card, encoding="utf-8")
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
    sums = "".join(f"{file['sha256']}  {file['name']}\n" for file in files).encode()
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
