"""Batches that a program creates and fills over the API: prompts with responses to be judged.

Every request has a key of the client's own. The same key with the same content is the same request,
however often it arrives; with other content it is refused.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from django.db import transaction

from annotation.data.import_formats.report import ImportReport, PromptItem, RowError
from annotation.data.import_formats.unjudged import UnjudgedResponse, read_unjudged
from annotation.data.import_writing import known_prompts, write_prompts
from annotation.data.sources import check_source, create_source
from annotation.judge.gold_mixing import add_gold
from annotation.models import Batch, Event, Project, Prompt, Upload, User
from annotation.projects.batches import (
    BatchError,
    ResponseText,
    add_comparisons,
    close_batch,
    create_batch,
    open_batch,
)
from annotation.protocols import COMPARING, DIALOGUE, PRESETS, RESPONSES

MAX_ROWS = 5_000
MAX_COMPARISONS = 1_000_000

Item = tuple[PromptItem, list[UnjudgedResponse]]


class UploadConflict(BatchError):
    """The same key came with other content."""


class RowsRefused(BatchError):
    """What is wrong with which rows; nothing was written."""

    def __init__(self, report: ImportReport) -> None:
        super().__init__(str(report.problems[0]))
        self.report = report


def make_batch(
    project: Project,
    key: UUID,
    *,
    name: str,
    source: Mapping[str, str],
    sign_off: bool,
    preset: str = "",
    overlap: int | None = None,
    priority: int = 0,
    by: User,
) -> tuple[Batch, bool]:
    """A draft batch under the project's protocol or a preset's; and whether this call created it.

    `source` (`name`, `licence`, `url`) says whose prompts and responses these are; `sign_off` that
    `by` read the license and allows training. Raises BatchError when the batch is not possible.
    """
    digest = _digest(name, dict(source), sign_off, preset, overlap, priority)
    with transaction.atomic():
        Project.objects.lock(project.pk)
        earlier = _earlier_upload(project, key, digest)
        if earlier is not None:
            return earlier.batch, False
        report = ImportReport()
        check_source(source, report, sign_off=sign_off)
        if report.problems:
            raise BatchError(report.problems[0].reason)
        batch = create_batch(project, name, overlap=overlap, by=by)
        batch.is_by_hand, batch.priority = True, priority
        if preset:
            _check_preset_fits(preset, project)
            batch.interface = PRESETS[preset].interface
            batch.protocol = PRESETS[preset].protocol.as_json()
        if batch.effective_interface == DIALOGUE:
            raise BatchError("A live dialogue has no batch of prompts: people write them.")
        batch.source = create_source(project, source, by=by, sign_off=sign_off)
        batch.save()
        Upload.objects.create(project=project, batch=batch, key=key, sha256=digest, created_by=by)
    return batch, True


def add_rows(
    batch: Batch, key: UUID, rows: Sequence[Mapping[str, Any]], *, by: User
) -> tuple[dict[str, int], bool]:
    """Add a comparison per row, all or none: what was added, and whether this call added it.

    A row is `{"prompt": text} or {"messages": […]}` with `responses` (texts, or objects with `text`,
    `source`, `sampling`) and, if wished, `category`, `risk`, `split`, `skill`, `priority`, `id`. A
    prompt that the project has already stays as it is. RowsRefused names the wrong rows.
    """
    digest = _digest(batch.pk, list(rows))
    report = ImportReport(n_rows=len(rows))
    items = _read_rows(batch, rows, report)  # Outside the transaction: it may take a while.
    with transaction.atomic():
        Project.objects.lock(batch.project_id)
        earlier = _earlier_upload(batch.project, key, digest)
        if earlier is not None:
            return earlier.answer, False
        batch.refresh_from_db()
        _check_is_uploaded(batch)
        if batch.state == Batch.State.CLOSED:
            raise BatchError(f"The batch {batch.name} is closed; create a new one.")
        known = known_prompts(batch.project, [item.sha256 for _, (item, _) in items])
        compared = set(batch.comparisons.values_list("prompt_id", flat=True))
        for number, (item, _) in items:
            if known.get(item.sha256) in compared:
                report.add_problem(number, "the batch already compares responses to this prompt.")
        if not report.ok:
            raise RowsRefused(report)
        if len(compared) + len(items) > MAX_COMPARISONS:
            raise BatchError(
                f"A batch has at most {MAX_COMPARISONS:,} comparisons; create another."
            )
        n_new = _write_rows(batch, [item for _, item in items], known)
        answer = {
            "rows": len(rows),
            "new_prompts": n_new,
            "comparisons": len(compared) + len(items),
        }
        Upload.objects.create(
            project=batch.project, batch=batch, key=key, sha256=digest, answer=answer, created_by=by
        )
        Event.record(batch.project, by, "uploaded comparisons", batch.name, n=len(rows))
    return answer, True


def _write_rows(batch: Batch, items: Sequence[Item], known: Mapping[str, int]) -> int:
    """Write the new prompts and a comparison per item; how many prompts are new."""
    assert batch.source is not None  # make_batch sets it
    new = [prompt for prompt, _ in items if prompt.sha256 not in known]
    prompt_ids = {**known, **write_prompts(batch.project, batch.source, new, "train")}
    prompts = Prompt.objects.in_bulk(list(prompt_ids.values()))
    add_comparisons(
        batch,
        (
            (
                prompts[prompt_ids[prompt.sha256]],
                [ResponseText(r.text, r.source, r.sampling) for r in responses],
            )
            for prompt, responses in items
        ),
    )
    if batch.state == Batch.State.OPEN and batch.project.gold_every:
        add_gold(batch)
    return len(new)


def open_uploaded(batch: Batch, by: User) -> Batch:
    """Hand it out to people. Opening an open batch changes nothing."""
    _check_is_uploaded(batch)
    return open_batch(batch, by)


def close_uploaded(batch: Batch, by: User) -> Batch:
    """Stop handing it out. Closing a closed batch changes nothing."""
    _check_is_uploaded(batch)
    return close_batch(batch, by)


def _check_is_uploaded(batch: Batch) -> None:
    if not batch.uploads.exists():
        raise BatchError(f"{batch.name} was not created over the API, so the API can't change it.")


def _check_preset_fits(preset: str, project: Project) -> None:
    chosen = PRESETS[preset]
    axes = [axis["key"] for axis in chosen.axes]
    if chosen.interface in COMPARING and axes != project.axis_keys:
        raise BatchError(
            f"The preset {preset} compares on {' and '.join(axes)}, this project on "
            f"{' and '.join(project.axis_keys)}."
        )


def _read_rows(
    batch: Batch, rows: Sequence[Mapping[str, Any]], report: ImportReport
) -> list[tuple[int, Item]]:
    """The rows with their numbers, from 1; RowsRefused where any is wrong."""
    fewest, most = RESPONSES[batch.effective_interface]
    items: list[tuple[int, Item]] = []
    first_rows: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        try:
            prompt, responses = read_unjudged(dict(row), report, fewest=fewest, most=most)
        except RowError as error:
            report.add_problem(number, str(error))
            continue
        first_row = first_rows.setdefault(prompt.sha256, number)
        if first_row != number:
            report.add_problem(
                number, f"its prompt is that of row {first_row}; give each prompt once."
            )
        items.append((number, (prompt, responses)))
    if not report.ok:
        raise RowsRefused(report)
    return items


def _earlier_upload(project: Project, key: UUID, digest: str) -> Upload | None:
    upload = Upload.objects.select_related("batch").filter(project=project, key=key).first()
    if upload is not None and upload.sha256 != digest:
        raise UploadConflict("This key was used for another request; use a new one.")
    return upload


def _digest(*content: Any) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()
