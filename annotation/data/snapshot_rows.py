"""The rows of a snapshot: every file written in one pass over the judgments, and counted."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annotation.data import preferences
from annotation.data.exports.schemas import (
    DEMONSTRATION_SCHEMA,
    MARGIN_SCHEMA,
    PAIR_SCHEMA,
    judgment_schema,
    rating_schema,
)
from annotation.data.exports.writers import EXPORT_FORMATS, Row, Writer
from annotation.data.ratings_and_demonstrations import ResponseRow, attributes_of, response_rows
from annotation.data.snapshot_files import (
    DEMONSTRATIONS,
    JUDGMENTS,
    RATINGS,
    SnapshotError,
    pair_file,
)
from annotation.models import Batch, Project
from annotation.statistics.agreement import Gatherer

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

    def add_ranking(self, origin: preferences.Origin, row: Row) -> None:
        self.judgments += 1
        self.prompts.add(row["prompt_id"])
        self.responses += len(row["responses"])
        self._add_judgment(origin, row)

    def add_response_row(self, row: ResponseRow) -> None:
        """Count a rating or a demonstration; each judgment counts once, with or without ranks."""
        self.response_rows[row.file] += 1
        self.prompts.add(row.row["prompt_id"])
        if row.is_first:
            self.without_ranks += 1
            self._add_judgment(row.origin, row.row)

    def _add_judgment(self, origin: preferences.Origin, row: Row) -> None:
        self.annotators[row["annotator"]] += 1
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

    `on_progress` is called from time to time with the number of judgments written; it must not
    write to
    the database with this thread's connection.
    """

    project: Project
    folder: Path
    batches: list[Batch] | None
    rounds: Mapping[int, Any] | None
    on_progress: Callable[[int], None]
    tally: Tally = field(default_factory=Tally)
    agreement: Gatherer = field(default_factory=Gatherer)

    def write(self) -> None:
        """Fill every file: one pass over the rankings, then one over ratings and demonstrations."""
        with ExitStack() as stack:
            self._write_rankings(stack)
            self._write_response_rows(stack)
        if not self.tally.all_judgments:
            raise SnapshotError("None of the judgments ranks, rates or writes anything.")
        self._remove_empty_files()

    def _writers(self, stack: ExitStack, name: str, schema: Any) -> list[Writer]:
        return [
            stack.enter_context(make_writer(self.folder / f"{name}.{ending}", schema))
            for ending, make_writer in EXPORT_FORMATS.items()
        ]

    def _write_rankings(self, stack: ExitStack) -> None:
        axes, tally = self.project.axis_keys, self.tally
        rankings = self._writers(stack, JUDGMENTS, judgment_schema(axes))
        margins = preferences.has_strength(self.project, batches=self.batches)
        pair_schema = MARGIN_SCHEMA if margins else PAIR_SCHEMA
        pairs = {axis: self._writers(stack, pair_file(axis), pair_schema) for axis in axes}
        for origin, row in preferences.rows_with_origins(
            self.project, batches=self.batches, rounds=self.rounds, adjudicated=False
        ):
            _name_round(row)
            # Agreement is that of the annotators, also where a reviewer decided afterwards.
            if not origin.is_ruling:
                self.agreement.add(row)
            if origin.is_overruled:
                continue
            tally.add_ranking(origin, row)
            if tally.judgments % PROGRESS_EVERY == 0:
                self.on_progress(tally.judgments)
            for writer in rankings:
                writer.write(row)
            for axis, writers in pairs.items():
                for pair in preferences.pairs([row], axis, margins=margins):
                    tally.pairs[axis] += 1
                    for writer in writers:
                        writer.write(pair)
                tally.ties[axis] += preferences.n_ties(row, axis)

    def _write_response_rows(self, stack: ExitStack) -> None:
        tally = self.tally
        writers = {
            RATINGS: self._writers(stack, RATINGS, rating_schema(attributes_of(self.project))),
            DEMONSTRATIONS: self._writers(stack, DEMONSTRATIONS, DEMONSTRATION_SCHEMA),
        }
        for row in response_rows(
            self.project, batches=self.batches, rounds=self.rounds, adjudicated=False
        ):
            if row.file == RATINGS and not row.origin.is_ruling:
                self.agreement.add(row.row)
            if row.origin.is_overruled:
                continue
            _name_round(row.row)
            tally.add_response_row(row)
            if sum(tally.response_rows.values()) % PROGRESS_EVERY == 0:
                self.on_progress(tally.all_judgments)
            for writer in writers[row.file]:
                writer.write(row.row)

    def _remove_empty_files(self) -> None:
        # A loader fails on an empty file.
        empty = [file for file in (RATINGS, DEMONSTRATIONS) if not self.tally.response_rows[file]]
        if not self.tally.judgments:
            empty.append(JUDGMENTS)
        empty += [pair_file(axis) for axis in self.project.axis_keys if not self.tally.pairs[axis]]
        for file in empty:
            for ending in EXPORT_FORMATS:
                (self.folder / f"{file}.{ending}").unlink()


def _name_round(row: Row) -> None:
    """The column is text: "" for a batch of no round."""
    row["round"] = "" if row["round"] is None else str(row["round"])
