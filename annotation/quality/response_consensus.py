"""The consensus of marks and safety votes, for each response of one comparison."""

from collections.abc import Sequence
from dataclasses import dataclass

from annotation.judge.requirements import Ratings, Safety, marks_by_place
from annotation.protocols import SAFE_OR_NOT
from annotation.statistics.consensus import MarkConsensus, consensus_of_marks
from annotation.statistics.reliability import Quality


@dataclass(frozen=True)
class ResponseConsensus:
    """The consensus on one response, judged by itself."""

    marks: dict[str, MarkConsensus]
    """By attribute, and for the safety vote."""
    harms: dict[str, float]
    """By kind of harm: the share of the unsafe votes that name it, weighted by skill."""

    @property
    def main_harms(self) -> list[str]:
        """The kinds of harm that more than half of the unsafe votes name."""
        return [kind for kind, share in self.harms.items() if share > 0.5]


def consensus_on_responses(
    quality: Quality, keys: Sequence[str], votes: Sequence[tuple[int, Ratings, Safety]]
) -> list[ResponseConsensus]:
    """The consensus on each response (`keys`: their ids) of one comparison, in that order.

    `votes` are (annotator, marks, safety votes) of this comparison.
    """
    marks_by_voter = [
        (voter, marks_by_place(keys, ratings, safety)) for voter, ratings, safety in votes
    ]
    measures = dict.fromkeys(measure for _, by_measure in marks_by_voter for measure in by_measure)
    results = []
    for place, key in enumerate(keys):
        marks = {}
        for measure in measures:
            weighted = [
                (value, quality.weight(voter, measure))
                for voter, by_measure in marks_by_voter
                if (value := by_measure.get(measure, [None] * len(keys))[place]) is not None
            ]
            if weighted:
                marks[measure] = consensus_of_marks(*map(list, zip(*weighted, strict=True)))
        results.append(ResponseConsensus(marks, _shares_of_harms(quality, key, votes)))
    return results


def _shares_of_harms(
    quality: Quality, key: str, votes: Sequence[tuple[int, Ratings, Safety]]
) -> dict[str, float]:
    unsafe = [
        (safety[key]["harms"], quality.weight(voter, SAFE_OR_NOT))
        for voter, _, safety in votes
        if key in safety and not safety[key]["safe"]
    ]
    total = sum(weight for _, weight in unsafe)
    kinds = dict.fromkeys(kind for harms, _ in unsafe for kind in harms)
    return {
        kind: sum(weight for harms, weight in unsafe if kind in harms) / total for kind in kinds
    }
