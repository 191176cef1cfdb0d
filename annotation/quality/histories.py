"""What happened to one comparison or one prompt, in order: from its rows and from the audit log."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from annotation.models import Assignment, Comparison, Event, Prompt, ReviewCase, User

EVENTS_READ = 200


@dataclass(frozen=True)
class Happening:
    """One line of a history. `annotator` is a person who judges, `staff` one who decides."""

    at: datetime
    text: str
    detail: str = ""
    annotator: User | None = None
    staff: User | None = None


def comparison_history(
    comparison: Comparison, assignments: Iterable[Assignment], case: ReviewCase | None
) -> list[Happening]:
    """`assignments` have their annotators and judgments."""
    lines = [Happening(comparison.batch.created_at, "created", f"in {comparison.batch.name}")]
    for assignment in assignments:
        lines += _of_assignment(assignment)
    if case is not None:
        lines.append(Happening(case.created_at, "sent to review"))
    lines += _logged(comparison, case)
    return sorted(lines, key=lambda line: line.at)


def _of_assignment(assignment: Assignment) -> list[Happening]:
    person = assignment.annotator
    lines = []
    if not assignment.is_ruling and not assignment.comparison.batch.is_imported:
        lines.append(Happening(assignment.leased_at, "handed out to", annotator=person))
    for judgment in assignment.judgments.all():
        text = "ruled by" if assignment.is_ruling else "judged by"
        detail = f"revision {judgment.revision}" if judgment.revision > 1 else ""
        lines.append(Happening(judgment.created_at, text, detail, annotator=person))
        if judgment.excluded_at is not None:
            text = "excluded: the judgment of"
            lines.append(
                Happening(judgment.excluded_at, text, judgment.excluded_reason, annotator=person)
            )
    return lines


VERBS = {
    "requested another judgment": "another judgment requested",
    "asked for a review": "review asked for",
    "ruled": "case decided",
    "took back a ruling": "decision taken back",
}


def _logged(comparison: Comparison, case: ReviewCase | None) -> list[Happening]:
    """Acts of the audit log that name the comparison or its case."""
    targets = [f"comparison {comparison.pk}"]
    if case is not None:
        targets.append(str(case.uid))
    events = Event.objects.filter(
        project=comparison.batch.project_id, target__in=targets
    ).select_related("actor")
    return [
        Happening(
            event.at, VERBS.get(event.verb, event.verb), _reason(event.data), staff=event.actor
        )
        for event in events[:EVENTS_READ]
    ]


def _reason(data: dict[str, Any]) -> str:
    return str(data.get("reason") or data.get("ground") or "")


def prompt_history(prompt: Prompt, comparisons: Iterable[Comparison]) -> list[Happening]:
    """`comparisons` have their batches, with who made them unknown where nobody did."""
    lines = [
        Happening(
            prompt.created_at,
            "imported",
            f"from {prompt.source.name}",
            staff=prompt.source.created_by,
        )
    ]
    lines += [
        Happening(comparison.batch.created_at, "compared", f"in {comparison.batch.name}")
        for comparison in comparisons
    ]
    return sorted(lines, key=lambda line: line.at)
