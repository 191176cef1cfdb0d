"""Means and shares with confidence intervals, over samples that belong to clusters (prompts).

It imports only numpy, because the web side imports this module too.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000


def mean_with_interval(
    values: Sequence[float], clusters: Sequence[str], *, seed: int = 0, level: float = 0.95
) -> tuple[float, tuple[float, float], int]:
    """The mean, its percentile bootstrap interval, and the number of clusters resampled.

    Clusters (prompts) are resampled, not samples, because samples of the same prompt are correlated.
    With one cluster the interval has width 0.
    """
    index = {name: i for i, name in enumerate(dict.fromkeys(clusters))}
    totals, counts = np.zeros(len(index)), np.zeros(len(index))
    for value, name in zip(values, clusters, strict=True):
        totals[index[name]] += value
        counts[index[name]] += 1
    mean = float(totals.sum() / counts.sum())
    rng = np.random.default_rng(seed)
    n = len(index)
    drawn: NDArray[np.int64] = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    means = (drawn @ totals) / (drawn @ counts)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return mean, (float(low), float(high)), n


def share_with_interval(
    values: Sequence[float], clusters: Sequence[str], *, seed: int = 0
) -> tuple[float, tuple[float, float], int]:
    """`mean_with_interval` of values between 0 and 1.

    If all values are 0, or all are 1, a bootstrap interval would have width 0. The exact bound for
    a binomial proportion of n clusters is used instead (Clopper & Pearson 1934).
    """
    mean, interval, n = mean_with_interval(values, clusters, seed=seed)
    if mean in (0.0, 1.0):
        far = 1 - 0.025 ** (1 / n)
        interval = (0.0, far) if mean == 0.0 else (1 - far, 1.0)
    return mean, interval, n


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a proportion of n independent trials (Wilson 1927)."""
    if n < 1:
        return 0.0, 1.0
    z = 1.96
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)
