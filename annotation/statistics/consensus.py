"""One answer from the votes of several people, each weighted by reliability."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean, median, pstdev
from typing import NamedTuple

import numpy as np

from annotation.statistics.dawid_skene import Floats
from annotation.statistics.labels import FIRST, SECOND, TIE


class Consensus(NamedTuple):
    """`ranks` per response (1 is best, ties equal) and how sure the pairs are, 1/3 to 1, on average."""

    ranks: dict[int, int]
    certainty: float


def consensus(probabilities: dict[tuple[int, int], Floats]) -> Consensus:
    """One ranking from the probabilities (first better, tie, second better) of its pairs.

    A response's score is its mean chance of winning, ties counted half. Neighbors share a rank
    where a tie is the most probable of the three.
    """
    points: dict[int, float] = defaultdict(float)
    n: Counter[int] = Counter()
    for (a, b), outcome in probabilities.items():
        points[a] += float(outcome[FIRST] + outcome[TIE] / 2)
        points[b] += float(outcome[SECOND] + outcome[TIE] / 2)
        n.update((a, b))
    order = sorted(points, key=lambda pk: (-points[pk] / n[pk], pk))
    ranks = {order[0]: 1}
    for above, below in pairwise(order):
        between = probabilities.get((min(above, below), max(above, below)))
        tied = between is not None and int(np.argmax(between)) == TIE
        ranks[below] = ranks[above] + (0 if tied else 1)
    sure = sum(float(outcome.max()) for outcome in probabilities.values()) / len(probabilities)
    return Consensus(ranks, sure)


class MarkConsensus(NamedTuple):
    """What the marks of one response come to. Of a yes or no, 1 and 0, a mean is the share of yes.

    `value` is the whole mark nearest to `weighted`, None where that lies halfway, and `certainty` the
    share of the weight that gave it, 0 to 1. `median`, `mean` and `spread` (standard deviation over
    the marks, 0 where there is one) are of the marks as given, all alike.
    """

    value: int | None
    certainty: float | None
    weighted: float
    median: float
    mean: float
    spread: float
    n: int


def consensus_of_marks(marks: Sequence[int], weights: Sequence[float]) -> MarkConsensus:
    """One mark from several people's, each weighted by how far they can be relied on.

    A mean and no Dawid-Skene model: that takes 4 for as wrong as 1 where 5 is right, and with three
    marks a response lies further from the truth than the plain median (docs/log/quality.md). ValueError
    without marks.
    """
    if not marks:
        raise ValueError("A consensus needs at least one mark.")
    weighted = math.fsum(map(math.prod, zip(marks, weights, strict=True))) / math.fsum(weights)
    value = None if abs(weighted % 1 - 0.5) < 1e-9 else round(weighted)
    gave = math.fsum(weight for mark, weight in zip(marks, weights, strict=True) if mark == value)
    sure = None if value is None else gave / math.fsum(weights)
    return MarkConsensus(
        value, sure, weighted, float(median(marks)), fmean(marks), pstdev(marks), len(marks)
    )
