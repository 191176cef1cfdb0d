"""Figures with their intervals, and habits with their tests.

Tests are self-normalized sums over comparisons: z = sum(d) / sqrt(sum(d^2)), where d is one
comparison's sum over its pairs and axes. That is valid however the pairs of one comparison depend on
each other. p-values are two-sided; `holm` adjusts them over the people of one call (Holm 1979).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from annotation.statistics.agreement import resampled_sums
from annotation.statistics.dawid_skene import Floats, Ints


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval (percentile bootstrap over comparisons) and what it rests on."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0


@dataclass(frozen=True)
class Habit:
    """How often somebody does a thing, how often was to be expected, and how sure the difference is.

    `p` is None where there is too little to test; `n` counts pairs.
    """

    share: float | None
    expected: float | None
    n: int = 0
    z: float | None = None
    p: float | None = None


NO_HABIT = Habit(None, None)

# Below this many votes nothing is said about a person's habits.
MIN_VOTES = 8


def ratio_with_interval(
    points: Floats, weights: Floats, unit: Ints, mask: npt.NDArray[np.bool_]
) -> tuple[Estimate, Floats]:
    """sum(points) / sum(weights) over the rows, with its bootstrap over comparisons."""
    if not mask.any():
        return Estimate(None), np.array([])
    _, place = np.unique(unit[mask], return_inverse=True)
    table: Floats = np.column_stack(
        [np.bincount(place, weights=points[mask]), np.bincount(place, weights=weights[mask])]
    ).astype(np.float64)
    total = table.sum(axis=0)
    if total[1] <= 0:
        return Estimate(None), np.array([])
    value, n = float(total[0] / total[1]), len(table)
    if n < 2:
        return Estimate(value, n=n), np.array([])
    drawn = resampled_sums(table)
    values = drawn[:, 0] / np.where(drawn[:, 1] > 0, drawn[:, 1], np.nan)
    values = values[np.isfinite(values)]
    low, high = np.percentile(values, [2.5, 97.5])
    return Estimate(value, float(low), float(high), n), values


def sign_test(
    values: Floats | Ints, unit: Ints, mask: npt.NDArray[np.bool_], *, tested: bool
) -> tuple[float | None, float | None]:
    """z and two-sided p of "the sum is 0", comparisons being independent; None where too few."""
    if not tested or not mask.any():
        return None, None
    _, place = np.unique(unit[mask], return_inverse=True)
    sums = np.bincount(place, weights=np.asarray(values, dtype=np.float64)[mask])
    if np.count_nonzero(sums) < MIN_VOTES:
        return None, None
    z = float(sums.sum() / math.sqrt(float((sums**2).sum())))
    return z, math.erfc(abs(z) / math.sqrt(2))


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment; None stays None and counts for nothing."""
    order = sorted((p, index) for index, p in enumerate(ps) if p is not None)
    adjusted: list[float | None] = [None] * len(ps)
    largest = 0.0
    for step, (p, index) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - step)))
        adjusted[index] = largest
    return adjusted


def binomial_tail(k: int, n: int, p: float) -> float:
    """P(X >= k) for X ~ Binomial(n, p)."""
    if k <= 0:
        return 1.0
    logs = [
        math.lgamma(n + 1)
        - math.lgamma(i + 1)
        - math.lgamma(n - i + 1)
        + i * math.log(p)
        + (n - i) * math.log1p(-p)
        for i in range(k, n + 1)
    ]
    return min(1.0, math.fsum(math.exp(value) for value in logs))


def mean_or_none(values: Any) -> float | None:
    return float(np.mean(values)) if len(values) else None
