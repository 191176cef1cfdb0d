"""Habits that don't depend on the responses' content: position, length, ties, patterns, speed."""

import math
from collections import Counter, defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
import numpy.typing as npt

from annotation.statistics.dawid_skene import Floats
from annotation.statistics.estimates import MIN_VOTES, Habit, binomial_tail
from annotation.statistics.labels import Pairs, Rating, Vote

# Fast readers read about 7 words a second and skimming is about 12 (Rayner and others 2016); nobody
# compares at 15, which is 90 characters.
MAX_CHARACTERS_A_SECOND = 90.0
# Modified z-score beyond which a value is an outlier (Iglewicz & Hoaglin 1993).
OUTLIER = 3.5


@dataclass(frozen=True)
class Speed:
    """Characters a second (median over comparisons) and its distance from the others' median."""

    median_seconds: float | None = None
    characters_a_second: float | None = None
    z: float | None = None
    n: int = 0

    @property
    def is_fast(self) -> bool:
        rate = self.characters_a_second
        return rate is not None and self.n >= MIN_VOTES and rate > MAX_CHARACTERS_A_SECOND

    @property
    def is_outlier(self) -> bool:
        return self.z is not None and abs(self.z) > OUTLIER


def gap_to_others(
    pairs: Pairs, did: npt.NDArray[np.bool_], counts: npt.NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """For each row that counts: this person's 0 or 1 minus the share of the others, and that share.

    NaN where no label of somebody else counts on that pair.
    """
    size = len(pairs.items)
    done = (did & counts).astype(np.float64)
    total = np.bincount(pairs.item, weights=done, minlength=size)[pairs.item] - done
    n = np.bincount(pairs.item, weights=counts, minlength=size)[pairs.item] - counts
    share = np.divide(total, n, out=np.full_like(total, np.nan), where=n > 0)
    return done - share, share


def repeated_patterns(votes: list[Vote]) -> dict[Hashable, Habit]:
    """For each person: how many rankings with the same ranks have them at the same positions.

    As the shown order is drawn each time, every arrangement of the same ranks is equally likely:
    1, 2, 3 as likely as 3, 1, 2. All-tied rankings have one arrangement and are left out. Axes are
    correlated, so each is tested separately: the most significant one counts, its p multiplied by
    the number of axes.
    """
    seen: dict[tuple[Hashable, str], list[tuple[int | None, ...]]] = defaultdict(list)
    for vote in votes:
        if len(set(vote.ranks)) > 1:
            seen[vote.annotator, vote.axis].append(vote.ranks)
    habits_by_annotator: dict[Hashable, list[Habit]] = defaultdict(list)
    for (annotator, _), patterns in seen.items():
        most_common, n = Counter(patterns).most_common(1)[0]
        n_same_ranks = sum(Counter(ranks) == Counter(most_common) for ranks in patterns)
        if n_same_ranks >= max(MIN_VOTES, len(patterns) / 2):
            places = _arrangements(most_common)
            p = min(1.0, places * binomial_tail(n, n_same_ranks, 1 / places))
            habits_by_annotator[annotator].append(
                Habit(n / n_same_ranks, 1 / places, n_same_ranks, None, p)
            )
    most_significant = {
        annotator: min(habits, key=lambda habit: habit.p or 0.0)
        for annotator, habits in habits_by_annotator.items()
    }
    return {
        annotator: replace(
            habit, p=min(1.0, (habit.p or 0.0) * len(habits_by_annotator[annotator]))
        )
        for annotator, habit in most_significant.items()
    }


def _arrangements(ranks: tuple[int | None, ...]) -> int:
    ways = math.factorial(len(ranks))
    for n in Counter(ranks).values():
        ways //= math.factorial(n)
    return ways


def reading_speeds(votes: list[Vote | Rating], people: list[Hashable]) -> dict[Hashable, Speed]:
    timed: dict[Hashable, dict[Hashable, tuple[float, float]]] = defaultdict(dict)
    for vote in votes:
        if vote.seconds is not None and vote.seconds > 0:
            rate = sum(vote.lengths) / vote.seconds
            timed[vote.annotator][vote.comparison] = (vote.seconds, rate)
    rates = {
        annotator: math.log(max(median(rate for _, rate in by_comparison.values()), 1e-6))
        for annotator, by_comparison in timed.items()
        if len(by_comparison) >= MIN_VOTES
    }
    scores: dict[Hashable, float] = {}
    if len(rates) >= 4:
        middle = median(rates.values())
        spread = median(abs(rate - middle) for rate in rates.values())
        # A lower limit of the spread: in a homogeneous team small differences are no outliers.
        scores = {
            annotator: 0.6745 * (rate - middle) / max(spread, 0.1)
            for annotator, rate in rates.items()
        }
    return {
        annotator: Speed(
            median(seconds for seconds, _ in timed[annotator].values()),
            median(rate for _, rate in timed[annotator].values()),
            scores.get(annotator),
            len(timed[annotator]),
        )
        if annotator in timed
        else Speed()
        for annotator in people
    }
