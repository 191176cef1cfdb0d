"""Batches that a program makes and fills over the API: prompts with responses that nobody has judged.

Every act has a key of the client's own. The same key with the same content is the same act, however
often it arrives; with another content it is refused.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from annotation.data.import_formats import (
    BadRow,
    GivenResponse,
    ImportReport,
    PromptItem,
    unjudged,
)
from annotation.data.imports import check_source, known_prompts, lock_project, write_prompts
from annotation.judge import gold
from annotation.models import Batch, Event, Project, Prompt, Source, Upload, User
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

Item = tuple[PromptItem, list[GivenResponse]]


class UploadConflict(BatchError):
    """The same key came with another content."""


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
    """A batch in draft under the project's protocol or a preset's; and whether it was made just now.

    `source` (`name`, `licence`, `url`) says whose prompts and responses these are; `sign_off` that
    `by` read the licence and allows training. BatchError says what can't be.
    """
    digest = _digest(name, dict(source), sign_off, preset, overlap, priority)
    with transaction.atomic():
        lock_project(project)
        earlier = _earlier(project, key, digest)
        if earlier is not None:
            return earlier.batch, False
        report = ImportReport()
        check_source(source, report, sign_off=sign_off)
        if report.problems:
            raise BatchError(report.problems[0].reason)
        batch = create_batch(project, name, overlap=overlap, by=by)
        batch.is_by_hand, batch.priority = True, priority
        if preset:
            _check_fits(preset, project)
            batch.interface = PRESETS[preset].interface
            batch.protocol = PRESETS[preset].protocol.as_json()
        if batch.face == DIALOGUE:
            raise BatchError("A live dialogue has no batch of prompts: people write them.")
        batch.source = Source.objects.create(
            project=project,
            name=source["name"].strip(),
            licence=source.get("licence", "").strip(),
            url=source.get("url", "").strip(),
            created_by=by,
            signed_off_by=by if sign_off else None,
            signed_off_at=timezone.now() if sign_off else None,
        )
        batch.save()
        Upload.objects.create(project=project, batch=batch, key=key, sha256=digest, created_by=by)
    return batch, True


def add_rows(
    batch: Batch, key: UUID, rows: Sequence[Mapping[str, Any]], *, by: User
) -> tuple[dict[str, int], bool]:
    """Add a comparison per row, all or none: what was added, and whether that was done just now.

    A row is `{"prompt": text} or {"messages": […]}` with `responses` (texts, or objects with `text`,
    `source`, `sampling`) and, if wished, `category`, `risk`, `split`, `skill`, `priority`, `id`. A
    prompt that the project has already stays as it is. RowsRefused names the rows that can't be.
    """
    digest = _digest(batch.pk, list(rows))
    report = ImportReport(n_rows=len(rows))
    items = _read(batch, rows, report)  # Outside the transaction: it may take a while.
    with transaction.atomic():
        lock_project(batch.project)
        earlier = _earlier(batch.project, key, digest)
        if earlier is not None:
            return earlier.answer, False
        batch.refresh_from_db()
        _check_own(batch)
        if batch.state == Batch.State.CLOSED:
            raise BatchError(f"The batch {batch.name} is closed; make a new one.")
        known = known_prompts(batch.project, [item.sha256 for _, (item, _) in items])
        there = set(batch.comparisons.values_list("prompt_id", flat=True))
        for number, (item, _) in items:
            if known.get(item.sha256) in there:
                report.add(number, "the batch compares responses to this prompt already.")
        if not report.ok:
            raise RowsRefused(report)
        if len(there) + len(items) > MAX_COMPARISONS:
            raise BatchError(f"A batch has at most {MAX_COMPARISONS:,} comparisons; make another.")
        assert batch.source is not None  # make_batch saw to it
        new = [item for _, (item, _) in items if item.sha256 not in known]
        pks = known | write_prompts(batch.project, batch.source, new, "train")
        prompts = Prompt.objects.in_bulk(list(pks.values()))
        add_comparisons(
            batch,
            (
                (
                    prompts[pks[item.sha256]],
                    [ResponseText(one.text, one.source, one.sampling) for one in responses],
                )
                for _, (item, responses) in items
            ),
        )
        if batch.state == Batch.State.OPEN and batch.project.gold_every:
            gold.sow(batch)
        answer = {
            "rows": len(rows),
            "new_prompts": len(new),
            "comparisons": len(there) + len(items),
        }
        Upload.objects.create(
            project=batch.project, batch=batch, key=key, sha256=digest, answer=answer, created_by=by
        )
        Event.record(batch.project, by, "uploaded comparisons", batch.name, n=len(rows))
    return answer, True


def open_uploaded(batch: Batch, by: User) -> Batch:
    """Put it in front of people. Opening an open one changes nothing."""
    _check_own(batch)
    return open_batch(batch, by)


def close_uploaded(batch: Batch, by: User) -> Batch:
    """Stop handing it out. Closing a closed one changes nothing."""
    _check_own(batch)
    return close_batch(batch, by)


def _check_own(batch: Batch) -> None:
    if not batch.uploads.exists():
        raise BatchError(f"{batch.name} was not made over the API; whoever made it fills it.")


def _check_fits(preset: str, project: Project) -> None:
    chosen = PRESETS[preset]
    axes = [axis["key"] for axis in chosen.axes]
    if chosen.interface in COMPARING and axes != project.axis_keys:
        raise BatchError(
            f"The preset {preset} compares on {' and '.join(axes)}, this project on "
            f"{' and '.join(project.axis_keys)}."
        )


def _read(
    batch: Batch, rows: Sequence[Mapping[str, Any]], report: ImportReport
) -> list[tuple[int, Item]]:
    """The rows with their numbers, from 1; RowsRefused where any can't be."""
    fewest, most = RESPONSES[batch.face]
    items: list[tuple[int, Item]] = []
    first: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        try:
            item, responses = unjudged(dict(row), report, fewest=fewest, most=most)
        except BadRow as bad:
            report.add(number, str(bad))
            continue
        if item.sha256 in first:
            report.add(
                number, f"its prompt is that of row {first[item.sha256]}; give each prompt once."
            )
        first.setdefault(item.sha256, number)
        items.append((number, (item, responses)))
    if not report.ok:
        raise RowsRefused(report)
    return items


def _earlier(project: Project, key: UUID, digest: str) -> Upload | None:
    found = Upload.objects.select_related("batch").filter(project=project, key=key).first()
    if found is not None and found.sha256 != digest:
        raise UploadConflict("This key was used for another request; take a new one.")
    return found


def _digest(*sent: Any) -> str:
    canonical = json.dumps(sent, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()
