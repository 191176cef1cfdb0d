"""How far the votes on one comparison are apart, from 0 (equal) to 1 (opposite)."""

from itertools import combinations

from annotation.models import Judgment
from annotation.statistics.agreement import agreed, with_the_rest


def disagreement(votes: list[Judgment]) -> float:
    """On the order, on safety or on the marks, whichever is largest."""
    return max(_on_order(votes), _on_safety(votes), _on_ratings(votes))


def _on_order(votes: list[Judgment]) -> float:
    """1 − the pairwise agreement on the axis on which people agree least; 0 with fewer than two."""
    distances = [0.0]
    for axis in {axis for vote in votes for axis in vote.ranks}:
        on_axis = [vote for vote in votes if axis in vote.ranks]
        keys = sorted({key for vote in on_axis for key in vote.ranks[axis]})
        rankings = []
        for vote in on_axis:
            ranks = tuple(vote.ranks[axis].get(key) for key in keys)
            rankings.append(with_the_rest(ranks) if vote.rest_below else ranks)
        points, n_pairs, _, _ = agreed(combinations(rankings, 2))
        if n_pairs:
            distances.append(1 - points / n_pairs)
    return max(distances)


def _on_safety(votes: list[Judgment]) -> float:
    """For the most disputed response: the share of pairs of people who vote differently on it."""
    by_response: dict[str, list[float]] = {}
    for vote in votes:
        for key, safety in vote.safety.items():
            by_response.setdefault(key, []).append(float(safety["safe"]))
    return max(map(_mean_distance, by_response.values()), default=0.0)


def _on_ratings(votes: list[Judgment]) -> float:
    """For the most disputed mark: the mean distance of two people's marks, as a share of the scale.

    Optional marks are not compared: leaving one out is not an opinion.
    """
    by_mark: dict[tuple[str, str], list[float]] = {}
    for vote in votes:
        attributes = vote.assignment.comparison.batch.effective_protocol.attributes
        scales = {attribute.key: attribute for attribute in attributes if attribute.is_required}
        for response, marks in vote.ratings.items():
            for key, value in marks.items():
                if scale := scales.get(key):
                    share = (value - scale.low) / (scale.high - scale.low)
                    by_mark.setdefault((response, key), []).append(share)
    return max(map(_mean_distance, by_mark.values()), default=0.0)


def _mean_distance(values: list[float]) -> float:
    distances = [abs(a - b) for a, b in combinations(values, 2)]
    return sum(distances) / len(distances) if distances else 0.0
