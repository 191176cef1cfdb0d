"""An audit: what clients had acknowledged against the database, and every counter recounted.

`manage.py audit_judgments` prints it; the crash test and the benchmarks rely on it.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any
from uuid import UUID

from django.db.models import Count, Exists, F, OuterRef, Q

from annotation.judge.answers import complete
from annotation.judge.requirements import JudgmentError
from annotation.models import Assignment, Comparison, Judgment, Project

State = Assignment.State
KEYS_AT_ONCE = 500
EXAMPLES = 10


class AuditError(Exception):
    """Why the file of acknowledged answers can't be read, in one sentence."""


@dataclass(frozen=True)
class Acknowledged:
    """One answer that the server acknowledged, as the client recorded it.

    `ranks` is `{axis: {letter: rank}}` as it was sent, None where the client did not record it.
    """

    key: UUID
    assignment: UUID
    annotator: str = ""
    ranks: dict[str, dict[str, int]] | None = None


@dataclass
class Audit:
    """The result. Each list has one sentence per fault; a sound database has none."""

    acknowledged: int = 0
    judgments: int = 0
    unacknowledged: int = 0
    extras: int = 0
    lost: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    over_assigned: list[str] = field(default_factory=list)
    miscounted: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    """Files of frozen versions, which only the command checks."""

    @property
    def faults(self) -> int:
        return sum(len(sentences) for _, sentences in self.findings())

    def findings(self) -> Iterator[tuple[str, list[str]]]:
        """Each kind of fault with its sentences."""
        yield "lost", self.lost
        yield "changed", self.changed
        yield "doubled", self.doubled
        yield "over-assigned", self.over_assigned
        yield "miscounted", self.miscounted
        yield "damaged", self.damaged

    def as_dict(self) -> dict[str, int]:
        faults = {kind.replace("-", "_"): len(sentences) for kind, sentences in self.findings()}
        return {
            "acknowledged": self.acknowledged,
            "judgments": self.judgments,
            "unacknowledged": self.unacknowledged,
            "extras": self.extras,
            **faults,
        }


