"""Rows of a frozen version, read from its Parquet files in a stream."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from annotation.data.exports.writers import Row

CHUNK = 1000


@dataclass(frozen=True)
class Frozen:
    """The folder of a version, and the axis whose ranks are asked for ("" for all)."""

    folder: Path
    axis: str
    title: str
    """For the people who open what is made of it: project and version."""
    heldout: Sequence[Row] = ()
    """`{"prompt_id", "messages", "category", "risk"}` of each held-out prompt; for evaluation only."""
    facts: Any = None
    """What describes the version (`annotation.data.croissant`), for the form that needs it."""

    def rows(self, name: str, columns: Sequence[str] | None = None) -> Iterator[Row]:
        """Rows of `NAME.parquet` in their order; about a thousand at a time are in memory."""
        with pq.ParquetFile(self.folder / f"{name}.parquet") as file:
            for batch in file.iter_batches(CHUNK, columns=columns, use_threads=False):
                yield from batch.to_pylist()

    def column(self, name: str, column: str) -> pa.ChunkedArray:
        """One column of `NAME.parquet`, whole."""
        return pq.read_table(self.folder / f"{name}.parquet", columns=[column]).column(column)

    def has_column(self, name: str, column: str) -> bool:
        """Whether `NAME.parquet` has this column."""
        return column in pq.read_schema(self.folder / f"{name}.parquet").names


def value_of(values: Any, name: str) -> Any:
    """The value of an axis: from an object by axis, or from a list of {name, value}; None if absent."""
    if isinstance(values, dict):
        return values.get(name)
    for entry in values or ():
        if entry["name"] == name:
            return entry["value"]
    return None
