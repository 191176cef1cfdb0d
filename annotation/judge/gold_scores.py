"""The agreement of answers with gold items, and each person's number of correct ones.

An order is known by its pairs, and what is said of a response by itself by its marks: a mark
that is near enough is right (`Attribute.tolerance`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from django.db.models import Q

from annotation import protocols
from annotation.judge.requirements import marks_by_place
from annotation.models import Batch, Judgment, Membership, Project, Response

# Of what people write, and of a dialogue that is still to be held, no answer is known.
KNOWABLE = (protocols.RANK, protocols.PAIR, protocols.RATE)
ORDERED = (protocols.RANK, protocols.PAIR)
# An item is right when this share of its pairs and marks is; a pair leaves no room for error.
RIGHT = 0.75
# By role too: rows made in bulk did not set the column.
KNOWS_GOLD = Q(knows_gold=True) | Q(role__in=Membership.SEES_GOLD)


def asked_measures(
    interface: str, protocol: protocols.Protocol, measures: Iterable[str]
) -> list[str]:
    """Of axes and marks (as in `GoldItem.expected`), those that people are asked about."""
    marks = {protocols.mark_on(attribute.key) for attribute in protocol.attributes}
    if protocol.safety:
        marks.add(protocols.SAFE_OR_NOT)
    return [
        measure
        for measure in measures
        if (measure in marks if protocols.is_mark(measure) else interface in ORDERED)
    ]


def tolerances(protocol: protocols.Protocol) -> dict[str, int]:
    """How far each mark may be from the known one and still be right."""
    return {protocols.mark_on(mark.key): mark.tolerance for mark in protocol.attributes}


def share_right(
    expected: Mapping[str, Sequence[int | None]],
    given: Mapping[str, Any],
    tolerance: Mapping[str, int] | None = None,
) -> float | None:
    """The share of the known pairs and marks that an answer got right; None if none is known.

    `given` is `{axis or mark: [rank or mark, or None, per response]}`, in the item's order of
    responses. Of an axis the known pairs count: a tie where one is better is half right; a response
    that was not ranked is wrong. Two that a top-k ranking left out (BELOW) were not asked about. Of
    a mark each known one counts: it is right where it is at most `tolerance[mark]` away (0 unless
    said), a safe-or-unsafe mark where it is the same.
    """
    points, n = 0.0, 0
    for measure, known in expected.items():
        if protocols.is_mark(measure):
            near = (tolerance or {}).get(measure, 0)
            for right, mark in zip(known, given.get(measure) or [None] * len(known), strict=True):
                n += right is not None
                points += right is not None and mark is not None and abs(mark - right) <= near
            continue
        points_of, n_of = _score_order(known, given.get(measure) or [None] * len(known))
        points, n = points + points_of, n + n_of
    return points / n if n else None


def _score_order(known: Sequence[int | None], given: Sequence[int | None]) -> tuple[float, int]:
    """Over the known pairs of one axis: points, and how many there are."""
    points, n = 0.0, 0
    for (a, said_a), (b, said_b) in combinations(zip(known, given, strict=True), 2):
        if a is None or b is None or a == b or said_a == said_b == protocols.BELOW:
            continue
        n += 1
        if said_a is None or said_b is None:
            continue
        points += 0.5 if said_a == said_b else float((said_a < said_b) == (a < b))
    return points, n


@dataclass(frozen=True)
class Tally:
    """How many gold items a person answered, and how many of them right."""

    right: int = 0
    answered: int = 0

    @property
    def share(self) -> float | None:
        return self.right / self.answered if self.answered else None


def tallies(project: Project, *, attempt_of: Membership | None = None) -> dict[int, Tally]:
    """`{user id: Tally}` over mixed-in gold, or over one person's qualification round.

    A person who could ever see what is gold is not measured by it, nor by earlier answers.
    """
    judgments = Judgment.objects.filter(
        current_for__isnull=False,
        assignment__comparison__gold__isnull=False,
        assignment__comparison__batch__project=project,
    )
    if attempt_of is None:
        knows = Membership.objects.filter(KNOWS_GOLD, project=project).values("user")
        judgments = judgments.filter(
            assignment__comparison__batch__qualification__isnull=True
        ).exclude(assignment__annotator__in=knows)
    else:
        judgments = judgments.filter(
            assignment__annotator=attempt_of.user_id,
            assignment__comparison__batch__qualification=attempt_of.attempt,
        )
    rows = list(
        judgments.values_list(
            "assignment__annotator_id",
            "assignment__comparison_id",
            "assignment__comparison__gold__expected",
            "ranks",
            "rest_below",
            "ratings",
            "safety",
            "assignment__comparison__batch",
        )
    )
    batches = Batch.objects.select_related("project").in_bulk({row[-1] for row in rows})
    order: dict[int, list[str]] = {}
    for comparison, pk in (
        Response.objects.filter(comparison__in={row[1] for row in rows})
        .order_by("pk")
        .values_list("comparison_id", "pk")
    ):
        order.setdefault(comparison, []).append(str(pk))
    by_person: dict[int, Tally] = {}
    for person, comparison, expected, ranks, rest_below, ratings, safety, batch in rows:
        left_out = protocols.BELOW if rest_below else None
        given = {
            axis: [places.get(pk, left_out) for pk in order[comparison]]
            for axis, places in ranks.items()
        } | marks_by_place(order[comparison], ratings, safety)
        interface, protocol = batches[batch].effective_interface, batches[batch].effective_protocol
        measures = asked_measures(interface, protocol, expected)
        known = {measure: expected[measure] for measure in measures}
        share = share_right(known, given, tolerances(protocol))
        if share is not None:
            before = by_person.get(person, Tally())
            by_person[person] = Tally(before.right + (share >= RIGHT), before.answered + 1)
    return by_person
