"""A whole file, read into items that are unique, with a report; nothing is written."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from annotation.data.import_formats.formats import (
    COMPARISON_FORMATS,
    FORMAT_NAMES,
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
from annotation.data.import_formats.rows import read_bytes, rows_of

MAX_ROWS = 200_000
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

    report = _read_rows(file, format, PROMPT_FORMATS, detect_prompts, add)
    report.examples = list(items.values())[:N_EXAMPLES]
    return list(items.values()), report


def read_comparisons(
    file: Path | BinaryIO, *, axis: str, axes: Sequence[str], format: str = "auto"
) -> tuple[list[ComparisonItem], ImportReport]:
    """Every comparison in the file, each once, and what is wrong.

    `axis` is what chosen/rejected and a tree's ranks were judged on; `axes` are those allowed.
    """
    items: dict[str, ComparisonItem] = {}

    def add(row: Row, format: str, report: ImportReport) -> None:
        for item in COMPARISON_FORMATS[format](row, axis, report):
            unknown = set(item.ranks) - set(axes)
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
    report = _read_rows(file, format, COMPARISON_FORMATS, detect_comparisons, add)
    report.examples = list(items.values())[:N_EXAMPLES]
    return list(items.values()), report


def _read_rows(
    file: Path | BinaryIO,
    format: str,
    formats: Mapping[str, Any],
    detect: Callable[[Row], str],
    add: Callable[[Row, str, ImportReport], None],
) -> ImportReport:
    """Call `add` with each row and its format; the first row decides the format of "auto"."""
    report = ImportReport(format="" if format == "auto" else format)
    if report.format and report.format not in formats:
        problem = f"There is no format {format!r}; choose auto or {', '.join(formats)}."
        report.add_problem(None, problem)
        return report
    try:
        data, report.sha256 = read_bytes(file)
        for number, row in rows_of(data, report):
            report.n_rows += 1
            if report.n_rows > MAX_ROWS:
                problem = f"more than {MAX_ROWS:,} rows; split the file into parts."
                report.add_problem(number, problem)
                break
            try:
                report.format = report.format or detect(row)
                add(row, report.format, report)
            except RowError as error:
                report.add_problem(number, str(error))
            except SkipRow as reason:
                report.skipped[str(reason)] += 1
        if not report.n_rows:
            report.add_problem(None, "The file has no rows.")
    except FileError as error:
        report.add_problem(None, str(error))
    report.format_name = FORMAT_NAMES.get(report.format, "")
    return report
