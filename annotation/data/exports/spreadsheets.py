"""CSV for spreadsheets: conversations as plain text, and no cell that runs as a formula."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from annotation.data.exports.writers import Row

CHUNK = 200
# OWASP, CSV injection: what spreadsheets take for the start of a formula, full-width forms included.
FORMULA_STARTS = tuple("=+-@\t\r\n＝＋－＠|%")


def csv_chunks(rows: Iterable[Row], columns: Sequence[str]) -> Iterator[str]:
    """RFC 4180 text of rows, in chunks.

    Starts with a byte order mark, without which Excel does not read the text as UTF-8.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    yield "\ufeff"
    writer.writerow([safe_cell(column) for column in columns])
    for number, row in enumerate(rows, start=1):
        writer.writerow([safe_cell(row.get(column)) for column in columns])
        if number % CHUNK == 0:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


def safe_cell(value: Any) -> Any:
    """A value for a cell of any CSV: numbers as they are, text that can't run as a formula."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    return escape_formula(as_text(value))


def escape_formula(cell: str) -> str:
    """The cell, with an apostrophe in front if a spreadsheet would take it for a formula."""
    return "'" + cell if cell.lstrip(" \u00a0\ufeff").startswith(FORMULA_STARTS) else cell


def as_text(value: Any) -> str:
    """A value as text for a spreadsheet's cell; several messages keep their roles."""
    if value is None:
        return ""
    if isinstance(value, list) and value and isinstance(value[0], dict) and "content" in value[0]:
        if len(value) == 1:
            return str(value[0]["content"])
        return "\n\n".join(f"{message['role']}: {message['content']}" for message in value)
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False)
    return str(value)
