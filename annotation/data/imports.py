"""Prompts and comparisons in, from files that other people made. All of a file, or nothing of it.

annotation/data/import_formats.py reads and checks; what is here writes, in one transaction, when nothing
is wrong. Imported comparisons become a closed batch with judgments by the user `(imported)`: the
same rows that the judging pages make, written in bulk in `_write_comparisons` (the one place
besides judging.py that writes a Judgment) with the counters that judging would have left behind.
"""

import hashlib
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from django.db import transaction
from django.db.models import OuterRef, Subquery
from django.utils import timezone

from annotation.data.import_formats import (
    ComparisonItem,
    ImportReport,
    PromptItem,
    read_comparisons,
    read_prompts,
)
from annotation.models import (
    Assignment,
    Batch,
    Comparison,
    Event,
    Judgment,
    Project,
    Prompt,
    Response,
    Source,
    User,
)

CHUNK = 500
# A space keeps it out of reach of anybody who signs up.
IMPORTED_USERNAME = "(imported)"


def import_prompts(
    project: Project,
    file: Path | BinaryIO,
    *,
    format: str = "auto",
    source: Mapping[str, str],
    by: User | None,
    sign_off: bool = False,
    split: str = "auto",
) -> ImportReport:
    """Write every prompt of the file to the project, or none and a report that says why.

    `source` has `name`, `licence`, `url`. `split` "auto" goes by each text's hash (80 % train, 5 %
    watch, 15 % held out) unless the row names one. A prompt that the project already has stays as
    it is, in its split, and counts as a duplicate.
    """
    started = time.monotonic()
    items, report = read_prompts(file, format=format)
    check_source(source, report, sign_off=sign_off)
    if report.ok:
        with transaction.atomic():
            lock_project(project)
            known = known_prompts(project, [item.sha256 for item in items])
            new = [item for item in items if item.sha256 not in known]
            report.n_duplicates += len(items) - len(new)
            report.n_imported = len(new)
            if new:
                report.source = _make_source(project, source, report, by, sign_off=sign_off)
                write_prompts(project, report.source, new, split)
                _record(project, by, "imported prompts", report)
    report.seconds = time.monotonic() - started
    return report


def import_comparisons(
    project: Project,
    file: Path | BinaryIO,
    *,
    axis: str,
    format: str = "auto",
    source: Mapping[str, str],
    by: User | None,
    sign_off: bool = False,
    split: str = "train",
) -> ImportReport:
    """Write every comparison of the file, with its judgment, as a closed batch; or none.

    A judgment's idempotency key follows from its content, so that a file taken in twice adds
    nothing. A batch holds each prompt once: where a file compares a prompt's answers again, the
    later comparisons go to a second batch ("part 2"), and so on. `split` is where prompts that are
    new to the project go: "train", or "auto" for a share held out by the text's hash.
    """
    started = time.monotonic()
    items, report = read_comparisons(file, axis=axis, axes=project.axis_keys, format=format)
    check_source(source, report, sign_off=sign_off)
    if report.ok:
        with transaction.atomic():
            lock_project(project)
            keyed = {_key(project, item): item for item in items}
            known = _known_judgments(list(keyed))
            new = {key: item for key, item in keyed.items() if key not in known}
            report.n_duplicates += len(keyed) - len(new)
            report.n_imported = len(new)
            if new:
                report.source = _make_source(project, source, report, by, sign_off=sign_off)
                report.batches = _write_comparisons(project, report.source, new, split)
                _record(project, by, "imported comparisons", report)
    report.seconds = time.monotonic() - started
    return report


def _record(project: Project, by: User | None, verb: str, report: ImportReport) -> None:
    source = report.source
    assert source is not None
    Event.record(
        project, by, verb, source.name, source=source.pk, n=report.n_imported, sha256=report.sha256
    )
    if source.is_signed_off:
        Event.record(project, by, "signed off source", source.name, source=source.pk)


def check_source(source: Mapping[str, str], report: ImportReport, *, sign_off: bool) -> None:
    """Add to the report what is wrong with a source's name, licence and link."""
    if not source.get("name", "").strip():
        report.add(None, "Name the source: a dataset without a name and licence can't be traced.")
    for key, limit in (("name", 120), ("licence", 120), ("url", 200)):
        if len(source.get(key, "")) > limit:
            report.add(None, f"The source's {key} is longer than {limit} characters.")
    if sign_off and not source.get("licence", "").strip():
        report.add(None, "Name the licence: a source is signed off for training under one.")
    url = source.get("url", "")
    if url and not url.startswith(("https://", "http://")):
        report.add(None, "The source's link does not begin with https:// or http://.")


def lock_project(project: Project) -> None:
    """One import of a project at a time, so that two of the same file cannot both be first."""
    Project.objects.lock(project.pk)


def _make_source(
    project: Project,
    source: Mapping[str, str],
    report: ImportReport,
    by: User | None,
    *,
    sign_off: bool,
) -> Source:
    return Source.objects.create(
        project=project,
        name=source["name"].strip(),
        licence=source.get("licence", "").strip(),
        url=source.get("url", "").strip(),
        note=source.get("note", ""),
        n_rows=report.n_rows,
        n_duplicates=report.n_duplicates,
        sha256=report.sha256,
        created_by=by,
        signed_off_by=by if sign_off else None,
        signed_off_at=timezone.now() if sign_off else None,
    )


