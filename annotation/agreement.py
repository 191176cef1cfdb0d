"""How far annotators agree, with intervals. Plain arithmetic over preference rows.

Two figures per axis, over comparisons that at least two people ranked:

- `alpha`: Krippendorff's alpha (Krippendorff 2018, ch. 12) with the ordinal metric. A unit is one
  response of one comparison, its values are the ranks that people gave it. 1 is perfect, 0 is
  chance. Who gave which value does not matter to alpha, so missing raters are no trouble.
- `pairwise`: for two people and two responses that both ranked, the share on whose order they
  agree; one tied and one not counts a half, both tied counts one. This is the figure that labs
  quote as inter-annotator agreement (InstructGPT, section 3.4: 72.6 %) and the ceiling for a reward
  model's accuracy.

Intervals are 95 %, percentile bootstrap over comparisons: the responses of one comparison are
ranked together, so they are drawn together.
"""

from collections.abc import Iterable
from hashlib import blake2b
from itertools import combinations
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

RESAMPLES = 1000
SEED = 0
# Resamples drawn at once; bounds the memory of the weights to BLOCK x comparisons.
BLOCK = 50

Ranks = tuple[int | None, ...]
Floats = npt.NDArray[np.float64]


class Gatherer:
    """Collects rankings row by row, keeping ranks and no texts; `result()` counts at the end."""

    def __init__(self) -> None:
        self._rankings: dict[str, dict[bytes, list[Ranks]]] = {}
        self._people: dict[str, set[str]] = {}
        self._judgments: dict[str, int] = {}

    def add(self, row: dict[str, Any]) -> None:
        """Take in one preference row (docs/formats.md)."""
        digest = blake2b(digest_size=16)
        digest.update(str(row["prompt_id"]).encode())
        for text in row["responses"]:
            digest.update(b"\0" + text.encode("utf-8", "surrogatepass"))
        comparison = digest.digest()
        for axis, ranks in row["ranks"].items():
            self._rankings.setdefault(axis, {})
            if not ranks or sum(rank is not None for rank in ranks) < 2:
                continue
            self._rankings[axis].setdefault(comparison, []).append(tuple(ranks))
            self._people.setdefault(axis, set()).add(str(row.get("annotator", "")))
            self._judgments[axis] = self._judgments.get(axis, 0) + 1

    def result(self) -> dict[str, dict[str, Any]]:
        """`{axis: {alpha, alpha_ci, pairwise, pairwise_ci, n_units, n_judgments, n_annotators, …}}`."""
        return {
            axis: {
                **_figures([given for given in comparisons.values() if len(given) > 1]),
                "n_judgments": self._judgments.get(axis, 0),
                "n_annotators": len(self._people.get(axis, ())),
            }
            for axis, comparisons in self._rankings.items()
        }


