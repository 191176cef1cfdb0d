"""Writers of JSON Lines and Parquet: one encoding of each row, which both formats are written from.

A Parquet file is what Arrow reads from the lines of the JSON Lines file under the table's schema, so
the two formats of a table can't differ: not in a number, and not for any text that a response may have.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol

import orjson
import pyarrow as pa
import pyarrow.json as paj
import pyarrow.parquet as pq

Row = dict[str, Any]

# A chunk is written when it has so many rows, or is as large as that.
CHUNK_ROWS = 5_000
CHUNK_BYTES = 8 * 2**20


class Writer(Protocol):
    """Takes chunks of a table, each as lines and as what they say; done when its `with` block ends."""

    def write(self, lines: bytes, table: pa.Table) -> None: ...
    def __enter__(self) -> "Writer": ...
    def __exit__(self, *exc: Any) -> None: ...


def json_line(row: Mapping[str, Any]) -> bytes:
    """One line of JSON Lines in UTF-8; half of a surrogate pair becomes U+FFFD, as UTF-8 has none."""
    try:
        return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:
        options = orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS
        return orjson.dumps(_without_surrogates(row), option=options)


class JsonLines:
    """Writes the lines as they are."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._file: BinaryIO = path.open("wb")

    def write(self, lines: bytes, table: pa.Table) -> None:
        self._file.write(lines)

    def __enter__(self) -> "JsonLines":
        return self

    def __exit__(self, *exc: Any) -> None:
        self._file.close()


class Parquet:
    """Writes Parquet, a row group for every chunk, so that memory stays flat."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")

    def write(self, lines: bytes, table: pa.Table) -> None:
        self._writer.write_table(table)

    def __enter__(self) -> "Parquet":
        return self

    def __exit__(self, *exc: Any) -> None:
        self._writer.close()


# Each format that a snapshot is written in: file name ending -> writer.
EXPORT_FORMATS: dict[str, Callable[[Path, pa.Schema], AbstractContextManager[Writer]]] = {
    "jsonl": JsonLines,
    "parquet": Parquet,
}


class TableWriter:
    """Writes the rows of one table to a file of each format. Every row has every column.

    `write` raises ValueError for a row that lacks a column or has another, and pyarrow.ArrowInvalid
    for a value that is not of its column's type.
    """

    def __init__(self, folder: Path, name: str, schema: pa.Schema) -> None:
        self._schema = schema
        self._columns = set(schema.names)
        self._lines: list[bytes] = []
        self._n_bytes = 0
        self._parse = paj.ParseOptions(
            explicit_schema=schema, unexpected_field_behavior="error", newlines_in_values=False
        )
        self._files = ExitStack()
        self._writers = [
            self._files.enter_context(make_writer(folder / f"{name}.{ending}", schema))
            for ending, make_writer in EXPORT_FORMATS.items()
        ]

    def write(self, row: Row) -> None:
        if row.keys() != self._columns:
            differing = ", ".join(sorted(row.keys() ^ self._columns))
            raise ValueError(f"A row does not have exactly the columns of its table: {differing}.")
        line = json_line(row)
        self._lines.append(line)
        self._n_bytes += len(line)
        if len(self._lines) >= CHUNK_ROWS or self._n_bytes >= CHUNK_BYTES:
            self._flush()

    def _flush(self) -> None:
        lines = b"".join(self._lines)
        # One block: a row may be longer than Arrow's usual blocks.
        read = paj.ReadOptions(use_threads=False, block_size=len(lines) + 1)
        table = paj.read_json(pa.BufferReader(lines), read_options=read, parse_options=self._parse)
        for writer in self._writers:
            writer.write(lines, table)
        self._lines, self._n_bytes = [], 0

    def __enter__(self) -> "TableWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._files:
            if kind is None and self._lines:
                self._flush()


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list | tuple):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(k): _without_surrogates(v) for k, v in value.items()}
    return value
