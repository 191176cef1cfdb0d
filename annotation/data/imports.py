"""Prompts, responses and judgments from files that other people made: all of a file, or its good rows.

annotation/data/import_formats/ reads and checks, annotation/data/import_writing.py writes.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from django.db import transaction
from django.utils import timezone

from annotation.data.import_formats.items import EVERYTHING, JUDGMENTS, PROMPTS, read_items
from annotation.data.import_formats.report import ComparisonItem, ImportReport
from annotation.data.import_writing import CHUNK, Writer
from annotation.data.sources import check_source, create_source
from annotation.models import Event, Project, Source, User

VERBS = {
    EVERYTHING: "imported a file",
    PROMPTS: "imported prompts",
    JUDGMENTS: "imported comparisons",
}


class _NothingWrittenError(Exception):
    """Ends the transaction of an import that is refused, or that adds nothing."""


def import_file(
    project: Project,
    file: Path | BinaryIO,
    *,
    source: Mapping[str, str],
    by: User | None,
    axis: str = "",
    shape: str = "auto",
    contents: str = EVERYTHING,
    columns: Mapping[str, str] | None = None,
    sign_off: bool = False,
    split: str = "",
    only_good_rows: bool = False,
    report: ImportReport | None = None,
) -> ImportReport:
    """Write what the file holds to the project in one transaction; or nothing, with the reasons.

    `source` has `name`, `licence`, `url`. `axis` is what a preference is about where the file does
    not say. `only_good_rows` leaves refused rows out instead of refusing the file. A prompt, a
    response or a vote that the project has already counts as a duplicate and stays as it is, so that
    a file imported again adds nothing. `split` is where new prompts go, unless their row says so:
    "auto" by the text's hash (80 % train, 5 % watch, 15 % held out), "train", "eval" or "heldout";
    without it prompts with votes go to train and others by their hash.
    """
    started = time.monotonic()
    report = report or ImportReport()
    check_source(source, report, sign_off=sign_off)
    items = read_items(
        file,
        report,
        axis=axis or project.axis_keys[0],
        axes=project.axis_keys,
        shape=shape,
        contents=contents,
        columns=columns,
    )
    try:
        with transaction.atomic():
            Project.objects.lock(project.pk)  # two imports of one file can't both be first
            _write(project, items, report, source, by, sign_off, split, only_good_rows, contents)
    except _NothingWrittenError:
        report.source, report.batches, report.n_imported = None, [], 0
    report.seconds = time.monotonic() - started
    return report


def _write(
    project: Project,
    items: Iterator[ComparisonItem],
    report: ImportReport,
    source: Mapping[str, str],
    by: User | None,
    sign_off: bool,  # noqa: FBT001 - all of them are import_file's
    split: str,
    only_good_rows: bool,  # noqa: FBT001
    contents: str,
) -> None:
    can_write = report.ok
    writer: Writer | None = None
    while chunk := list(islice(items, CHUNK)):
        can_write = can_write and (report.ok or only_good_rows)
        if not can_write:
            continue  # read on: the report names every refused row
        if writer is None:
            report.source = create_source(project, source, by=by, sign_off=sign_off)
            writer = Writer(project, report.source, split=split)
        writer.write(chunk)
    is_refused = not report.ok and not (only_good_rows and not report.concerns_file)
    if writer is None or is_refused:
        raise _NothingWrittenError
    writer.finish(report)
    if not report.n_imported:
        raise _NothingWrittenError
    record_import(project, by, VERBS[contents], report)


def import_in_steps(
    project: Project,
    file: Path | BinaryIO,
    *,
    source: Mapping[str, str],
    by: User | None,
    axis: str = "",
    shape: str = "auto",
    contents: str = EVERYTHING,
    columns: Mapping[str, str] | None = None,
    sign_off: bool = False,
    split: str = "",
    only_good_rows: bool = False,
    report: ImportReport | None = None,
    on_progress: Callable[[int], None] = lambda n_items: None,
) -> ImportReport:
    """`import_file` for a file of any size: a transaction for every 500 items.

    The file is read twice: it is checked as a whole before the first row is written. If the process
    stops, the same call goes on where it was: it finds the unsigned source of the same file, and what
    is there counts as nothing new. The source is signed off at the end, so that training never sees
    half a file.
    """
    started = time.monotonic()
    report = report or ImportReport()
    check_source(source, report, sign_off=sign_off)
    reading: dict[str, Any] = {
        "axis": axis or project.axis_keys[0],
        "axes": project.axis_keys,
        "shape": shape,
        "contents": contents,
        "columns": columns,
    }
    for _ in read_items(file, report, **reading):
        pass
    if not report.ok and (report.concerns_file or not only_good_rows):
        report.seconds = time.monotonic() - started
        return report
    report.source = _begun(project, source, report) or create_source(
        project, source, by=by, sign_off=False, report=report
    )
    writer = Writer(project, report.source, split=split)
    n_items = 0
    for chunk in chunks(read_items(file, ImportReport(), **reading)):
        with transaction.atomic():
            Project.objects.lock(project.pk)
            writer.write(chunk)
        n_items += len(chunk)
        on_progress(n_items)
    with transaction.atomic():
        writer.finish(report)
        if report.n_imported:
            if sign_off and by is not None:
                report.source.signed_off_by, report.source.signed_off_at = by, timezone.now()
                report.source.save(update_fields=["signed_off_by", "signed_off_at"])
            record_import(project, by, VERBS[contents], report)
        elif not report.source.prompts.exists() and not report.batches:
            report.source.delete()
            report.source = None
    report.seconds = time.monotonic() - started
    return report


def _begun(project: Project, source: Mapping[str, str], report: ImportReport) -> Source | None:
    """The source of an import of the same file that was stopped."""
    return project.sources.filter(
        name=source["name"].strip(), sha256=report.sha256, signed_off_at=None
    ).first()


def record_import(project: Project, by: User | None, verb: str, report: ImportReport) -> None:
    """Keep the file's figures with its source, and note in the project's log what was added."""
    source = report.source
    assert source is not None
    source.n_rows, source.n_duplicates = report.n_rows, report.n_duplicates
    source.sha256 = report.sha256
    source.save(update_fields=["n_rows", "n_duplicates", "sha256"])
    Event.record(
        project, by, verb, source.name, source=source.pk, n=report.n_imported, sha256=report.sha256
    )
    if source.is_signed_off:
        Event.record(project, by, "signed off source", source.name, source=source.pk)


def import_prompts(
    project: Project,
    file: Path | BinaryIO,
    *,
    format: str = "auto",
    split: str = "auto",
    **options: Any,
) -> ImportReport:
    """`import_file` for the prompts alone: responses and votes of the file are left out."""
    return import_file(project, file, shape=format, contents=PROMPTS, split=split, **options)


def import_comparisons(
    project: Project,
    file: Path | BinaryIO,
    *,
    axis: str,
    format: str = "auto",
    split: str = "train",
    **options: Any,
) -> ImportReport:
    """`import_file` for a file in which every row is judged; each vote is kept."""
    return import_file(
        project, file, axis=axis, shape=format, contents=JUDGMENTS, split=split, **options
    )


def chunks(items: Iterable[ComparisonItem]) -> Iterator[list[ComparisonItem]]:
    """The items in lists as long as a transaction of a large import."""
    iterator = iter(items)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk
