"""The figures of one annotator."""

from collections.abc import Hashable
from dataclasses import dataclass

from annotation.statistics.estimates import NO_HABIT, Estimate, Habit
from annotation.statistics.habits import Speed
from annotation.statistics.marks import Marked

SPAM = 0.5
"""From this value of `spam` on, an admin should look at the judgments."""


@dataclass(frozen=True)
class Profile:
    """The figures of one annotator. `spam` is from 0 to 1; `reasons` are sentences."""

    annotator: Hashable
    n_votes: int
    n_pairs: int
    reliability: Estimate
    agreement: Estimate
    skill: Estimate
    position: Habit
    length: Habit
    ties: Habit
    pattern: Habit
    speed: Speed
    spam: float = 0.0
    reasons: tuple[str, ...] = ()
    marks: tuple[Marked, ...] = ()
    constant: Habit = NO_HABIT
    """The most significant habit of giving one mark; p is times the number of measures."""

    @property
    def is_suspect(self) -> bool:
        return self.spam >= SPAM
