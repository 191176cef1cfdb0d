"""What reading a file results in: items, and a report of what is wrong, skipped or worth knowing."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from annotation.models import Batch, Message, Source

Row = dict[str, Any]

SHOWN_PROBLEMS = 50
SHOWN_COLUMNS = 12


class RowError(ValueError):
    """What is wrong with one row; the message is shown next to its line number."""


class SkipRow(Exception):
    """The row is valid and has nothing to import; the report counts it under this message."""


class FileError(Exception):
    """The whole file cannot be read; the message says why."""


@dataclass(frozen=True)
class Problem:
    """One reason not to import a row; `line` is None when it concerns the whole file."""

    line: int | None
    reason: str
    noun: str = "Line"
    """What `line` counts: lines of a text file, or rows where a row may be several lines."""
    file: str = ""
    """Of an archive or a folder."""
    text: str = ""
    """The beginning of the row."""
    field: str = ""
    """The column that the reason is about, where it names one."""

    def __str__(self) -> str:
        return self.reason if self.line is None else f"{self.place}: {self.reason}"

    @property
    def place(self) -> str:
        return f"{self.noun} {self.line}" + (f" of {self.file}" if self.file else "")


@dataclass(frozen=True)
class PromptItem:
    """One checked prompt."""

    messages: list[Message]
    sha256: str
    category: str = ""
    risk: str = ""
    split: str = ""
    external_id: str = ""
    skill: str = ""
    priority: float = 0.0

    @property
    def text(self) -> str:
        return self.messages[-1]["content"]


@dataclass(frozen=True)
class VoteDetails:
    """Who judged a comparison, where the file says so, and what they said in addition to ranks."""

    annotator: str = ""
    judgment_id: str = ""
    strength: dict[str, dict[str, Any]] = field(default_factory=dict)
    """`{axis: {"level", "margin"}}`"""
    all_bad: list[str] = field(default_factory=list)
    reason: str = ""

    @property
    def axes(self) -> set[str]:
        return {*self.strength, *self.all_bad}


@dataclass(frozen=True)
class ComparisonItem:
    """One vote on a comparison: a prompt, its responses as (text, source), dense ranks per axis.

    `rest_below`: responses without a rank are below all ranked ones (a top-k ranking).
    """

    prompt: PromptItem
    responses: list[tuple[str, str]]
    ranks: dict[str, list[int | None]]
    rest_below: bool = False
    vote: VoteDetails = field(default_factory=VoteDetails)
    ratings: list[dict[str, int]] = field(default_factory=list)
    """`{attribute: mark}` per response; empty where the file has no marks."""
    safety: list[dict[str, Any] | None] = field(default_factory=list)
    """`{"safe", "harms"}` per response; empty where the file has no labels of safety."""

    @property
    def is_judged(self) -> bool:
        """Whether anybody said anything about the responses."""
        return bool(self.ranks or self.ratings or self.safety)

    @property
    def texts(self) -> tuple[str, ...]:
        """The responses' texts in an order that does not depend on their ranks."""
        return tuple(sorted(text for text, _ in self.responses))

    def digest(self) -> str:
        """Equal for the same prompt, responses and vote, in any order of the responses."""
        answers = sorted(
            [text, *((axis, ranks[index]) for axis, ranks in sorted(self.ranks.items()))]
            for index, (text, _) in enumerate(self.responses)
        )
        content: list[Any] = [self.prompt.sha256, answers]
        if self.rest_below:
            content.append("below")
        if self.vote != VoteDetails():
            content.append(asdict(self.vote))
        for marks in (self.ratings, self.safety):
            if marks:
                texts = [text for text, _ in self.responses]
                by_text = zip(texts, marks, strict=True)
                content.append(sorted(([text, mark] for text, mark in by_text), key=str))
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass
class ImportReport:
    """What a file contains, what is wrong with it, and what was written."""

    format: str = ""
    format_name: str = ""
    noun: str = "Line"
    file: str = ""
    """The file of an archive or a folder that is being read."""
    concerns_file: bool = False
    """Whether a problem is one of the whole file, not of a row."""
    has_header: bool = False
    """Whether columns are named once for all rows."""
    n_rows: int = 0
    n_imported: int = 0
    n_duplicates: int = 0
    n_problems: int = 0
    problems: list[Problem] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    """Valid rows that were not imported, by reason."""
    notes: Counter[str] = field(default_factory=Counter)
    """What changed or is missing in imported rows."""
    unread: Counter[str] = field(default_factory=Counter)
    """Columns that no format reads, with their number of rows."""
    on_problem: Callable[[Problem], None] | None = None
    """Called with each problem, also those that are not listed."""
    columns: dict[str, None] = field(default_factory=dict)
    """The first hundred names of columns or keys."""
    attributes: dict[str, tuple[int, int]] = field(default_factory=dict)
    """The marks of the file with their lowest and highest value."""
    harms: dict[str, str] = field(default_factory=dict)
    """The kinds of harm of the file, key to name."""
    n_prompts_only: int = 0
    n_responses_only: int = 0
    """Items without responses, and items with responses that nobody judged."""
    sha256: str = ""
    seconds: float = 0.0
    source: Source | None = None
    batches: list[Batch] = field(default_factory=list)
    examples: list[Any] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.n_problems

    @property
    def remarks(self) -> list[str]:
        """What was skipped and what to know, each with its number of rows."""
        remarks = [f"{n:,} skipped: {reason}" for reason, n in self.skipped.items()]
        remarks += [f"{n:,}: {note}" for note, n in self.notes.items()]
        if self.unread:
            columns = [
                f"{name[:30]} ({n:,} {'row' if n == 1 else 'rows'})"
                for name, n in self.unread.most_common(SHOWN_COLUMNS)
            ]
            more = ", …" if len(self.unread) > SHOWN_COLUMNS else ""
            remarks.append(f"columns not read: {', '.join(columns)}{more}")
        return remarks

    def add_problem(self, line: int | None, reason: str, text: str = "", name: str = "") -> None:
        self.n_problems += 1
        self.concerns_file |= line is None
        problem = Problem(line, reason, self.noun, self.file, text, name)
        if len(self.problems) < SHOWN_PROBLEMS:
            self.problems.append(problem)
        if self.on_problem is not None:
            self.on_problem(problem)
