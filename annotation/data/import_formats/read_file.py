"""A whole file, read into items that are unique, with a report; nothing is written."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from annotation.data.import_formats import limits
from annotation.data.import_formats.formats import (
    COMPARISON_COLUMNS,
    COMPARISON_FORMATS,
    FORMAT_NAMES,
    PROMPT_COLUMNS,
    PROMPT_FORMATS,
    detect_comparisons,
    detect_prompts,
)
from annotation.data.import_formats.report import (
    ComparisonItem,
    FileError,
    ImportReport,
    PromptItem,
    Row,
    RowError,
    SkipRow,
)
from annotation.data.import_formats.rows import rows_of

N_EXAMPLES = 5


def read_prompts(
    file: Path | BinaryIO, *, format: str = "auto"
) -> tuple[list[PromptItem], ImportReport]:
    """Every prompt in the file, each once, and what is wrong."""
    items: dict[str, PromptItem] = {}

    def add(row: Row, format: str, report: ImportReport) -> None:
        item = PROMPT_FORMATS[format](row, report)
        if item.sha256 in items:
            report.n_duplicates += 1
        items.setdefault(item.sha256, item)

    report = _read_rows(file, format, PROMPT_COLUMNS, detect_prompts, add)
    report.examples = list(items.values())[:N_EXAMPLES]
    return list(items.values()), report


def read_comparisons(
    file: Path | BinaryIO, *, axis: str, axes: Sequence[str], format: str = "auto"
) -> tuple[list[ComparisonItem], ImportReport]:
    """Every vote on a comparison in the file, each once, and what is wrong.

    `axis` is what chosen/rejected and a tree's ranks were judged on; `axes` are those allowed.
    """
    items: dict[str, ComparisonItem] = {}

    def add(row: Row, format: str, report: ImportReport) -> None:
        for item in COMPARISON_FORMATS[format](row, axis, report):
            unknown = (set(item.ranks) | item.vote.axes) - set(axes)
            if unknown:
                raise RowError(f"the project has no axis {sorted(unknown)[0]!r}.")
            digest = item.digest()
            if digest in items:
                report.n_duplicates += 1
            items.setdefault(digest, item)

    if axis not in axes:
        report = ImportReport()
        report.add_problem(None, f"The project has no axis {axis!r}; it has {', '.join(axes)}.")
        return [], report
    report = _read_rows(file, format, COMPARISON_COLUMNS, detect_comparisons, add)
    report.examples = list(items.values())[:N_EXAMPLES]
    return list(items.values()), report


def _read_rows(
    file: Path | BinaryIO,
    format: str,
    columns: Mapping[str, set[str]],
    detect: Callable[[Row], str],
    add: Callable[[Row, str, ImportReport], None],
) -> ImportReport:
    """Call `add` with each row and its format; `columns` are those that each format reads.

    With "auto" each row is recognized by itself; a row in no format is read as the one before, whose
    error message is more exact.
    """
    report = ImportReport(format="" if format == "auto" else format)
    formats_used: dict[str, None] = {}
    if report.format and report.format not in columns:
        problem = f"There is no format {format!r}; choose auto or {', '.join(columns)}."
        report.add_problem(None, problem)
        return report
    try:
        most = limits.max_rows()
        for number, row in rows_of(file, report):
            report.n_rows += 1
            if report.n_rows > most:
                problem = f"more than {most:,} rows; split the file into parts."
                report.add_problem(number, problem)
                break
            try:
                row_format = format
                if format == "auto":
                    row_format = _detected(row, detect, formats_used, report)
                formats_used[row_format] = None
                _note_unread(row, columns[row_format], report)
                add(row, row_format, report)
            except RowError as error:
                report.add_problem(number, str(error))
            except SkipRow as reason:
                report.skipped[str(reason)] += 1
        if not report.n_rows:
            report.add_problem(None, "The file has no rows.")
    except FileError as error:
        report.add_problem(None, str(error))
    report.format = report.format or next(iter(formats_used), "")
    names = [FORMAT_NAMES[name] for name in formats_used or [report.format] if name]
    report.format_name = "; ".join(names)
    return report


def _detected(
    row: Row,
    detect: Callable[[Row], str],
    formats_used: Mapping[str, None],
    report: ImportReport,
) -> str:
    try:
        return detect(row)
    except RowError as error:
        if not formats_used and report.has_header and not report.n_problems:
            names = ", ".join(f"“{str(name)[:30]}”" for name in list(row)[:8])
            raise FileError(
                f"The header names no known column, but {names}; name the column of prompts "
                "“prompt” (others: category, risk, split, skill, priority, id)."
            ) from error
        if not formats_used:
            raise
        return list(formats_used)[-1]


def _note_unread(row: Row, known: set[str], report: ImportReport) -> None:
    for column, value in row.items():
        is_default = value in (None, "", [], {}) or (column == "weight" and value in (1, "1.0"))
        if column not in known and not is_default:
            report.unread[str(column)] += 1
