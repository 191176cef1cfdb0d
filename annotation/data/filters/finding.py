"""What a filter finds in a text."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple


class Finding(NamedTuple):
    """One place in a text. `score` is on the filter's scale; the span is in characters, end excluded.

    `reason` never repeats the text: it is shown in lists and logs, where the text is covered.
    """

    score: float
    reason: str
    start: int
    end: int


Find = Callable[[str], list[Finding]]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Precision and recall of a filter at its default threshold, and what they were measured on."""

    precision: float
    recall: float
    n: int
    data: str

    @property
    def f1(self) -> float:
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


@dataclass(frozen=True, kw_only=True)
class Filter:
    """A row of the table of filters.

    `find` reads one text. Filters without it compare texts with one another (`near_duplicates`).
    """

    key: str
    name: str
    finds: str
    """What it finds, as one sentence for the page."""
    find: Find | None
    version: int = 1
    """Raised with every change of its findings: stored findings of another version are replaced."""
    threshold: float = 0.5
    low: float = 0.0
    high: float = 1.0
    step: float = 0.05
    unit: str = ""
    is_estimate: bool = True
    """Whether it can be wrong about a text, so that it needs calibration before it may exclude rows."""
    is_private: bool = False
    """Whether its findings are personal data, which pages mask."""
    figures: tuple[Figures, ...] = ()


def strongest(findings: list[Finding]) -> Finding | None:
    """The finding with the highest score, the first of equals."""
    return max(findings, key=lambda finding: finding.score, default=None)
