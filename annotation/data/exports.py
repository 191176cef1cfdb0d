"""Rows out: JSON Lines, Parquet and CSV, a chunk at a time, whatever the texts contain."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

Row = dict[str, Any]

CHUNK = 1000

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))

# json.dumps would make an encoder for every row.
_encode = json.JSONEncoder(ensure_ascii=False).encode

# TRL's conversational preference format, and what lets a row be traced.
PAIR_SCHEMA = pa.schema(
    [
        ("prompt", MESSAGES),
        ("chosen", MESSAGES),
        ("rejected", MESSAGES),
        ("prompt_id", pa.string()),
        ("annotator", pa.string()),
        ("weight", pa.float64()),
    ]
)
# The same where two were compared with a strength.
MARGIN_SCHEMA = pa.schema([*PAIR_SCHEMA, ("strength", pa.int32()), ("margin", pa.float64())])


def judgment_schema(axes: Sequence[str]) -> pa.Schema:
    """Columns of `preferences`: a line of docs/formats.md, one list of ranks per axis."""
    return pa.schema(
        [
            ("judgment_id", pa.string()),
            ("prompt_id", pa.string()),
            ("annotator", pa.string()),
            ("round", pa.string()),
            ("messages", MESSAGES),
            ("category", pa.string()),
            ("risk", pa.string()),
            ("responses", pa.list_(pa.string())),
            ("ranks", pa.struct([(axis, pa.list_(pa.int32())) for axis in axes])),
            ("weight", pa.float64()),
            ("strength", pa.struct([(axis, pa.int32()) for axis in axes])),
            ("margin", pa.struct([(axis, pa.float64()) for axis in axes])),
            ("unranked", pa.string()),
            ("all_bad", pa.list_(pa.string())),
            ("reason", pa.string()),
        ]
    )


SAID = [
    ("judgment_id", pa.string()),
    ("prompt_id", pa.string()),
    ("annotator", pa.string()),
    ("round", pa.string()),
    ("messages", MESSAGES),
    ("category", pa.string()),
    ("risk", pa.string()),
    ("response", pa.string()),
]

DEMONSTRATION_SCHEMA = pa.schema(
    [*SAID, ("kind", pa.string()), ("based_on", pa.string()), ("weight", pa.float64())]
)


def rating_schema(attributes: Sequence[str]) -> pa.Schema:
    """Columns of `ratings`: one number per attribute, null where it was not asked."""
    return pa.schema(
        [
            *SAID,
            # Parquet has no empty struct, so votes on safety alone have no such column.
            *(
                [("attributes", pa.struct([(key, pa.int32()) for key in attributes]))]
                * bool(attributes)
            ),
            ("safe", pa.bool_()),
            ("harms", pa.list_(pa.string())),
            ("reason", pa.string()),
        ]
    )


class Writer(Protocol):
    """Takes rows one at a time and is done when its `with` block ends."""

    def write(self, row: Row) -> None: ...
    def __enter__(self) -> "Writer": ...
    def __exit__(self, *exc: Any) -> None: ...


def json_line(row: Row) -> bytes:
    """One line of JSON Lines in UTF-8; half of a surrogate pair becomes U+FFFD, as UTF-8 has none."""
    try:
        return (_encode(row) + "\n").encode()
    except UnicodeEncodeError:
        return (_encode(_without_surrogates(row)) + "\n").encode()


class JsonLines:
    """Writes rows as JSON Lines."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._file: BinaryIO = path.open("wb")

    def write(self, row: Row) -> None:
        self._file.write(json_line(row))

    def __enter__(self) -> "JsonLines":
        return self

    def __exit__(self, *exc: Any) -> None:
        self._file.close()


class Parquet:
    """Writes rows as Parquet, a row group for every 1000, so that memory stays flat."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema = schema
        self._rows: list[Row] = []
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")

    def write(self, row: Row) -> None:
        self._rows.append(row)
        if len(self._rows) >= CHUNK:
            self._flush()

    def _flush(self) -> None:
        try:
            table = pa.Table.from_pylist(self._rows, schema=self._schema)
        except UnicodeEncodeError:
            rows = [_without_surrogates(row) for row in self._rows]
            table = pa.Table.from_pylist(rows, schema=self._schema)
        self._writer.write_table(table)
        self._rows = []

    def __enter__(self) -> "Parquet":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None and self._rows:
            self._flush()
        self._writer.close()


# Each format that a snapshot is written in: file name ending -> writer.
EXPORT_FORMATS: dict[str, Callable[[Path, pa.Schema], AbstractContextManager[Writer]]] = {
    "jsonl": JsonLines,
    "parquet": Parquet,
}


def csv_chunks(rows: Iterable[Row], columns: Sequence[str]) -> Iterator[str]:
    """RFC 4180 text of rows, for spreadsheets: conversations as plain text, formulas made harmless.

    Starts with a byte order mark, without which Excel reads UTF-8 as something else.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    yield "\ufeff"
    writer.writerow(columns)
    for number, row in enumerate(rows, start=1):
        writer.writerow([harmless(plain(row.get(column))) for column in columns])
        if number % 200 == 0:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


def harmless(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula (OWASP, CSV injection): a leading apostrophe."""
    if cell.lstrip(" \u00a0\ufeff").startswith(tuple("=+-@\t\r\n＝＋－＠|%")):
        return "'" + cell
    return cell


def plain(value: Any) -> str:
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


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(k): _without_surrogates(v) for k, v in value.items()}
    return value