def read_acknowledged(lines: Iterable[str]) -> Iterator[Acknowledged]:
    """JSON Lines: `key` and `assignment` (UUIDs), optionally `annotator` and `ranks`."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            yield Acknowledged(
                key=UUID(row["key"]),
                assignment=UUID(row["assignment"]),
                annotator=str(row.get("annotator") or ""),
                ranks=row.get("ranks"),
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise AuditError(
                f"Line {number} is not an acknowledged answer: a JSON object with `key` and "
                "`assignment`, both UUIDs, is needed."
            ) from error


def audit(
    acknowledged: Iterable[Acknowledged] | None = None, project: Project | None = None
) -> Audit:
    """Compare acknowledged answers, if given, with the rows, and recount every counter."""
    result = Audit()
    comparisons = Comparison.objects.all()
    judgments = Judgment.objects.all()
    if project is not None:
        comparisons = comparisons.filter(batch__project=project)
        judgments = judgments.filter(assignment__comparison__batch__project=project)
    result.judgments = judgments.count()
    result.extras = Assignment.objects.filter(
        comparison__in=comparisons, state=State.JUDGED, is_extra=True
    ).count()
    # Gold has no places: assignments of it are counted nowhere, on purpose.
    _recount(result, comparisons.filter(gold__isnull=True))
    if acknowledged is not None:
        _compare(result, acknowledged, judgments)
    return result


def _compare(result: Audit, acknowledged: Iterable[Acknowledged], judgments: Any) -> None:
    by_key: dict[UUID, Acknowledged] = {}
    for answer in acknowledged:
        first = by_key.setdefault(answer.key, answer)
        if first.assignment != answer.assignment:
            result.changed.append(f"key {answer.key} was acknowledged for two assignments")
    result.acknowledged = len(by_key)
    n_present = 0
    pending = iter(by_key)
    while keys := list(islice(pending, KEYS_AT_ONCE)):
        rows = {
            judgment.key: judgment
            for judgment in judgments.filter(key__in=keys).select_related(
                "assignment__annotator", "assignment__comparison__batch__project"
            )
        }
        n_present += len(rows)
        for key in keys:
            if key not in rows:
                result.lost.append(f"key {key} was acknowledged and is not in the database")
            elif difference := _difference(by_key[key], rows[key]):
                result.changed.append(f"key {key}: {difference}")
    result.unacknowledged = result.judgments - n_present
    _find_doubled(result, by_key, judgments)


def _find_doubled(result: Audit, by_key: dict[UUID, Acknowledged], judgments: Any) -> None:
    """One answer stored under several keys, of which the client knows at most one: it was sent once."""
    repeated = (
        judgments.values("assignment_id", "answer_sha256").annotate(n=Count("pk")).filter(n__gt=1)
    )
    for row in repeated.iterator():
        same = judgments.filter(
            assignment_id=row["assignment_id"], answer_sha256=row["answer_sha256"]
        )
        keys = list(same.values_list("key", flat=True))
        if not all(key in by_key for key in keys):
            result.doubled.append(
                f"assignment {row['assignment_id']} has one answer {len(keys)} times"
            )


def _difference(acknowledged: Acknowledged, judgment: Judgment) -> str:
    """How the row differs from what the client recorded, "" if it does not."""
    assignment = judgment.assignment
    if assignment.uid != acknowledged.assignment:
        return f"is stored for assignment {assignment.uid}, not {acknowledged.assignment}"
    if acknowledged.annotator and assignment.annotator.username != acknowledged.annotator:
        return f"is stored for {assignment.annotator}, not {acknowledged.annotator}"
    if acknowledged.ranks is not None:
        try:
            answer = complete(assignment, {"ranks": acknowledged.ranks})
        except JudgmentError as problem:
            return f"the client's record is invalid: {problem}"
        if answer.ranks != judgment.ranks:
            return "the stored ranks are not those that were sent"
    return ""


def _recount(result: Audit, comparisons: Any) -> None:
    """Recalculate the counters of every comparison that was ever assigned, from its assignments."""
    has_place = Q(is_extra=False)
    counted = (
        Assignment.objects.filter(comparison__in=comparisons)
        .values(
            "comparison_id",
            "comparison__needed",
            "comparison__taken",
            "comparison__judged",
        )
        .annotate(
            n_taken=Count("pk", filter=has_place & Q(state__in=[State.LEASED, State.JUDGED])),
            n_judged=Count("pk", filter=has_place & Q(state=State.JUDGED)),
        )
        .order_by("comparison_id")
    )
    for row in counted.iterator():
        name, needed = f"comparison {row['comparison_id']}", row["comparison__needed"]
        if row["n_taken"] > needed:
            result.over_assigned.append(
                f"{name} has {needed} places and {row['n_taken']} assignments that take one"
            )
        stored = (row["comparison__taken"], row["comparison__judged"])
        if stored != (row["n_taken"], row["n_judged"]):
            result.miscounted.append(
                f"{name} counts {stored[0]} taken and {stored[1]} judged; "
                f"its rows say {row['n_taken']} and {row['n_judged']}"
            )
    unassigned = ~Exists(Assignment.objects.filter(comparison=OuterRef("pk")))
    for pk in comparisons.filter(unassigned, Q(taken__gt=0) | Q(judged__gt=0)).values_list("pk"):
        result.miscounted.append(f"comparison {pk[0]} counts places that nobody has taken")
    wrong = Q(is_free=True, taken__gte=F("needed")) | Q(is_free=False, taken__lt=F("needed"))
    for pk in comparisons.filter(wrong).values_list("pk"):
        result.miscounted.append(f"comparison {pk[0]} is marked free or full wrongly")
