"""What clients were told against what the database has: nothing lost, nothing doubled, no place
given away twice.

`manage.py audit_judgments` prints it; the crash test and the benchmarks believe it.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any
from uuid import UUID

from django.db.models import Count, Exists, F, OuterRef, Q

from annotation.judge.submitting import Answer, JudgmentError
from annotation.models import Assignment, Comparison, Judgment, Project

State = Assignment.State
KEYS_AT_ONCE = 500
EXAMPLES = 10


class AuditError(Exception):
    """Why the file of acknowledgements can't be read, in one sentence."""


@dataclass(frozen=True)
class Acknowledged:
    """One answer that the server confirmed, as the client noted it.

    `ranks` is `{axis: {letter: rank}}` as it was sent, None where the client did not note it.
    """

    key: UUID
    assignment: UUID
    annotator: str = ""
    ranks: dict[str, dict[str, int]] | None = None


@dataclass
class Audit:
    """What was found. The lists hold one sentence per fault; all of them empty is what we want."""

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
    """Files of frozen versions, which only the command looks at."""

    @property
    def faults(self) -> int:
        return sum(len(found) for _, found in self.findings())

    def findings(self) -> Iterator[tuple[str, list[str]]]:
        """Each kind of fault with its sentences."""
        yield "lost", self.lost
        yield "changed", self.changed
        yield "doubled", self.doubled
        yield "over-assigned", self.over_assigned
        yield "miscounted", self.miscounted
        yield "damaged", self.damaged

    def as_dict(self) -> dict[str, int]:
        figures = {name.replace("-", "_"): len(found) for name, found in self.findings()}
        return {
            "acknowledged": self.acknowledged,
            "judgments": self.judgments,
            "unacknowledged": self.unacknowledged,
            "extras": self.extras,
            **figures,
        }


def read_acknowledged(lines: Iterable[str]) -> Iterator[Acknowledged]:
    """JSON Lines: `key` and `assignment` (UUIDs), if noted `annotator` and `ranks`."""
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
                f"Line {number} is no acknowledgement: a JSON object with `key` and `assignment`, "
                "both UUIDs, is needed."
            ) from error


def audit(
    acknowledged: Iterable[Acknowledged] | None = None, project: Project | None = None
) -> Audit:
    """Compare what clients were told, if given, with the rows, and recount every counter."""
    found = Audit()
    comparisons = Comparison.objects.all()
    judgments = Judgment.objects.all()
    if project is not None:
        comparisons = comparisons.filter(batch__project=project)
        judgments = judgments.filter(assignment__comparison__batch__project=project)
    found.judgments = judgments.count()
    found.extras = Assignment.objects.filter(
        comparison__in=comparisons, state=State.JUDGED, is_extra=True
    ).count()
    # Gold holds no places: what is handed out of it is counted nowhere, on purpose.
    _recount(found, comparisons.filter(gold__isnull=True))
    if acknowledged is not None:
        _compare(found, acknowledged, judgments)
    return found


def _compare(found: Audit, acknowledged: Iterable[Acknowledged], judgments: Any) -> None:
    told: dict[UUID, Acknowledged] = {}
    for one in acknowledged:
        before = told.setdefault(one.key, one)
        if before.assignment != one.assignment:
            found.changed.append(f"key {one.key} was confirmed for two assignments")
    found.acknowledged = len(told)
    present = 0
    pending = iter(told)
    while keys := list(islice(pending, KEYS_AT_ONCE)):
        rows = {
            judgment.key: judgment
            for judgment in judgments.filter(key__in=keys).select_related(
                "assignment__annotator", "assignment__comparison__batch__project"
            )
        }
        present += len(rows)
        for key in keys:
            if key not in rows:
                found.lost.append(f"key {key} was confirmed and is not in the database")
            elif problem := _difference(told[key], rows[key]):
                found.changed.append(f"key {key}: {problem}")
    found.unacknowledged = found.judgments - present
    # One answer under two keys, of which the client knows one at most: it was sent once.
    again = (
        judgments.values("assignment_id", "answer_sha256").annotate(n=Count("pk")).filter(n__gt=1)
    )
    for row in again.iterator():
        same = judgments.filter(
            assignment_id=row["assignment_id"], answer_sha256=row["answer_sha256"]
        )
        stored = list(same.values_list("key", flat=True))
        if not all(key in told for key in stored):
            found.doubled.append(
                f"assignment {row['assignment_id']} holds one answer {len(stored)} times"
            )


def _difference(told: Acknowledged, judgment: Judgment) -> str:
    """What the row says otherwise than the client was told, "" if nothing."""
    assignment = judgment.assignment
    if assignment.uid != told.assignment:
        return f"is stored for assignment {assignment.uid}, not {told.assignment}"
    if told.annotator and assignment.annotator.username != told.annotator:
        return f"is stored for {assignment.annotator}, not {told.annotator}"
    if told.ranks is not None:
        try:
            answer = Answer.from_letters(assignment, {"ranks": told.ranks}).checked(assignment)
        except JudgmentError as problem:
            return f"what the client noted makes no sense: {problem}"
        if answer.ranks != judgment.ranks:
            return "the stored ranks are not those that were sent"
    return ""


def _recount(found: Audit, comparisons: Any) -> None:
    """The counters of every comparison that anybody was ever handed, from the rows they stand for."""
    holds = Q(is_extra=False)
    touched = (
        Assignment.objects.filter(comparison__in=comparisons)
        .values(
            "comparison_id",
            "comparison__needed",
            "comparison__taken",
            "comparison__judged",
        )
        .annotate(
            held=Count("pk", filter=holds & Q(state__in=[State.LEASED, State.JUDGED])),
            done=Count("pk", filter=holds & Q(state=State.JUDGED)),
        )
        .order_by("comparison_id")
    )
    for row in touched.iterator():
        name, needed = f"comparison {row['comparison_id']}", row["comparison__needed"]
        if row["held"] > needed:
            found.over_assigned.append(f"{name} has {needed} places and {row['held']} hold one")
        counted = (row["comparison__taken"], row["comparison__judged"])
        if counted != (row["held"], row["done"]):
            found.miscounted.append(
                f"{name} counts {counted[0]} taken and {counted[1]} judged; "
                f"its rows say {row['held']} and {row['done']}"
            )
    nobody = ~Exists(Assignment.objects.filter(comparison=OuterRef("pk")))
    for pk in comparisons.filter(nobody, Q(taken__gt=0) | Q(judged__gt=0)).values_list("pk"):
        found.miscounted.append(f"comparison {pk[0]} counts places that nobody holds")
    free = Q(is_free=True, taken__gte=F("needed")) | Q(is_free=False, taken__lt=F("needed"))
    for pk in comparisons.filter(free).values_list("pk"):
        found.miscounted.append(f"comparison {pk[0]} is marked free or full wrongly")
