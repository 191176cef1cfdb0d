"""What an import would do, before anything is written: counts, the first rows, and refused rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from annotation.data.exports.spreadsheets import csv_chunks
from annotation.data.import_formats.items import EVERYTHING, read_items
from annotation.data.import_formats.report import ComparisonItem, ImportReport, Problem
from annotation.data.import_writing import (
    CHUNK,
    judgment_key,
    known_judgments,
    known_prompts,
    known_responses,
)
from annotation.models import Project

N_SHOWN = 20
MOST_REFUSED = 100_000
REFUSED_COLUMNS = ("row", "file", "field", "reason", "text")


@dataclass
class Preview:
    """`report.n_duplicates` and `n_new` are what the import would count."""

    report: ImportReport
    n_new: int = 0
    items: list[ComparisonItem] = field(default_factory=list)
    """The first ones."""
    refused: list[Problem] = field(default_factory=list)


def preview(
    project: Project,
    file: Path | BinaryIO,
    *,
    axis: str = "",
    shape: str = "auto",
    contents: str = EVERYTHING,
    columns: Mapping[str, str] | None = None,
) -> Preview:
    """Read the whole file as `import_file` does, and compare it with what the project has."""
    made = Preview(ImportReport())

    def keep(problem: Problem) -> None:
        if len(made.refused) < MOST_REFUSED:
            made.refused.append(problem)

    made.report.on_problem = keep
    items = read_items(
        file,
        made.report,
        axis=axis or project.axis_keys[0],
        axes=project.axis_keys,
        shape=shape,
        contents=contents,
        columns=columns,
    )
    seen: set[Any] = set()
    while chunk := list(islice(items, CHUNK)):
        made.items += chunk[: N_SHOWN - len(made.items)]
        made.n_new += _count_new(project, chunk, seen)
        made.report.n_duplicates += len(chunk)
    made.report.n_duplicates -= made.n_new
    return made


def _count_new(project: Project, items: list[ComparisonItem], seen: set[Any]) -> int:
    """How many of these neither the project nor an earlier row has."""
    judged = {judgment_key(project, item): item for item in items if item.is_judged}
    ids = known_prompts(project, list({item.prompt.sha256 for item in items}))
    stored = known_responses(ids.values())
    known = known_judgments(project, judged)
    n_new = 0
    for item in items:
        prompt = item.prompt.sha256
        marks: set[Any]
        if item.is_judged:
            key = judgment_key(project, item)
            marks = set() if key in known else {key}
        elif item.responses:
            texts = stored.get(ids.get(prompt, 0), set())
            marks = {(prompt, hash(text)) for text, _ in item.responses if text not in texts}
        else:
            marks = set() if prompt in ids else {prompt}
        n_new += bool(marks - seen)
        # A prompt that came with responses is no longer new for a row without.
        seen |= marks | {prompt}
    return n_new


def refused_csv(made: Preview) -> Any:
    """The refused rows as a table that is safe in a spreadsheet, in chunks of text."""
    rows = (
        {
            "row": problem.line,
            "file": problem.file,
            "field": problem.field,
            "reason": problem.reason,
            "text": problem.text,
        }
        for problem in made.refused
    )
    return csv_chunks(rows, REFUSED_COLUMNS)
