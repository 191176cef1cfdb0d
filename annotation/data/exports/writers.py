"""Writers of JSON Lines and Parquet, in chunks, for any text that a response may contain."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

Row = dict[str, Any]

CHUNK = 1000

# json.dumps would create an encoder for every row.
_encode = json.JSONEncoder(ensure_ascii=False).encode


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


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(k): _without_surrogates(v) for k, v in value.items()}
    return value