def _chunks(items: Sequence[Any], size: int = CHUNK) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def known_prompts(project: Project, hashes: Sequence[str]) -> dict[str, int]:
    """Ids of the prompts that the project has, by hash."""
    known: dict[str, int] = {}
    for chunk in _chunks(hashes):
        known.update(
            Prompt.objects.filter(project=project, sha256__in=chunk).values_list("sha256", "pk")
        )
    return known


def _known_judgments(keys: Sequence[uuid.UUID]) -> set[uuid.UUID]:
    known: set[uuid.UUID] = set()
    for chunk in _chunks(keys):
        known.update(Judgment.objects.filter(key__in=chunk).values_list("key", flat=True))
    return known


def _key(project: Project, item: ComparisonItem) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_OID, f"import {project.pk} {item.digest()}")


def write_prompts(
    project: Project, source: Source, items: Iterable[PromptItem], split: str
) -> dict[str, int]:
    """New prompts in bulk; their ids by hash. bulk_create skips save(), so sha256 is given here."""
    prompts = Prompt.objects.bulk_create(
        [
            Prompt(
                project=project,
                source=source,
                messages=item.messages,
                sha256=item.sha256,
                category=item.category,
                risk=item.risk,
                split=item.split or (Prompt.split_for(item.sha256) if split == "auto" else split),
                external_id=item.external_id,
                skill=item.skill,
                priority=item.priority,
            )
            for item in items
        ],
        batch_size=CHUNK,
    )
    return {prompt.sha256: prompt.pk for prompt in prompts}


def _write_comparisons(
    project: Project, source: Source, items: Mapping[uuid.UUID, ComparisonItem], split: str
) -> list[Batch]:
    """Batches, comparisons, responses, assignments and judgments in bulk, as judging would leave them."""
    hashes = {item.prompt.sha256: item.prompt for item in items.values()}
    prompt_ids = known_prompts(project, list(hashes))
    new = [prompt for sha256, prompt in hashes.items() if sha256 not in prompt_ids]
    prompt_ids |= write_prompts(project, source, new, split)

    seen: Counter[str] = Counter()
    parts: list[list[tuple[uuid.UUID, ComparisonItem]]] = []
    for key, item in items.items():
        part = seen[item.prompt.sha256]
        seen[item.prompt.sha256] += 1
        if part == len(parts):
            parts.append([])
        parts[part].append((key, item))

    person, created = User.objects.get_or_create(
        username=IMPORTED_USERNAME, defaults={"is_active": False}
    )
    if created:
        person.set_unusable_password()
        person.save(update_fields=["password"])
    batches = []
    for number, part_items in enumerate(parts, start=1):
        now = timezone.now()
        batch = Batch.objects.create(
            project=project,
            source=source,
            name=source.name[:100] + (f", part {number}" if number > 1 else ""),
            state=Batch.State.CLOSED,
            is_imported=True,
            opened_at=now,
            closed_at=now,
        )
        for chunk in _chunks(part_items):
            _write_judged(project, source, batch, person, prompt_ids, chunk)
        Assignment.objects.filter(comparison__batch=batch).update(
            judgment_id=Subquery(
                Judgment.objects.filter(assignment=OuterRef("pk")).values("pk")[:1]
            )
        )
        batches.append(batch)
    return batches


def _write_judged(
    project: Project,
    source: Source,
    batch: Batch,
    person: User,
    prompt_ids: Mapping[str, int],
    items: Sequence[tuple[uuid.UUID, ComparisonItem]],
) -> None:
    comparisons = Comparison.objects.bulk_create(
        Comparison(
            batch=batch,
            prompt_id=prompt_ids[item.prompt.sha256],
            needed=1,
            taken=1,
            judged=1,
            is_free=False,
        )
        for _, item in items
    )
    # Files put the better answer first; stored in an order that follows from the texts alone, so
    # that nothing downstream can learn from the position.
    orders = [_order(item) for _, item in items]
    responses = iter(
        Response.objects.bulk_create(
            Response(
                comparison=comparison,
                text=item.responses[index][0],
                source=(item.responses[index][1] or f"import: {source.name}")[:200],
            )
            for comparison, (_, item), order in zip(comparisons, items, orders, strict=True)
            for index in order
        )
    )
    now = timezone.now()
    assignments, judgments = [], []
    for comparison, (key, item), order in zip(comparisons, items, orders, strict=True):
        ids = {index: next(responses).pk for index in order}
        ranks = {
            axis: {str(ids[i]): rank for i, rank in enumerate(given) if rank is not None}
            for axis, given in item.ranks.items()
        }
        assignment = Assignment(
            comparison=comparison,
            annotator=person,
            state=Assignment.State.JUDGED,
            shown_order=[ids[index] for index in order],
            leased_at=now,
            lease_until=now,
        )
        assignments.append(assignment)
        judgments.append(
            Judgment(
                assignment=assignment,
                key=key,
                answer_sha256=item.digest(),
                ranks=ranks,
                rest_below=item.rest_below,
                guideline_version=project.guideline_version,
            )
        )
    Assignment.objects.bulk_create(assignments)
    Judgment.objects.bulk_create(judgments)


def _order(item: ComparisonItem) -> list[int]:
    """Indices of the responses in an order that tells nothing about their ranks."""
    digests = [hashlib.sha256(text.encode()).digest() for text, _ in item.responses]
    return sorted(range(len(digests)), key=lambda index: digests[index])
