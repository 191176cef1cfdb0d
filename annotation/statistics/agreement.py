"""How far annotators agree, with intervals. Plain arithmetic over preference rows and rating rows.

Three figures per axis, over comparisons that at least two people ranked:

- `alpha`: Krippendorff's alpha (Krippendorff 2018, ch. 12) with the ordinal metric. A unit is one
  response of one comparison, its values are the ranks that people gave it. 1 is perfect, 0 is
  chance. Who gave which value does not matter to alpha, so missing raters are no trouble.
- `pairwise`: for two people and two responses that both ranked, the share on whose order they
  agree; one tied and one not counts a half, both tied counts one. Two responses that a top-k ranking
  left out are not compared by it; they are behind those that it has. This is the figure that labs
  quote as inter-annotator agreement (InstructGPT, section 3.4: 72.6 %) and the ceiling for a reward
  model's accuracy.
- `tau`: Kendall's tau-b (Kendall 1945) of two people's rankings of one comparison, the mean over all
  such pairs of rankings; one that ties everything has no order and is left out.

Marks and votes on safety (`mark:<attribute>`, `safe/unsafe`) have two of them. A unit is one
response of one prompt, its values are the marks; alpha is ordinal, which with the two values of a
vote is nominal alpha. `pairwise` is the share of two people's marks of one response that are the
same mark (the agreement rate that Ji et al. 2023 give for BeaverTails).

Intervals are 95 %, percentile bootstrap over comparisons: the responses of one comparison are
judged together, so they are drawn together. A rating row does not name its comparison; those of one
prompt are drawn together instead.
"""

import math
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from annotation.protocols import BELOW, SAFE_OR_NOT, mark_on

RESAMPLES = 1000
SEED = 0
# Weights held at once, resamples x comparisons: bounds the memory.
BLOCK_CELLS = 100_000

Ranks = tuple[int | None, ...]
# Agreements, pairs of people and responses, sum of tau-b, pairs of rankings that have a tau.
Tally = tuple[float, int, float, int]
Floats = npt.NDArray[np.float64]
# Who gave it, and the mark.
Mark = tuple[str, int]


class Gatherer:
    """Collects rankings and marks row by row, keeping no texts; `result()` counts at the end."""

    def __init__(self) -> None:
        self._rankings: dict[str, dict[bytes, list[Ranks]]] = {}
        self._by: dict[str, dict[bytes, list[str]]] = {}
        self._marks: dict[str, dict[str, dict[bytes, list[Mark]]]] = {}
        self._people: dict[str, set[str]] = {}
        self._judgments: dict[str, int] = {}
        self._last: dict[str, str] = {}

    def add(self, row: dict[str, Any]) -> None:
        """Take in one preference row or one rating row (docs/formats.md)."""
        if "ranks" in row:
            self._add_ranking(row)
        else:
            self._add_marks(row)

    def _add_ranking(self, row: dict[str, Any]) -> None:
        digest = blake2b(digest_size=16)
        digest.update(str(row["prompt_id"]).encode())
        for text in row["responses"]:
            digest.update(b"\0" + text.encode("utf-8", "surrogatepass"))
        comparison = digest.digest()
        for axis, ranks in row["ranks"].items():
            self._rankings.setdefault(axis, {})
            if row.get("unranked") == "below":
                ranks = with_the_rest(ranks or ())
            ranks = ranks_of_distinct(row["responses"], ranks or ())
            if not ranks or sum(rank is not None for rank in ranks) < 2:
                continue
            self._rankings[axis].setdefault(comparison, []).append(tuple(ranks))
            raters = self._by.setdefault(axis, {}).setdefault(comparison, [])
            raters.append(str(row.get("annotator", "")))
            self._people.setdefault(axis, set()).add(str(row.get("annotator", "")))
            self._judgments[axis] = self._judgments.get(axis, 0) + 1

    def _add_marks(self, row: dict[str, Any]) -> None:
        response = blake2b(
            row["response"].encode("utf-8", "surrogatepass"), digest_size=16
        ).digest()
        marks = {mark_on(key): value for key, value in row["attributes"].items()}
        if row["safe"] is not None:
            marks[SAFE_OR_NOT] = int(row["safe"])
        person = str(row.get("annotator", ""))
        for measure, value in marks.items():
            by_response = self._marks.setdefault(measure, {}).setdefault(str(row["prompt_id"]), {})
            by_response.setdefault(response, []).append((person, value))
            self._people.setdefault(measure, set()).add(person)
            # The rows of one judgment follow one another.
            if self._last.get(measure) != row["judgment_id"]:
                self._last[measure] = row["judgment_id"]
                self._judgments[measure] = self._judgments.get(measure, 0) + 1

    def result(self) -> dict[str, dict[str, Any]]:
        """`{axis or mark: {alpha, alpha_ci, pairwise, pairwise_ci, tau, tau_ci, n_units, …}}`."""
        figures = {
            axis: _figures(
                [
                    rankings
                    for comparison, rankings in comparisons.items()
                    if len(rankings) > 1 and self._has_several_people(axis, comparison)
                ]
            )
            for axis, comparisons in self._rankings.items()
        } | {
            measure: _mark_figures([[*responses.values()] for responses in prompts.values()])
            for measure, prompts in self._marks.items()
        }
        return {
            measure: {
                **values,
                "n_judgments": self._judgments.get(measure, 0),
                "n_annotators": len(self._people.get(measure, ())),
            }
            for measure, values in figures.items()
        }

    def _has_several_people(self, axis: str, comparison: bytes) -> bool:
        """False where one named person ranked it again and again."""
        people = self._by[axis][comparison]
        return len(set(people)) > 1 or not people[0]

    def by_annotator(self) -> dict[str, dict[str, dict[str, Any]]]:
        """`{annotator: {axis or mark: {pairwise, pairwise_ci, tau, tau_ci, n_pairs, n_comparisons}}}`.

        Each person's agreement with the others. Of an axis alpha belongs to the group and is not
        given. Of a mark `alpha` and `alpha_ci` are those of the pairs of marks of which one is this
        person's: as if the others were one person, drawn again for each response.
        """
        figures: dict[str, dict[str, dict[str, Any]]] = {}
        for axis, comparisons in self._rankings.items():
            tables: dict[str, list[Tally]] = {}
            for comparison, rankings in comparisons.items():
                people = self._by[axis][comparison]
                for person in set(people):
                    others = [
                        (ranks, other)
                        for (ranks, person_a), (other, person_b) in combinations(
                            zip(rankings, people, strict=True), 2
                        )
                        if (person_a == person) != (person_b == person)
                    ]
                    tables.setdefault(person, [])
                    if others and (tally := agreed(others))[1]:
                        tables[person].append(tally)
            for person, tallies in tables.items():
                figures.setdefault(person, {})[axis] = _rates(tallies)
        for measure, prompts in self._marks.items():
            for person, values in _marks_by_annotator([*prompts.values()]).items():
                figures.setdefault(person, {})[measure] = values
        return figures


