"""Bytes to rows: JSON Lines, a JSON array or CSV, gzipped or not."""

import ast
import csv
import gzip
import hashlib
import io
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from annotation.data.import_formats.fields import (
    CONTEXT_KEYS,
    ID_KEYS,
    MAX_TEXT,
    MIB,
    TEXT_KEYS,
    parse_json,
)
from annotation.data.import_formats.report import FileError, ImportReport, Row, RowError

MAX_FILE = 64 * MIB
MAX_UNPACKED = 128 * MIB
MAX_GZIP_RATIO = 100

KNOWN_COLUMNS = {
    *TEXT_KEYS,
    *CONTEXT_KEYS,
    *ID_KEYS,
    "chosen",
    "rejected",
    "messages",
    "category",
    "risk",
    "split",
    "skill",
    "priority",
}

# The header of the CSV of annotation/data/downloads.py: for people to read, not for import.
OWN_CSV_COLUMNS = ["prompt", "chosen", "rejected", "prompt_id", "annotator", "weight"]

# One limit for the whole process: two files may be read at the same moment.
csv.field_size_limit(MAX_TEXT + 1)


def read_bytes(file: Path | BinaryIO) -> tuple[bytes, str]:
    """The file's content as UTF-8, unpacked if it is gzipped, and the SHA-256 of the file itself."""
    if isinstance(file, Path):
        with file.open("rb") as opened:
            data = opened.read(MAX_FILE + 1)
    else:
        file.seek(0)
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise FileError(f"The file is larger than {MAX_FILE // MIB} MiB; split it into parts.")
    sha256 = hashlib.sha256(data).hexdigest()
    if data.startswith(b"\x1f\x8b"):
        data = _unpack(data)
    if data.startswith(b"PK\x03\x04"):
        raise FileError("This is a zip or spreadsheet file; save it as CSV (UTF-8) or JSON Lines.")
    if data.startswith(b"PAR1"):
        raise FileError("This is a Parquet file; save it as JSON Lines.")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):  # Excel's "Unicode text"
        try:
            data = data.decode("utf-16").encode()
        except UnicodeError as error:
            raise FileError(
                "The file starts like UTF-16 but is not valid UTF-16; save it as UTF-8."
            ) from error
    data = data.removeprefix(b"\xef\xbb\xbf")
    if not data.strip():
        raise FileError("The file is empty.")
    return data, sha256


def _unpack(packed: bytes) -> bytes:
    """Gzip, read in small chunks: a zip bomb is refused before it fills the memory."""
    allowed = min(MAX_UNPACKED, max(MIB, len(packed) * MAX_GZIP_RATIO))
    chunks, size = [], 0
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
            while chunk := file.read(MIB):
                size += len(chunk)
                if size > allowed:
                    raise FileError(
                        f"The file unpacks to more than {allowed // MIB} MiB from "
                        f"{len(packed) / MIB:.1f} MiB; unpack it and split it into parts."
                    )
                chunks.append(chunk)
    except (OSError, EOFError, zlib.error) as error:
        raise FileError("The gzip file is damaged; pack it again.") from error
    return b"".join(chunks)


def rows_of(data: bytes, report: ImportReport) -> Iterator[tuple[int, Row]]:
    """Each row with the line it starts on; unreadable lines go to the report's problems."""
    first = data.lstrip()[:1]
    if first == b"[":
        yield from _json_array(data)
    elif first == b"{":
        yield from _json_lines(data, report)
    else:
        yield from csv_rows(data, report)


def _json_lines(data: bytes, report: ImportReport) -> Iterator[tuple[int, Row]]:
    # Only \n ends a line: a text may contain U+2028 and other characters that str.splitlines splits at.
    for number, line in enumerate(io.BytesIO(data), start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
            if not isinstance(row, dict):
                raise RowError('a line is one JSON object, such as {"prompt": "…"}.')
        except RowError as error:
            report.n_rows += 1
            report.add_problem(number, str(error))
            continue
        yield number, row


def _json_array(data: bytes) -> Iterator[tuple[int, Row]]:
    try:
        rows = parse_json(data)
    except RowError as error:
        raise FileError(f"The file starts with [ and is {error}") from error
    for number, row in enumerate(rows, start=1):
        yield number, row if isinstance(row, dict) else {"prompt": row}


def csv_rows(data: bytes, report: ImportReport) -> Iterator[tuple[int, Row]]:
    """Rows of a CSV file with a header line; the delimiter is comma, semicolon or tab."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FileError(
            f"Line {line} is not UTF-8; save the file as UTF-8 (in Excel: CSV UTF-8)."
        ) from error
    header_line = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header_line.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    next_line = 1
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
        line, next_line = next_line, reader.line_num + 1
        if not any(cell.strip() for cell in cells):
            continue
        if not header:
            header = _header(cells)
            continue
        if len(cells) != len(header):
            report.n_rows += 1
            report.add_problem(line, f"{len(cells)} cells, but the header names {len(header)}.")
            continue
        try:
            values = [_cell(cell) for cell in cells]
        except RowError as error:
            report.n_rows += 1
            report.add_problem(line, str(error))
            continue
        yield line, dict(zip(header, values, strict=True))


def _cell(text: str) -> Any:
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


def _header(cells: list[str]) -> list[str]:
    header = [cell.strip().lower() for cell in cells]
    if not set(header) & KNOWN_COLUMNS:
        raise FileError(
            'The first line names no known column; name the column of prompts "prompt" '
            "(others: category, risk, split, skill, priority, id), or use JSON Lines."
        )
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
