"""The rows of a snapshot: every file written in one pass over the judgments, and counted."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from annotation.data import preferences
from annotation.data.consensus_rows import consensus_rows
from annotation.data.exports.schema_file import SCHEMA_FILE, schema_file
from annotation.data.exports.schemas import (
    DEMONSTRATION_SCHEMA,
    MARGIN_SCHEMA,
    PAIR_SCHEMA,
    judgment_schema,
    rating_schema,
)
from annotation.data.exports.writers import EXPORT_FORMATS, Row, TableWriter
from annotation.data.ratings_and_demonstrations import ResponseRow, attributes_of, response_rows
from annotation.data.snapshot_files import (
    DEMONSTRATIONS,
    JUDGMENTS,
    RATINGS,
    SnapshotError,
    pair_file,
)
from annotation.data.snapshot_options import SnapshotOptions
from annotation.models import Batch, Project
from annotation.statistics.agreement import Gatherer
from annotation.statistics.reliability import Quality

PROGRESS_EVERY = 500


@dataclass
class Tally:
    """Counts of the written rows; ids and numbers, no texts."""

    judgments: int = 0
    without_ranks: int = 0
    """Judgments that rate or write and prefer nothing."""
    prompts: set[str] = field(default_factory=set)
    responses: int = 0
    annotators: Counter[str] = field(default_factory=Counter)
    """Judgments by annotator."""
    batches: Counter[int] = field(default_factory=Counter)
    sources: Counter[int] = field(default_factory=Counter)
    sources_by_batch: defaultdict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    pairs: Counter[str] = field(default_factory=Counter)
    ties: Counter[str] = field(default_factory=Counter)
    response_rows: Counter[str] = field(default_factory=Counter)
    """Ratings and demonstrations, by file."""

    @property
    def all_judgments(self) -> int:
        return self.judgments + self.without_ranks

    def add_ranking(
        self, origin: preferences.Origin, row: Row, annotators: Sequence[str] = ()
    ) -> None:
        """Count a row of `preferences`; `annotators` are those whose consensus it is."""
        self.judgments += 1
        self.prompts.add(row["prompt_id"])
        self.responses += len(row["responses"])
        self._add_judgment(origin, annotators or [row["annotator"]])

    def add_response_row(self, row: ResponseRow) -> None:
        """Count a rating or a demonstration; each judgment counts once, with or without ranks."""
        self.response_rows[row.file] += 1
        self.prompts.add(row.row["prompt_id"])
        if row.is_first:
            self.without_ranks += 1
            self._add_judgment(row.origin, [row.row["annotator"]])

    def _add_judgment(self, origin: preferences.Origin, annotators: Sequence[str]) -> None:
        self.annotators.update(annotators)
        self.batches[origin.batch] += 1
        self.sources.update(origin.sources)
        self.sources_by_batch[origin.batch] |= origin.sources

    def people(self, kind: str) -> int:
        """How many annotators have a name of this kind (`annotator`, `simulated`, …)."""
        return sum(name.startswith(f"{kind}-") for name in self.annotators)

    def judgments_by(self, kind: str) -> int:
        return sum(n for name, n in self.annotators.items() if name.startswith(f"{kind}-"))


@dataclass
class SnapshotRows:
    """Writes the rows of some batches of a project to the files of a folder, once.

    `quality` weighs the votes of a consensus and is read for nothing else. `on_progress` is called
    from time to time with the number of judgments written; it must not write to the database with this
    thread's connection.
    """

    project: Project
    folder: Path
    batches: list[Batch] | None
    rounds: Mapping[int, Any] | None
    on_progress: Callable[[int], None]
    options: SnapshotOptions = SnapshotOptions()  # noqa: RUF009
    quality: Quality | None = None
    tally: Tally = field(default_factory=Tally)
    agreement: Gatherer = field(default_factory=Gatherer)
    schemas: dict[str, pa.Schema] = field(default_factory=dict)
    """Of each table that has rows."""

    @property
    def axes(self) -> list[str]:
        """Keys of the axes that the version has."""
        return list(self.options.axes) or self.project.axis_keys

    def write(self) -> None:
        """Fill every file: one pass over the rankings, then one over ratings and demonstrations."""
        with ExitStack() as stack:
            self._write_rankings(stack)
            self._write_response_rows(stack)
        if not self.tally.all_judgments:
            raise SnapshotError("None of the judgments ranks, rates or writes anything.")
        self._remove_empty_files()
        (self.folder / SCHEMA_FILE).write_bytes(schema_file(self.schemas))

    def _table(self, stack: ExitStack, name: str, schema: pa.Schema) -> TableWriter:
        self.schemas[name] = schema
        return stack.enter_context(TableWriter(self.folder, name, schema))

    def _write_rankings(self, stack: ExitStack) -> None:
        axes, tally, ties = self.axes, self.tally, self.options.ties
        rankings = self._table(stack, JUDGMENTS, judgment_schema(axes))
        margins = preferences.has_strength(self.project, batches=self.batches)
        pair_schema = MARGIN_SCHEMA if margins else PAIR_SCHEMA
        pairs = {axis: self._table(stack, pair_file(axis), pair_schema) for axis in axes}
        for origin, row, annotators in self._rankings():
            tally.add_ranking(origin, row, annotators)
            if tally.judgments % PROGRESS_EVERY == 0:
                self.on_progress(tally.judgments)
            rankings.write(row)
            for axis, table in pairs.items():
                for pair in preferences.pairs([row], axis, ties, margins=margins):
                    tally.pairs[axis] += 1
                    table.write(pair)
                tally.ties[axis] += preferences.n_ties(row, axis)

    def _rankings(self) -> Iterator[tuple[preferences.Origin, Row, list[str]]]:
        """The rows of `preferences`, and whose votes each of them is."""
        if self.options.votes == "raw":
            for origin, row in self._votes():
                yield origin, row, [row["annotator"]]
        else:
            assert self.quality is not None
            yield from consensus_rows(self._votes(), self.axes, self.quality)

    def _votes(self) -> Iterator[tuple[preferences.Origin, Row]]:
        """The judgments that count, on the axes of the version."""
        for origin, row in preferences.rows_with_origins(
            self.project,
            batches=self.batches,
            rounds=self.rounds,
            adjudicated=False,
            filters=self.options.filters,
        ):
            if self.options.axes and not _restrict(row, self.options.axes):
                continue
            # Agreement is that of the annotators, also where a reviewer decided afterwards.
            if not origin.is_ruling:
                self.agreement.add(row)
            if not origin.is_overruled:
                yield origin, row

    def _write_response_rows(self, stack: ExitStack) -> None:
        tally, attributes = self.tally, attributes_of(self.project)
        tables = {
            RATINGS: self._table(stack, RATINGS, rating_schema(attributes)),
            DEMONSTRATIONS: self._table(stack, DEMONSTRATIONS, DEMONSTRATION_SCHEMA),
        }
        for row in response_rows(
            self.project,
            batches=self.batches,
            rounds=self.rounds,
            adjudicated=False,
            filters=self.options.filters,
        ):
            if row.file == RATINGS and not row.origin.is_ruling:
                self.agreement.add(row.row)
            if row.origin.is_overruled:
                continue
            tally.add_response_row(row)
            if sum(tally.response_rows.values()) % PROGRESS_EVERY == 0:
                self.on_progress(tally.all_judgments)
            if row.file == RATINGS:
                set_attributes(row.row, attributes)
            tables[row.file].write(row.row)

    def _remove_empty_files(self) -> None:
        # A loader fails on an empty file.
        empty = [file for file in (RATINGS, DEMONSTRATIONS) if not self.tally.response_rows[file]]
        if not self.tally.judgments:
            empty.append(JUDGMENTS)
        empty += [pair_file(axis) for axis in self.axes if not self.tally.pairs[axis]]
        for file in empty:
            del self.schemas[file]
            for ending in EXPORT_FORMATS:
                (self.folder / f"{file}.{ending}").unlink()


def _restrict(row: Row, axes: Sequence[str]) -> bool:
    """Leave the row nothing but these axes; False if it ranks nothing on them."""
    for part in ("ranks", "strength", "margin"):
        row[part] = {axis: row[part][axis] for axis in axes}
    row["all_bad"] = [axis for axis in row["all_bad"] if axis in axes]
    return any(rank is not None for ranks in row["ranks"].values() for rank in ranks)


def set_attributes(row: Row, attributes: Sequence[str]) -> None:
    """Give a rating each attribute, null where it was not asked, so that all rows have the same keys."""
    if attributes:
        row["attributes"] = {key: row["attributes"].get(key) for key in attributes}
    else:  # Parquet has no empty struct: where only safety is asked there is no such column.
        del row["attributes"]
