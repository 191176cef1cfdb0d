"""One row for each comparison: what its votes come to, each weighted by its annotator's reliability."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from annotation.data.preferences import Origin, Row
from annotation.statistics.reliability import Quality

CONSENSUS = "consensus"


def consensus_rows(
    rows: Iterable[tuple[Origin, Row]], axes: Sequence[str], quality: Quality
) -> Iterator[tuple[Origin, Row, list[str]]]:
    """The consensus of each comparison as a row of `preferences`, and whose votes it is.

    `rows` are in the order of their comparisons. A reviewer's ruling stays as it is: it has decided.
    The row's `judgment_id` names its comparison. Its ranks are those of the Dawid-Skene model of all
    votes (`statistics/consensus.py`), null for an axis without one; no strength, no reason; `all_bad`
    has the axes that more than half of the people named.
    """
    for comparison, group in groupby(rows, key=lambda pair: pair[0].comparison):
        votes = list(group)
        origin, first = votes[0]
        if origin.is_ruling:
            yield origin, first, [first["annotator"]]
            continue
        ranks = {}
        for axis in axes:
            ranking = quality.consensus(axis, comparison)
            ranks[axis] = [ranking.ranks.get(pk) if ranking else None for pk in origin.responses]
        if not any(rank is not None for of_axis in ranks.values() for rank in of_axis):
            continue
        yield (
            origin,
            {
                **first,
                "judgment_id": f"{CONSENSUS}-{comparison}",
                "annotator": CONSENSUS,
                "ranks": ranks,
                "weight": 1.0,
                "strength": dict.fromkeys(axes),
                "margin": dict.fromkeys(axes),
                "all_bad": [
                    axis
                    for axis in axes
                    if 2 * sum(axis in row["all_bad"] for _, row in votes) > len(votes)
                ],
                "reason": "",
            },
            [row["annotator"] for _, row in votes],
        )
