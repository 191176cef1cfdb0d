"""Where an export form writes its files: a folder, with counts of what was written and left out."""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from annotation.data.exports.writers import Row, json_line

CHUNK = 1000


@dataclass
class Output:
    """Writes files and counts their rows; `on_progress` is called with the rows written so far."""

    folder: Path
    on_progress: Callable[[int], None] = lambda n: None
    rows: Counter[str] = field(default_factory=Counter)
    """Rows by file."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Rows that the form cannot express, by reason."""

    def count(self, name: str, n: int = 1) -> None:
        """So many more rows of the file `name`."""
        before = self.rows[name]
        self.rows[name] += n
        if before // CHUNK != self.rows[name] // CHUNK:
            self.on_progress(sum(self.rows.values()))

    def write_rows(self, name: str, schema: pa.Schema, rows: Iterable[Row]) -> None:
        """Rows as JSON Lines or Parquet, by the ending of `name`; a thousand are in memory."""
        path, chunks = self.folder / name, iter(rows)
        if path.suffix == ".parquet":
            with pq.ParquetWriter(path, schema, compression="zstd") as parquet:
                while chunk := list(islice(chunks, CHUNK)):
                    parquet.write_table(pa.Table.from_pylist(chunk, schema=schema))
                    self.count(name, len(chunk))
        else:
            with path.open("wb") as lines:
                while chunk := list(islice(chunks, CHUNK)):
                    lines.writelines(map(json_line, chunk))
                    self.count(name, len(chunk))

    def write_array(self, name: str, rows: Iterable[Any]) -> None:
        """Rows as one JSON array, for readers that know no JSON Lines."""
        with (self.folder / name).open("w", encoding="utf-8", errors="replace") as file:
            file.write("[")
            for row in rows:
                file.write(",\n" if self.rows[name] else "\n")
                file.write(json.dumps(row, ensure_ascii=False))
                self.count(name)
            file.write("\n]\n")

    def write_text(self, name: str, text: str) -> None:
        (self.folder / name).parent.mkdir(exist_ok=True)
        (self.folder / name).write_text(text, encoding="utf-8", errors="replace")

    def write_json(self, name: str, value: Any) -> None:
        self.write_text(name, json.dumps(value, ensure_ascii=False, indent=1) + "\n")
