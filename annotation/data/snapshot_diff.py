"""What differs between two versions of a project's data: rows by their keys, columns, figures, settings.

Rows are compared by two hashes of eight bytes each, so a million rows take 16 MB.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from annotation.data.snapshot_files import RATINGS
from annotation.models import Snapshot

EXAMPLES = 5
# A page doesn't wait for more rows than these; `manage.py diff_snapshots` compares any number.
MAX_ROWS_ON_A_PAGE = 200_000
# What makes a row the same row in two versions. Pairs have no id of their own.
KEYS = {
    "pairs": ("prompt_id", "annotator", "chosen", "rejected"),
    RATINGS: ("judgment_id", "response"),
}
ONE_KEY = ("judgment_id",)

Row = dict[str, Any]
Hashes = npt.NDArray[np.uint64]


@dataclass
class TableDiff:
    """The rows and columns of one table, `a` being the earlier version and `b` the later one."""

    name: str
    rows_a: int
    rows_b: int
    columns: list[tuple[str, str, str]] = field(default_factory=list)
    """(name, type in a, type in b) of each column that differs; "" where there is none."""
    added: int | None = None
    removed: int | None = None
    changed: int | None = None
    """None where the rows were not compared."""
    examples: dict[str, list[Row]] = field(default_factory=dict)
    """For "added" and "removed" some rows; for "changed" `{"a": row, "b": row, "columns": names}`."""


@dataclass
class SnapshotDiff:
    """`figures` and `settings` are (name, in a, in b) of what differs."""

    tables: list[TableDiff]
    figures: list[tuple[str, Any, Any]]
    settings: list[tuple[str, Any, Any]]
    is_complete: bool = True
    """False where there were too many rows to compare them."""

    @property
    def has_other_columns(self) -> bool:
        return any(table.columns for table in self.tables)

    def as_json(self) -> Row:
        names = ("name", "a", "b")
        return {
            "tables": [
                {
                    "name": table.name,
                    "rows": {"a": table.rows_a, "b": table.rows_b},
                    "added": table.added,
                    "removed": table.removed,
                    "changed": table.changed,
                    "columns": [dict(zip(names, column, strict=True)) for column in table.columns],
                    "examples": table.examples,
                }
                for table in self.tables
            ],
            "figures": [dict(zip(names, figure, strict=True)) for figure in self.figures],
            "settings": [dict(zip(names, setting, strict=True)) for setting in self.settings],
            "is_complete": self.is_complete,
        }


def diff(a: Snapshot, b: Snapshot, *, max_rows: int | None = None) -> SnapshotDiff:
    """What differs between two versions. With more rows than `max_rows` the rows are not compared.

    Raises OSError where a file of one of them is missing.
    """
    tables_a, tables_b = tables_of(a), tables_of(b)
    n_rows = sum(tables_a.values()) + sum(tables_b.values())
    is_complete = max_rows is None or n_rows <= max_rows
    # The labels of rounds and batches were written otherwise in the first format.
    left_out = {"round"} if _format(a) != _format(b) else set()
    tables = []
    for name in sorted({*tables_a, *tables_b}):
        table = TableDiff(name, tables_a.get(name, 0), tables_b.get(name, 0))
        schemas = [_schema(version, name) for version in (a, b)]
        if all(schemas):
            table.columns = _differing_columns(*schemas)
        if is_complete:
            _compare(table, a, b, _common(schemas) - left_out)
        tables.append(table)
    return SnapshotDiff(tables, _figures(a, b), _settings(a, b), is_complete)


def tables_of(snapshot: Snapshot) -> dict[str, int]:
    """The name of each table of a version, and how many rows it has."""
    return {
        file["name"].removesuffix(".jsonl"): file["rows"] or 0
        for file in snapshot.files
        if file["name"].endswith(".jsonl")
    }


def _format(snapshot: Snapshot) -> int:
    return int(snapshot.query.get("format", 1))


def _schema(snapshot: Snapshot, table: str) -> pa.Schema | None:
    path = snapshot.folder / f"{table}.parquet"
    return pq.read_schema(path) if table in tables_of(snapshot) else None


def _common(schemas: list[pa.Schema | None]) -> set[str]:
    present = [set(schema.names) for schema in schemas if schema is not None]
    return set.intersection(*present)


def _differing_columns(a: pa.Schema, b: pa.Schema) -> list[tuple[str, str, str]]:
    names = dict.fromkeys([*a.names, *b.names])
    both = [
        (name, *(str(s.field(name).type) if name in s.names else "" for s in (a, b)))
        for name in names
    ]
    return [(name, in_a, in_b) for name, in_a, in_b in both if in_a != in_b]


# --- Rows ----------------------------------------------------------------------------------------------


def _compare(table: TableDiff, a: Snapshot, b: Snapshot, columns: set[str]) -> None:
    """Count the rows that were added, removed and changed, and pick some of each."""
    sides = [
        _Side.of(version.folder / f"{table.name}.jsonl", table.name, columns, n)
        for version, n in ((a, table.rows_a), (b, table.rows_b))
    ]
    side_a, side_b = sides
    only_a = ~np.isin(side_a.keys, side_b.keys, assume_unique=True)
    only_b = ~np.isin(side_b.keys, side_a.keys, assume_unique=True)
    common_a, common_b = side_a.values[~only_a], side_b.values[~only_b]
    changed = common_a != common_b
    table.removed, table.added = int(side_a.counts[only_a].sum()), int(side_b.counts[only_b].sum())
    table.changed = int(np.maximum(side_a.counts[~only_a], side_b.counts[~only_b])[changed].sum())
    keys = {
        "added": side_b.keys[only_b],
        "removed": side_a.keys[only_a],
        "changed": side_b.keys[~only_b][changed],
    }
    wanted = {what: set(hashes[:EXAMPLES].tolist()) for what, hashes in keys.items()}
    rows_a = side_a.rows(wanted["removed"] | wanted["changed"])
    rows_b = side_b.rows(wanted["added"] | wanted["changed"])
    table.examples = {
        "added": [rows_b[key] for key in wanted["added"]],
        "removed": [rows_a[key] for key in wanted["removed"]],
        "changed": [_change(rows_a[key], rows_b[key], columns) for key in wanted["changed"]],
    }


def _change(a: Row, b: Row, columns: set[str]) -> Row:
    names = [name for name in b if name in columns and _bare(a[name]) != _bare(b[name])]
    return {"a": a, "b": b, "columns": names}


@dataclass
class _Side:
    """The rows of one table in one version: sorted hashes of the keys, and of what the rows say."""

    path: Path
    key: tuple[str, ...]
    keys: Hashes
    values: Hashes
    counts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, path: Path, table: str, columns: set[str], n_rows: int) -> "_Side":
        key = next((KEYS[name] for name in KEYS if table.startswith(name)), ONE_KEY)
        keys, values = bytearray(), bytearray()
        if n_rows:
            for row in _rows(path):
                keys += _digest([row[name] for name in key])
                values += _digest({name: row[name] for name in columns if name in row})
        unique, places, counts = np.unique(
            np.frombuffer(keys, np.uint64), return_inverse=True, return_counts=True
        )
        # Equal rows, as two people's same choice in a consensus, are compared as one sum.
        sums = np.zeros(len(unique), np.uint64)
        np.add.at(sums, places, np.frombuffer(values, np.uint64))
        return cls(path, key, unique, sums, counts.astype(np.int64))

    def rows(self, wanted: set[int]) -> dict[int, Row]:
        """The first row of each of these keys."""
        rows: dict[int, Row] = {}
        for row in _rows(self.path) if wanted else ():
            number = int.from_bytes(_digest([row[name] for name in self.key]), "little")
            if number in wanted and number not in rows:
                rows[number] = row
                if len(rows) == len(wanted):
                    break
        return rows


def _rows(path: Path) -> Iterator[Row]:
    with path.open("rb") as lines:
        for line in lines:
            yield orjson.loads(line)


def _digest(value: Any) -> bytes:
    bare = orjson.dumps(_bare(value), option=orjson.OPT_SORT_KEYS)
    return blake2b(bare, digest_size=8).digest()


def _bare(value: Any) -> Any:
    """Without what says nothing: the first format left keys out where later ones write null."""
    if isinstance(value, dict):
        return {name: _bare(part) for name, part in value.items() if part is not None}
    return value


# --- Figures and settings --------------------------------------------------------------------------------


def _figures(a: Snapshot, b: Snapshot) -> list[tuple[str, Any, Any]]:
    def figures(snapshot: Snapshot) -> Row:
        agreement = {
            f"agreement {axis} {name}": values.get(name)
            for axis, values in snapshot.agreement.items()
            for name in ("pairwise", "pairwise_ci", "alpha", "alpha_ci", "n_pairs")
        }
        licences = {f"judgments from {e['source']}": e["n_judgments"] for e in snapshot.licences}
        size = {"bytes": sum(file["bytes"] for file in snapshot.files)}
        return _flat(snapshot.counts) | agreement | licences | size

    return _differing(figures(a), figures(b))


def _settings(a: Snapshot, b: Snapshot) -> list[tuple[str, Any, Any]]:
    def settings(snapshot: Snapshot) -> Row:
        query = {**snapshot.query}
        batches = {f"batch {e['name']}": "included" for e in query.pop("batches", ())}
        filters = {
            f"filter {e['filter']}": f"from {e['threshold']:g}, version {e['version']}"
            for e in query.pop("filters", ())
        }
        kept_out = {f"source {e['source']}": e["why"] for e in query.pop("kept_out", ())}
        guidelines = {
            f"guidelines {e['version']}": e["sha256"][:12] for e in query.pop("guidelines", ())
        }
        axes = {f"axis {e['key']}": e["question"] for e in query.pop("axes", ())}
        for name in ("asked_batches", "rounds", "filter_report"):
            query.pop(name, None)
        return _flat(query) | axes | batches | filters | kept_out | guidelines

    return _differing(settings(a), settings(b))


def _differing(a: Row, b: Row) -> list[tuple[str, Any, Any]]:
    names = dict.fromkeys([*a, *b])
    return [(name, a.get(name), b.get(name)) for name in names if a.get(name) != b.get(name)]


def _flat(values: Mapping[str, Any], before: str = "") -> Row:
    flat: Row = {}
    for name, value in values.items():
        label = f"{before} {name}".strip().replace("_", " ")
        flat |= _flat(value, label) if isinstance(value, dict) else {label: value}
    return flat
