"""Rows of a CSV or TSV file with a header line."""

import ast
import csv
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO

from annotation.data.import_formats import limits
from annotation.data.import_formats.fields import MAX_TEXT, parse_json
from annotation.data.import_formats.report import FileError, ImportReport, Row, RowError
from annotation.data.import_formats.streams import Stored

# The header of the CSV of annotation/data/downloads.py: for people to read, not for import.
OWN_CSV_COLUMNS = ["prompt", "chosen", "rejected", "prompt_id", "annotator", "weight"]
# Excel's own line about the delimiter, before the header.
SEPARATOR_LINE = "sep="
DELIMITERS = ",;\t|"
# Splits behind the carriage return that is a line's whole ending.
MAC_LINE_END = re.compile(r"(?<=\r)(?!\n|\Z)")

# One limit for the whole process: two files may be read at the same moment.
csv.field_size_limit(MAX_TEXT + 1)


def csv_rows(file: Stored, report: ImportReport) -> Iterator[tuple[int, Row]]:
    """Each row with the line it starts on; the delimiter is a comma, semicolon, tab or bar."""
    with file.open() as stream:
        yield from rows_of_lines(_Lines(stream), report)


def rows_of_lines(lines: "_Lines", report: ImportReport) -> Iterator[tuple[int, Row]]:
    """The rows below the header; what can't be read goes to the report's problems."""
    delimiter = _delimiter(lines)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] = []
    next_line = lines.n_passed + 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            # After a misplaced quote, everything that follows would be guesswork.
            report.n_rows += 1
            report.add_problem(
                next_line, f"not valid CSV ({error}); check the quotes from here on."
            )
            return
        line, next_line = next_line, lines.n_passed + reader.line_num + 1
        if not any(cell.strip() for cell in cells):
            continue
        if not header:
            header = checked_header(cells)
            report.has_header = True
            continue
        if len(cells) != len(header):
            report.n_rows += 1
            report.add_problem(line, f"{len(cells)} cells, but the header names {len(header)}.")
            continue
        try:
            values = [cell_value(cell) for cell in cells]
        except RowError as error:
            report.n_rows += 1
            report.add_problem(line, str(error))
            continue
        yield line, dict(zip(header, values, strict=True))


class _Lines:
    """Lines of any ending, none longer than a row may be; `n_passed` were taken off the top."""

    def __init__(self, stream: BinaryIO) -> None:
        self.lines = _decoded_lines(stream)
        self.n_passed = 0
        self.first = next(self.lines, "")

    def __iter__(self) -> Iterator[str]:
        if self.first:
            yield self.first
        yield from self.lines

    def pass_first(self) -> None:
        self.first, self.n_passed = next(self.lines, ""), self.n_passed + 1


def _decoded_lines(stream: BinaryIO) -> Iterator[str]:
    most = limits.max_row()
    number = 0
    while line := stream.readline(most + 1):
        number += 1
        if len(line) > most:
            raise FileError(f"Line {number} is longer than {most / 2**20:.3g} MiB.")
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise FileError(
                f"Line {number} is not UTF-8; save the file as UTF-8 (in Excel: CSV UTF-8)."
            ) from error
        yield from MAC_LINE_END.split(text) if "\r" in text[:-2] else (text,)


def _delimiter(lines: _Lines) -> str:
    first = lines.first.strip().strip('"')
    if first.lower().startswith(SEPARATOR_LINE) and len(first) == len(SEPARATOR_LINE) + 1:
        lines.pass_first()
        return first[-1]
    if lines.first.lower().startswith(f"{SEPARATOR_LINE}\t"):  # stripped away above
        lines.pass_first()
        return "\t"
    return max(DELIMITERS, key=lines.first.count)


def cell_value(text: str) -> Any:
    """The text, or the list of messages that it spells in JSON or, as pandas writes it, in Python."""
    stripped = text.strip()
    if not (stripped.startswith("[{") and stripped.endswith("}]") and "role" in stripped):
        return text
    for parse in (parse_json, ast.literal_eval):
        try:
            value = parse(stripped)
        except (RowError, ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(value, list) and all(isinstance(item, dict) for item in value):
            return value
    raise RowError("a cell starts like a list of messages and is no list in JSON or Python.")


def checked_header(cells: list[str]) -> list[str]:
    """The names of the columns; FileError for our own CSV and for a name that comes twice."""
    header = [cell.strip().lower() for cell in cells]
    if header == OWN_CSV_COLUMNS:
        raise FileError(
            "This is a snapshot's CSV for spreadsheets, which does not keep the roles of messages; "
            "import the JSON Lines file of the same pairs."
        )
    repeated = next((name for name, n in Counter(header).items() if name and n > 1), None)
    if repeated is not None:
        raise FileError(
            f"The first line names the column “{repeated[:40]}” twice; rename one of them."
        )
    return header