def agreement(rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Agreement per axis over preference rows; figures are None, with a `reason`, without overlap.

    `n_units` is the number of responses with at least two ranks, `n_comparisons` that of the
    comparisons they belong to, `n_pairs` that of the comparisons of two people on two responses.
    """
    gatherer = Gatherer()
    for row in rows:
        gatherer.add(row)
    return gatherer.result()


def _figures(comparisons: list[list[Ranks]]) -> dict[str, Any]:
    """Both figures over comparisons with two or more rankings each."""
    units = [list(_units(rankings)) for rankings in comparisons]
    kept = [(r, u) for r, u in zip(comparisons, units, strict=True) if u]
    empty = {"alpha": None, "alpha_ci": None, "pairwise": None, "pairwise_ci": None}
    sizes = {"n_units": sum(len(u) for _, u in kept), "n_comparisons": len(kept)}
    if not kept:
        reason = "No response was ranked by two people, so nothing can be compared."
        return {**empty, **sizes, "n_pairs": 0, "reason": reason}

    values = sorted({value for _, u in kept for unit in u for value in unit})
    agreed = np.array([_agreed(rankings) for rankings, _ in kept])  # (comparisons, 2)
    n_pairs = int(agreed[:, 1].sum())
    figures: dict[str, Any] = {**empty, **sizes, "n_pairs": n_pairs}
    points, n_each = agreed.T
    if n_pairs:
        figures["pairwise"] = float(points.sum() / n_each.sum())
    if len(values) > 1:
        figures["alpha"] = krippendorff([unit for _, u in kept for unit in u])
    else:
        figures["reason"] = "Everybody gave every response the same rank: alpha is not defined."
    if len(kept) < 2:  # one comparison drawn again and again says nothing about how figures vary
        return figures
    matrices = np.array([coincidences(u, values).ravel() for _, u in kept])
    drawn = _bootstrap(np.column_stack([agreed, matrices]))
    if n_pairs:
        rates = drawn[:, 0] / np.where(drawn[:, 1] > 0, drawn[:, 1], np.nan)
        figures["pairwise_ci"] = _interval(rates)
    if len(values) > 1:
        alphas = [ordinal_alpha(row.reshape(len(values), -1)) for row in drawn[:, 2:]]
        figures["alpha_ci"] = _interval(np.array(alphas))
    return figures


def _units(rankings: list[Ranks]) -> Iterable[list[int]]:
    """The ranks that each response of one comparison was given, where there are at least two."""
    for column in zip(*rankings, strict=True):
        given = [rank for rank in column if rank is not None]
        if len(given) > 1:
            yield given


def _agreed(rankings: list[Ranks]) -> tuple[float, int]:
    """(agreements, comparisons) over all pairs of people and all pairs of responses both ranked."""
    points, n = 0.0, 0
    for one, other in combinations(rankings, 2):
        both = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
        for (a1, b1), (a2, b2) in combinations(both, 2):
            n += 1
            if (a1 < a2) == (b1 < b2) and (a1 > a2) == (b1 > b2):
                points += 1
            elif a1 == a2 or b1 == b2:
                points += 0.5
    return points, n


Metric = Literal["nominal", "ordinal", "interval"]


def krippendorff(units: list[list[int]], metric: Metric = "ordinal") -> float:
    """Krippendorff's alpha of units with two or more values each, by evalica.

    Values of a unit are put into as many rows as the busiest unit needs: alpha pairs values within
    a unit and never asks which person gave which, so people need no row of their own.
    """
    # Imported here: evalica brings pandas, which no other page needs.
    import evalica
    import pandas

    width = max(len(unit) for unit in units)
    table = np.full((width, len(units)), np.nan)
    for column, unit in enumerate(units):
        table[: len(unit), column] = unit
    return float(evalica.alpha(pandas.DataFrame(table), distance=metric).alpha)


def coincidences(units: Iterable[list[int]], values: list[int]) -> Floats:
    """Krippendorff's coincidence matrix (values x values): each unit adds its ordered pairs / (m-1)."""
    index = {value: position for position, value in enumerate(values)}
    matrix = np.zeros((len(values), len(values)))
    for unit in units:
        tally = np.bincount([index[value] for value in unit], minlength=len(values))
        matrix += (np.outer(tally, tally) - np.diag(tally)) / (len(unit) - 1)
    return matrix


def ordinal_alpha(matrix: Floats) -> float:
    """Alpha with the ordinal metric from a coincidence matrix; NaN where only one value occurs.

    The squared distance of two ranks is (what lies between them, both ends counted half)^2
    (Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, section D).
    """
    totals = matrix.sum(axis=1)
    n = totals.sum()
    middle = np.cumsum(totals) - totals / 2
    distance = (middle[:, None] - middle[None, :]) ** 2
    expected = float((np.outer(totals, totals) * distance).sum())
    if n <= 1 or expected == 0:
        return float("nan")
    return float(1 - (n - 1) * (matrix * distance).sum() / expected)


def _bootstrap(table: Floats) -> Floats:
    """Column sums of resampled rows: (comparisons, columns) -> (RESAMPLES, columns).

    The seed is fixed, so that the same judgments always give the same interval.
    """
    generator = np.random.default_rng(SEED)
    n = len(table)
    sums = []
    for _ in range(RESAMPLES // BLOCK):
        weights = [np.bincount(generator.integers(0, n, size=n), minlength=n) for _ in range(BLOCK)]
        sums.append(np.array(weights, dtype=np.float64) @ table)
    return np.concatenate(sums)


def _interval(drawn: Floats) -> list[float] | None:
    """95 % percentile interval; None where fewer than half of the resamples are defined."""
    defined = drawn[np.isfinite(drawn)]
    if len(defined) < len(drawn) / 2:
        return None
    low, high = np.percentile(defined, [2.5, 97.5])
    return [float(low), float(high)]
