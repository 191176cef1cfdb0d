"""A file as items, one after another, with a report that grows with it; nothing is written."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from annotation.data.import_formats import limits
from annotation.data.import_formats.formats import (
    COMPARISON_FORMATS,
    FORMAT_NAMES,
    LABELS,
    PROMPT_COLUMNS,
    PROMPT_FORMATS,
    detect_prompts,
)
from annotation.data.import_formats.report import (
    ComparisonItem,
    FileError,
    ImportReport,
    Row,
    RowError,
    SkipRow,
)
from annotation.data.import_formats.rows import rows_of
from annotation.data.import_formats.shape import Context, Shape
from annotation.data.import_formats.shapes import PROMPTS_ONLY, SHAPES, recognized, titles
from annotation.data.import_formats.unjudged_files import UNJUDGED

EVERYTHING, PROMPTS, JUDGMENTS = "everything", "prompts", "comparisons"
SHOWN_TEXT = 200
JUDGED_COLUMNS = {"chosen", "rejected"}


@dataclass
class _Group:
    """Rows in sequence that are read together; most shapes have one row a group."""

    name: str = ""
    key: Any = None
    number: int = 0
    file: str = ""
    rows: list[Row] = field(default_factory=list)


def read_items(
    file: Path | BinaryIO,
    report: ImportReport,
    *,
    axis: str,
    axes: Sequence[str],
    shape: str = "auto",
    contents: str = EVERYTHING,
    columns: Mapping[str, str] | None = None,
) -> Iterator[ComparisonItem]:
    """Every prompt, response and vote of the file; what is wrong goes to the report.

    `axis` is what a preference is about where the file does not say; `axes` are those allowed.
    `contents` may leave responses and votes out ("prompts") or refuse rows without votes
    ("comparisons"). `columns` renames columns, old name to new; "" leaves a column out.
    """
    if not _can_begin(report, axis, axes, shape):
        return
    context = Context(axis, axes, report)
    used: dict[str, None] = {}
    group = _Group()
    try:
        most = limits.max_rows()
        for number, row in rows_of(file, report):
            report.n_rows += 1
            if report.n_rows > most:
                report.add_problem(number, f"more than {most:,} rows; split the file into parts.")
                break
            _note_columns(row, report)
            if columns:
                row = _renamed(row, columns)
            try:
                name = shape if shape != "auto" else _name_of(row, contents, used, report)
                used[name] = None
                shape_of_row = _shape(name, contents)
                key = shape_of_row.group(row) if shape_of_row.group else None
            except (RowError, KeyError, TypeError) as error:
                _refuse(row, number, error, report)
                continue
            is_same = group.rows and name == group.name and key is not None and key == group.key
            if not is_same or len(group.rows) >= shape_of_row.group_size:
                yield from _items_of(group, context, contents)
                group = _Group(name, key, number, report.file)
            group.rows.append(row)
            _note_unread(row, shape_of_row, report)
        yield from _items_of(group, context, contents)
        if not report.n_rows:
            report.add_problem(None, "The file has no rows.")
    except FileError as error:
        report.add_problem(None, str(error))
    report.format = report.format or next(iter(used), "")
    report.format_name = "; ".join(_shape(name, contents).title for name in used)


def _can_begin(report: ImportReport, axis: str, axes: Sequence[str], shape: str) -> bool:
    report.format = "" if shape == "auto" else shape
    if shape not in ("auto", *SHAPES, *PROMPT_FORMATS, *COMPARISON_FORMATS):
        report.add_problem(
            None, f"There is no format {shape!r}; choose auto or {', '.join(SHAPES)}."
        )
    if axis not in axes:
        report.add_problem(None, f"The project has no axis {axis!r}; it has {', '.join(axes)}.")
    return report.ok


def _name_of(row: Row, contents: str, used: Mapping[str, None], report: ImportReport) -> str:
    """The row's shape; a row of none is read as the one before, whose error is more exact."""
    try:
        if contents == PROMPTS:
            try:
                return detect_prompts(row)
            except RowError:
                return recognized(row)
        name = recognized(row)
        if name in PROMPTS_ONLY and JUDGED_COLUMNS & row.keys():
            return "trl"  # whose error says what is missing
        if contents == JUDGMENTS and name in {*PROMPTS_ONLY, *UNJUDGED}:
            raise RowError("no comparison was found: nobody judged the responses in this row.")
        return name
    except RowError as error:
        if contents == EVERYTHING and row.keys() <= {"prompt", *LABELS}:
            return "plain"  # whose error says what is wrong with the prompt
        if used:
            return list(used)[-1]
        if report.has_header and not report.n_problems:
            names = ", ".join(f"“{str(name)[:30]}”" for name in list(row)[:8])
            raise FileError(
                f"The header names no known column, but {names}; name the column of prompts "
                f"“prompt”. What is read: {titles()}."
            ) from error
        raise


def _shape(name: str, contents: str) -> Shape:
    if contents == PROMPTS and name in PROMPT_FORMATS:
        read = PROMPT_FORMATS[name]
        return Shape(
            title=FORMAT_NAMES[name],
            recognizes=lambda row: True,
            read=lambda rows, context: [ComparisonItem(read(rows[0], context.report), [], {})],
            columns=frozenset(PROMPT_COLUMNS[name]),
        )
    return SHAPES[name]


def _items_of(group: _Group, context: Context, contents: str) -> Iterator[ComparisonItem]:
    if not group.rows:
        return
    report = context.report
    try:
        items = list(_shape(group.name, contents).read(group.rows, context))
        for item in items:
            if contents == PROMPTS:
                item = ComparisonItem(item.prompt, [], {})
            elif unknown := (set(item.ranks) | item.vote.axes) - set(context.axes):
                raise RowError(f"the project has no axis {sorted(unknown)[0]!r}.")
            elif contents == JUDGMENTS and not item.is_judged:
                raise RowError("no comparison was found: nobody judged the responses in this row.")
            yield item
    except SkipRow as reason:
        report.skipped[str(reason)] += 1
    except (RowError, KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        # A row of a recognized shape may hold anything in any place.
        _refuse(group.rows[0], group.number, error, report)


def _refuse(row: Row, number: int, error: Exception, report: ImportReport) -> None:
    reason = _reason(error)
    words = reason.replace(".", " ").split()
    names = {*row, *JUDGED_COLUMNS, "prompt", "messages", "responses"}
    report.add_problem(number, reason, _beginning(row), next((w for w in words if w in names), ""))


def _reason(error: Exception) -> str:
    if isinstance(error, RowError):
        return str(error)
    if isinstance(error, KeyError):
        return f"{str(error.args[0])[:40]} is missing."
    return "a value is of another kind than this shape has there."


def _beginning(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False, default=str)[:SHOWN_TEXT]


def _renamed(row: Row, columns: Mapping[str, str]) -> Row:
    return {name: value for key, value in row.items() if (name := columns.get(key, key))}


def _note_columns(row: Row, report: ImportReport) -> None:
    for name in row:
        if len(report.columns) < 100:
            report.columns.setdefault(str(name)[:100], None)


def _note_unread(row: Row, shape: Shape, report: ImportReport) -> None:
    for column, value in row.items():
        is_default = value in (None, "", [], {}) or (column == "weight" and value in (1, "1.0"))
        if column not in shape.columns and not is_default:
            report.unread[str(column)] += 1
