"""The rows of a frozen version, read from its Parquet: filtered, sorted and searched, however many.

Files of a version never change, so what is counted over a whole file is counted once and cached. A look
for words reads one row group after the other within a time budget and says where it ended.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from django.core.cache import cache

from annotation.data.snapshot_files import SnapshotError, snapshot_file
from annotation.models import Snapshot

SECONDS = 0.5
MOST_VALUES = 30
"""A column with more different texts than this is searched and not filtered."""
CACHED_SECONDS = 30 * 24 * 3600
BARS = 24
# Values of a filter that stand for missing and empty ones.
EMPTY = "(empty)"


@dataclass(frozen=True)
class RowQuery:
    """What is asked of one file. `filters` are values of text columns, `sort` a column of numbers or
    texts, "" for the order of the file."""

    file: str
    words: str = ""
    filters: dict[str, str] = field(default_factory=dict)
    sort: str = ""
    is_falling: bool = False
    start: int = 0


@dataclass(frozen=True)
class RowPage:
    """Some rows with their numbers in the file. `following` is where the next page starts."""

    rows: list[tuple[int, dict[str, Any]]]
    following: int | None
    n_rows: int
    searched: int | None
    """The budget ended at this row; None if everything was looked at."""


def files_of(snapshot: Snapshot) -> list[str]:
    """Names, without ending, of the version's Parquet files."""
    names = [file["name"] for file in snapshot.files]
    return [name.removesuffix(".parquet") for name in names if name.endswith(".parquet")]


def open_file(snapshot: Snapshot, file: str) -> pq.ParquetFile:
    """The Parquet file; SnapshotError if the version has none of this name or it cannot be read."""
    path = snapshot_file(snapshot, f"{file}.parquet")
    try:
        return pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        message = f"{path.name} of version {snapshot.version} is damaged: verify the version."
        raise SnapshotError(message) from error


def schema_of(parquet: pq.ParquetFile) -> list[tuple[str, str]]:
    """Each column with its Arrow type."""
    return [(column.name, str(column.type)) for column in parquet.schema_arrow]


def sortable(parquet: pq.ParquetFile) -> list[str]:
    """Columns of plain numbers and texts."""
    return [
        column.name
        for column in parquet.schema_arrow
        if pa.types.is_string(column.type)
        or pa.types.is_floating(column.type)
        or pa.types.is_integer(column.type)
    ]


def rows_of(
    parquet: pq.ParquetFile, query: RowQuery, n: int, *, seconds: float = SECONDS
) -> RowPage:
    """`n` rows from `query.start` on: a place in the order if it is sorted, else a row of the file."""
    if query.sort:
        return _sorted_rows(parquet, query, n)
    total = parquet.metadata.num_rows
    rows: list[tuple[int, dict[str, Any]]] = []
    deadline = time.monotonic() + seconds
    first = 0
    for group in range(parquet.num_row_groups):
        end = first + parquet.metadata.row_group(group).num_rows
        if end > query.start:
            skipped = max(0, query.start - first)
            matching = _matching(parquet, group, query)
            matching = matching[matching >= skipped]
            wanted = matching[: n + 1 - len(rows)]
            if len(wanted):
                table = parquet.read_row_group(group).take(pa.array(wanted))
                numbers = [first + int(place) for place in wanted]
                rows += zip(numbers, table.to_pylist(), strict=True)
            if len(rows) > n:
                return RowPage(rows[:n], rows[n][0], total, None)
            if time.monotonic() > deadline and end < total:
                return RowPage(rows, end, total, end)
        first = end
    return RowPage(rows, None, total, None)


def _matching(parquet: pq.ParquetFile, group: int, query: RowQuery) -> Any:
    """Places within a row group that fit filters and words; only the columns for that are read."""
    size = parquet.metadata.row_group(group).num_rows
    fits = np.ones(size, dtype=bool)
    if query.filters:
        table = parquet.read_row_group(group, columns=list(query.filters))
        for name, value in query.filters.items():
            fits &= _equals(table.column(name), value)
    if query.words and fits.any():
        fits &= _has_words(parquet.read_row_group(group), query.words.lower().split())
    return np.flatnonzero(fits)