def agreement_by_category(rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """`{category: {axis: figures}}`: `agreement` for each category of prompts by itself."""
    return agreement_in_all(rows)[1]


def agreement_in_all(
    rows: Iterable[dict[str, Any]],
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, dict[str, Any]]]]:
    """`agreement` and `agreement_by_category` of rows that are read once and not kept."""
    everything, gatherers = Gatherer(), dict[str, Gatherer]()
    for row in rows:
        everything.add(row)
        gatherers.setdefault(str(row.get("category") or ""), Gatherer()).add(row)
    return (
        everything.result(),
        {category: gatherers[category].result() for category in sorted(gatherers)},
    )


def agreement_by_annotator(rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """`{annotator: {axis: figures}}`: each person's agreement with the others."""
    gatherer = Gatherer()
    for row in rows:
        gatherer.add(row)
    return gatherer.by_annotator()


def agreement(rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Agreement per axis and mark over rows; figures are None, with a `reason`, without overlap.

    `n_units` is the number of responses with at least two ranks or marks, `n_comparisons` that of the
    comparisons they belong to, `n_pairs` that of the comparisons of two people on two responses.
    """
    gatherer = Gatherer()
    for row in rows:
        gatherer.add(row)
    return gatherer.result()


def _figures(comparisons: list[list[Ranks]]) -> dict[str, Any]:
    """Every figure over comparisons with two or more rankings each."""
    counted = [(list(_units(given)), agreed(combinations(given, 2))) for given in comparisons]
    return _all_figures(counted, "ranked", "rank")


def _mark_figures(comparisons: list[list[list[Mark]]]) -> dict[str, Any]:
    """Every figure over the marks of the responses of each comparison."""
    counted = []
    for responses in comparisons:
        units = [[value for _, value in given] for given in responses if len(given) > 1]
        same = [_same(unit) for unit in units]
        n_same, n_pairs = sum(n for n, _ in same), sum(n for _, n in same)
        counted.append((units, (float(n_same), n_pairs, 0.0, 0)))
    return _all_figures(counted, "marked", "mark")


def _same(values: list[int]) -> tuple[int, int]:
    """Of how many pairs of these both are the same, and how many pairs there are."""
    tally = np.bincount(values)
    return int((tally * (tally - 1)).sum() // 2), len(values) * (len(values) - 1) // 2


def _marks_by_annotator(prompts: list[dict[bytes, list[Mark]]]) -> dict[str, dict[str, Any]]:
    """Each person's marks against those of the others: the share that is the same, and alpha."""
    values = sorted(
        {value for by_response in prompts for given in by_response.values() for _, value in given}
    )
    index, size = {value: place for place, value in enumerate(values)}, len(values)
    tallies: dict[str, list[Tally]] = {}
    matrices: dict[str, list[Floats]] = {}
    for by_response in prompts:
        here: dict[str, tuple[list[int], Floats]] = {}
        for given in by_response.values():
            for person, value in given:
                counted, matrix = here.setdefault(person, ([0, 0], np.zeros((size, size))))
                others = [other for by, other in given if by != person]
                for other in others:
                    a, b = index[value], index[other]
                    matrix[a, b] += 1 / len(others)
                    matrix[b, a] += 1 / len(others)
                    counted[0] += a == b
                    counted[1] += 1
        for person, (counted, matrix) in here.items():
            tallies.setdefault(person, [])
            if counted[1]:
                tallies[person].append((float(counted[0]), counted[1], 0.0, 0))
                matrices.setdefault(person, []).append(matrix.ravel())
    figures_of = {}
    for person, table in tallies.items():
        figures = {"alpha": None, "alpha_ci": None, **_rates(table)}
        if person in matrices:
            stacked = np.array(matrices[person])
            alpha = ordinal_alpha(stacked.sum(axis=0).reshape(size, size))
            figures["alpha"] = alpha if math.isfinite(alpha) else None
            if len(stacked) > 1:
                drawn = resampled_sums(stacked).reshape(-1, size, size)
                figures["alpha_ci"] = _interval(ordinal_alphas(drawn))
        figures_of[person] = figures
    return figures_of


def _all_figures(
    comparisons: list[tuple[list[list[int]], Tally]], was: str, value: str
) -> dict[str, Any]:
    """Every figure, from the units and the tally of each comparison; `was` and `value` are words."""
    kept = [(units, tally) for units, tally in comparisons if units]
    empty = dict.fromkeys(("alpha", "alpha_ci", "pairwise", "pairwise_ci", "tau", "tau_ci"))
    sizes = {"n_units": sum(len(units) for units, _ in kept), "n_comparisons": len(kept)}
    if not kept:
        reason = f"No response was {was} by two people, so nothing can be compared."
        return {**empty, **sizes, "n_pairs": 0, "reason": reason}

    values = sorted({given for units, _ in kept for unit in units for given in unit})
    figures: dict[str, Any] = {**empty, **sizes, **_rates([tally for _, tally in kept])} | sizes
    matrices = np.array([coincidences(units, values).ravel() for units, _ in kept])
    if len(values) > 1:
        figures["alpha"] = ordinal_alpha(matrices.sum(axis=0).reshape(len(values), -1))
    else:
        figures["reason"] = f"Everybody gave every response the same {value}: alpha is not defined."
    if len(kept) < 2:  # one comparison drawn again and again says nothing about how figures vary
        return figures
    drawn = resampled_sums(matrices)
    if len(values) > 1:
        alphas = ordinal_alphas(drawn.reshape(-1, len(values), len(values)))
        figures["alpha_ci"] = _interval(alphas)
    return figures


def _units(rankings: list[Ranks]) -> Iterable[list[int]]:
    """The ranks that each response of one comparison was given, where there are at least two."""
    for column in zip(*rankings, strict=True):
        given = [rank for rank in column if rank is not None]
        if len(given) > 1:
            yield given


def _rates(tallies: list[Tally]) -> dict[str, Any]:
    """Pairwise agreement and tau with their intervals; one tally per comparison."""
    table = np.array(tallies, dtype=np.float64).reshape(-1, 4)
    points, n_each, taus, n_taus = table.T
    n_pairs = int(n_each.sum())
    rates: dict[str, Any] = dict.fromkeys(("pairwise", "pairwise_ci", "tau", "tau_ci"))
    rates |= {"n_pairs": n_pairs, "n_comparisons": len(table)}
    if n_pairs:
        rates["pairwise"] = float(points.sum() / n_pairs)
    if n_taus.sum():
        rates["tau"] = float(taus.sum() / n_taus.sum())
    if len(table) < 2:  # one comparison drawn again and again says nothing about how figures vary
        return rates
    drawn = resampled_sums(table)
    for name, column in (("pairwise", 0), ("tau", 2)):
        if rates[name] is not None:
            n = drawn[:, column + 1]
            rates[f"{name}_ci"] = _interval(drawn[:, column] / np.where(n > 0, n, np.nan))
    return rates


def ranks_of_distinct(texts: Sequence[str], ranks: Sequence[int | None]) -> Ranks:
    """The ranks of the distinct texts: of equal ones, which nobody can tell apart, the best rank."""
    if len(set(texts)) == len(texts):
        return tuple(ranks)
    best: dict[str, int | None] = {}
    for text, rank in zip(texts, ranks, strict=False):
        known = best.setdefault(text, rank)
        if known is None or (rank is not None and rank < known):
            best[text] = rank
    given = sorted({rank for rank in best.values() if rank is not None and rank != BELOW})
    dense: dict[int | None, int] = {rank: place for place, rank in enumerate(given, start=1)}
    return tuple(dense.get(rank, rank) for rank in best.values())


def with_the_rest(ranks: Sequence[int | None]) -> Ranks:
    """A top-k ranking with BELOW for what it left out; as it is where nothing was ranked."""
    if all(rank is None for rank in ranks):
        return tuple(ranks)
    return tuple(BELOW if rank is None else rank for rank in ranks)


def agreed(couples: Iterable[tuple[Ranks, Ranks]]) -> Tally:
    """Over couples of rankings of one comparison: agreements, pairs, sum of tau-b, taus (Tally)."""
    points, n, taus, n_taus = 0.0, 0, 0.0, 0
    for ranks, others in couples:
        both = [
            (a, b) for a, b in zip(ranks, others, strict=True) if a is not None and b is not None
        ]
        pairs = alike = against = tied_a = tied_b = 0
        for (a1, b1), (a2, b2) in combinations(both, 2):
            if a1 == a2 == BELOW or b1 == b2 == BELOW:
                continue
            pairs += 1
            tied_a += a1 == a2
            tied_b += b1 == b2
            if a1 != a2 and b1 != b2:
                if (a1 < a2) == (b1 < b2):
                    alike += 1
                else:
                    against += 1
            points += 1.0 if (a1 == a2) and (b1 == b2) else 0.5 if (a1 == a2) or (b1 == b2) else 0.0
        points += alike
        n += pairs
        if pairs > tied_a and pairs > tied_b:
            taus += (alike - against) / math.sqrt((pairs - tied_a) * (pairs - tied_b))
            n_taus += 1
    return points, n, taus, n_taus


def coincidences(units: Iterable[list[int]], values: list[int]) -> Floats:
    """Krippendorff's coincidence matrix (values x values): each unit adds its ordered pairs / (m-1)."""
    index = {value: position for position, value in enumerate(values)}
    matrix = np.zeros((len(values), len(values)))
    for unit in units:
        tally = np.bincount([index[value] for value in unit], minlength=len(values))
        matrix += (np.outer(tally, tally) - np.diag(tally)) / (len(unit) - 1)
    return matrix


def ordinal_distances(totals: Floats) -> Floats:
    """Squared distances of values, of each of which there are so many: (…, values, values).

    It is (what lies between two, both ends counted half)^2 (Krippendorff 2011, Computing
    Krippendorff's Alpha-Reliability, section D).
    """
    middle = np.cumsum(totals, axis=-1) - totals / 2
    distances: Floats = (middle[..., :, None] - middle[..., None, :]) ** 2
    return distances


def ordinal_alpha(matrix: Floats) -> float:
    """Alpha with the ordinal metric from a coincidence matrix; NaN where only one value occurs."""
    return float(ordinal_alphas(matrix[None])[0])


def ordinal_alphas(matrices: Floats) -> Floats:
    """`ordinal_alpha` of each: (resamples, values, values) -> (resamples,)."""
    totals = matrices.sum(axis=-1)
    n = totals.sum(axis=-1)
    distance = ordinal_distances(totals)
    observed = (matrices * distance).sum(axis=(-2, -1))
    expected = (totals[:, :, None] * totals[:, None, :] * distance).sum(axis=(-2, -1))
    defined = (n > 1) & (expected != 0)
    alphas: Floats = np.where(
        defined, 1 - (n - 1) * observed / np.where(defined, expected, 1), np.nan
    )
    return alphas


def resampled_sums(table: Floats) -> Floats:
    """Column sums of resampled rows: (comparisons, columns) -> (RESAMPLES, columns).

    The seed is fixed, so that the same judgments always give the same interval.
    """
    generator = np.random.default_rng(SEED)
    n = len(table)
    sums = []
    # Many resamples at once, as there may be hundreds of small tables; few of them for a large one.
    # The same rows are drawn whatever the size of a block.
    at_once = max(1, BLOCK_CELLS // max(n, 1))
    for start in range(0, RESAMPLES, at_once):
        block = min(at_once, RESAMPLES - start)
        drawn = generator.integers(0, n, size=(block, n)) + n * np.arange(block)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=block * n).reshape(block, n)
        sums.append(weights.astype(np.float64) @ table)
    return np.concatenate(sums)


def _interval(drawn: Floats) -> list[float] | None:
    """95 % percentile interval; None where fewer than half of the resamples are defined."""
    defined = drawn[np.isfinite(drawn)]
    if len(defined) < len(drawn) / 2:
        return None
    low, high = np.percentile(defined, [2.5, 97.5])
    return [float(low), float(high)]