def _equals(column: pa.ChunkedArray, value: str) -> Any:
    texts = pc.fill_null(column.cast(pa.string()), "")
    return pc.equal(texts, "" if value == EMPTY else value).to_numpy()


def _has_words(table: pa.Table, words: list[str]) -> Any:
    """Whether each row has all words, in any of its texts and upper or lower case."""
    fits = np.ones(table.num_rows, dtype=bool)
    texts = [pair for column in table.columns for pair in _texts_of(column.combine_chunks())]
    for word in words:
        has_word = np.zeros(table.num_rows, dtype=bool)
        for parents, values in texts:
            hits = pc.match_substring(values, word, ignore_case=True)
            is_hit = pc.fill_null(hits, pa.scalar(value=False)).to_numpy(zero_copy_only=False)
            has_word[parents[is_hit]] = True
        fits &= has_word
    return fits


def _texts_of(column: Any, parents: Any = None) -> list[tuple[Any, Any]]:
    """The texts within a column, however nested, each array with the rows that its texts are in."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if parents is None:
        parents = np.arange(len(column))
    kind = column.type
    if pa.types.is_string(kind):
        return [(parents, column)]
    if pa.types.is_list(kind):
        inside = pc.list_parent_indices(column).to_numpy()
        return _texts_of(pc.list_flatten(column), parents[inside])
    if pa.types.is_struct(kind):
        fields = [kind.field(place) for place in range(kind.num_fields)]
        return [
            pair
            for place, inner in enumerate(fields)
            if inner.name != "role"  # a word of the format, not of a person
            for pair in _texts_of(column.field(place), parents)
        ]
    return []


def _sorted_rows(parquet: pq.ParquetFile, query: RowQuery, n: int) -> RowPage:
    """Reads one column of the whole file, and the rows of the page from the groups that have them."""
    columns = list(dict.fromkeys([query.sort, *query.filters]))
    table = parquet.read(columns=columns)
    fits = np.ones(table.num_rows, dtype=bool)
    for name, value in query.filters.items():
        fits &= _equals(table.column(name), value)
    places = np.flatnonzero(fits)
    order = pc.sort_indices(
        table.column(query.sort).take(pa.array(places)),
        sort_keys=[("", "descending" if query.is_falling else "ascending", "at_end")],
    ).to_numpy()
    wanted = [int(place) for place in places[order[query.start : query.start + n]]]
    end = query.start + n
    following = end if end < len(places) else None
    return RowPage(_at(parquet, wanted), following, table.num_rows, None)


def _at(parquet: pq.ParquetFile, places: list[int]) -> list[tuple[int, dict[str, Any]]]:
    """The rows at these places of the file, in the order of `places`."""
    sizes = [parquet.metadata.row_group(g).num_rows for g in range(parquet.num_row_groups)]
    ends = np.cumsum(sizes)
    by_group: dict[int, list[int]] = {}
    for place in places:
        by_group.setdefault(int(np.searchsorted(ends, place, side="right")), []).append(place)
    rows: dict[int, dict[str, Any]] = {}
    for group, numbers in by_group.items():
        first = int(ends[group]) - sizes[group]
        table = parquet.read_row_group(group).take(pa.array([p - first for p in numbers]))
        rows |= zip(numbers, table.to_pylist(), strict=True)
    return [(place, rows[place]) for place in places]


# --- Counted over a whole file, once ------------------------------------------------------------------


def _once(snapshot: Snapshot, name: str, calculate: Callable[[], Any]) -> Any:
    key = f"version-rows:1:{snapshot.sha256}:{name}"
    known = cache.get(key)
    if known is None:
        known = calculate()
        cache.set(key, known, CACHED_SECONDS)
    return known


def facets_of(snapshot: Snapshot, file: str) -> dict[str, list[tuple[str, int]]]:
    """Text columns with few values -> each value with its number of rows, the most frequent first."""

    def calculate() -> dict[str, list[list[Any]]]:
        parquet = open_file(snapshot, file)
        facets: dict[str, list[list[Any]]] = {}
        for column in parquet.schema_arrow:
            if not pa.types.is_string(column.type) or column.name.endswith("_id"):
                continue
            values = parquet.read(columns=[column.name]).column(0)
            counts = pc.value_counts(pc.fill_null(values, "").combine_chunks())
            if 1 < len(counts) <= MOST_VALUES:
                pairs = [[row["values"] or EMPTY, row["counts"]] for row in counts.to_pylist()]
                facets[column.name] = sorted(pairs, key=lambda pair: -pair[1])
        return facets

    facets = _once(snapshot, f"facets:{file}", calculate)
    return {name: [(value, n) for value, n in pairs] for name, pairs in facets.items()}


@dataclass(frozen=True)
class Histogram:
    """Counts of lengths in characters by equal steps; the last bar has all that is longer."""

    counts: list[int]
    step: int
    median: float
    longest: int
    n: int


def histogram(lengths: Any) -> Histogram:
    """Of an array of lengths; steps reach to the 98th percentile."""
    if not len(lengths):
        return Histogram([0] * BARS, 1, 0.0, 0, 0)
    step = max(1, int(np.ceil((np.percentile(lengths, 98) + 1) / BARS)))
    bars = np.minimum(lengths // step, BARS - 1)
    counts = np.bincount(bars.astype(int), minlength=BARS)
    return Histogram(
        [int(count) for count in counts],
        step,
        float(np.median(lengths)),
        int(lengths.max()),
        len(lengths),
    )


def lengths_of(snapshot: Snapshot, file: str, column: str) -> Histogram:
    """The lengths of all texts within a column."""

    def calculate() -> dict[str, Any]:
        parquet = open_file(snapshot, file)
        parts = [np.zeros(0, dtype=np.int64)]
        for batch in parquet.iter_batches(columns=[column]):
            for _, values in _texts_of(batch.column(0)):
                parts.append(pc.fill_null(pc.utf8_length(values), 0).to_numpy())
        return histogram(np.concatenate(parts)).__dict__

    return Histogram(**_once(snapshot, f"lengths:{file}:{column}", calculate))


def first_places(snapshot: Snapshot, file: str) -> dict[str, list[float]]:
    """Axis -> for each place of a response in its row, the share of rankings that put it first.

    A tie for the first place is shared. Only rankings of the most frequent number of responses count.
    """

    def calculate() -> dict[str, list[float]]:
        parquet = open_file(snapshot, file)
        sums: dict[str, dict[int, Any]] = {}
        for batch in parquet.iter_batches(columns=["ranks"]):
            ranks = batch.column(0)
            for place in range(ranks.type.num_fields):
                axis = ranks.type.field(place).name
                of_axis = sums.setdefault(axis, {})
                for row in ranks.field(place).to_pylist():
                    given = [rank for rank in row or [] if rank is not None]
                    if row and len(given) == len(row) > 1:
                        best = np.array([rank == min(given) for rank in given], dtype=float)
                        total = of_axis.setdefault(len(row), [0, np.zeros(len(row))])
                        total[0] += 1
                        total[1] += best / best.sum()
        shares = {}
        for axis, by_size in sums.items():
            if by_size:
                n, first = max(by_size.values(), key=lambda pair: pair[0])
                shares[axis] = [float(share) for share in first / n]
        return shares

    shares: dict[str, list[float]] = _once(snapshot, f"places:{file}", calculate)
    return shares


def longer_wins(snapshot: Snapshot, file: str) -> tuple[float, int] | None:
    """Of pairs of different lengths, the share in which the longer response was chosen, and how many."""

    def calculate() -> list[float]:
        parquet = open_file(snapshot, file)
        longer = pairs = 0
        for batch in parquet.iter_batches(columns=["chosen", "rejected"]):
            chosen, rejected = (_length_of_messages(batch.column(place)) for place in (0, 1))
            longer += int((chosen > rejected).sum())
            pairs += int((chosen != rejected).sum())
        return [longer / pairs if pairs else 0.0, pairs]

    share, pairs = _once(snapshot, f"longer:{file}", calculate)
    return (share, int(pairs)) if pairs else None


def _length_of_messages(column: Any) -> Any:
    """Characters of each row's messages together."""
    total = np.zeros(len(column), dtype=np.int64)
    for parents, values in _texts_of(column):
        np.add.at(total, parents, pc.fill_null(pc.utf8_length(values), 0).to_numpy())
    return total
