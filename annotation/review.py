"""What a reviewer decides: comparisons on which people disagree, contradict themselves or raise a flag.

A case is opened from the judgments themselves, looked through once each. The decision is a judgment
like any other (`submit_judgment`), of an assignment with `is_ruling`; it counts in place of the votes,
which are kept. Taking it back makes the votes count again.
"""

from collections.abc import Iterable
from itertools import combinations
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from annotation.agreement import agreed
from annotation.judging import (
    Answer,
    JudgmentError,
    ruling_assignment,
    submit_judgment,
    withdraw_ruling,
)
from annotation.models import (
    Assignment,
    Comparison,
    Event,
    Judgment,
    Project,
    ReviewCase,
    User,
)

State = ReviewCase.State
# Judgments looked through at once, so that the first visit to a large project stays short.
AT_ONCE = 5_000
# Below this share of pairs on which two people agree, somebody should look.
DISAGREE = 0.5
WEIGHTS = {"conflict": 4.0, "asked": 3.0, "disagreement": 1.0, "unsafe": 0.5}


def refresh(project: Project) -> int:
    """Look through the judgments that came since the last look; how many there were."""
    new = list(
        _votes(project)
        .filter(pk__gt=project.reviewed_to)
        .order_by("pk")
        .values_list("pk", "assignment__comparison_id")[:AT_ONCE]
    )
    if new:
        examine(project, {comparison for _, comparison in new})
        Project.objects.filter(pk=project.pk).update(reviewed_to=new[-1][0])
        project.reviewed_to = new[-1][0]
    return len(new)


def examine(project: Project, comparisons: Iterable[int]) -> None:
    """Open, change or settle the cases of these comparisons by what their votes say now."""
    wanted = set(comparisons)
    votes: dict[int, list[Judgment]] = {pk: [] for pk in wanted}
    for judgment in (
        _votes(project).filter(assignment__comparison__in=wanted).select_related("assignment")
    ):
        votes[judgment.assignment.comparison_id].append(judgment)
    with transaction.atomic():
        cases = {
            case.comparison_id: case
            for case in ReviewCase.objects.select_for_update().filter(comparison__in=wanted)
        }
        for pk, given in votes.items():
            reasons, weight = why(given)
            case = cases.get(pk)
            if case is None:
                if reasons:
                    ReviewCase.objects.create(
                        project=project, comparison_id=pk, reasons=reasons, weight=weight
                    )
                continue
            if "asked" in case.reasons:
                reasons, weight = ["asked", *reasons], weight + WEIGHTS["asked"]
            case.reasons, case.weight = reasons, weight
            if case.state != State.DECIDED:
                case.state = State.OPEN if reasons else State.SETTLED
            case.save(update_fields=["reasons", "weight", "state"])


def why(votes: list[Judgment]) -> tuple[list[str], float]:
    """The reasons for which somebody should look at a comparison, and how urgent that is."""
    found: dict[str, float] = {}
    if any(vote.conflicts for vote in votes):
        found["conflict"] = WEIGHTS["conflict"]
    least = least_agreement(votes)
    if least is not None and least < DISAGREE:
        found["disagreement"] = WEIGHTS["disagreement"] + 1 - least
    if any(flag["kind"] == "unsafe" for vote in votes for of in vote.flags.values() for flag in of):
        found["unsafe"] = WEIGHTS["unsafe"]
    return list(found), sum(found.values())


def least_agreement(votes: list[Judgment]) -> float | None:
    """Pairwise agreement on the axis on which people agree least; None with fewer than two votes."""
    shares = []
    for axis in {axis for vote in votes for axis in vote.ranks}:
        given = [vote.ranks[axis] for vote in votes if axis in vote.ranks]
        pks = sorted({pk for ranks in given for pk in ranks})
        rankings = [tuple(ranks.get(pk) for pk in pks) for ranks in given]
        points, n, _, _ = agreed(combinations(rankings, 2))
        if n:
            shares.append(points / n)
    return min(shares) if shares else None


def ask_for_review(comparison: Comparison, by: User) -> ReviewCase:
    """Put a comparison into the queue because somebody wants it looked at."""
    project = comparison.batch.project
    with transaction.atomic():
        case, _ = ReviewCase.objects.get_or_create(
            comparison=comparison, defaults={"project": project}
        )
        if "asked" not in case.reasons:
            case.reasons = ["asked", *case.reasons]
            case.weight += WEIGHTS["asked"]
        if case.state == State.SETTLED:
            case.state = State.OPEN
        case.save()
        Event.record(project, by, "asked for a review", case.uid)
    return case


def votes_on(comparison: Comparison) -> list[Judgment]:
    """What annotators said about it, excluded ones left out, oldest first."""
    return list(
        Judgment.objects.current()
        .votes()
        .filter(assignment__comparison=comparison)
        .select_related("assignment__annotator")
        .order_by("pk")
    )


def decide(case: ReviewCase, by: User, *, answer: Answer, ground: str, key: UUID) -> Judgment:
    """Rule. JudgmentError, with nothing changed, for an answer or a reason that makes no sense."""
    if ground not in ReviewCase.GROUNDS:
        raise JudgmentError("Say why: choose one of the reasons.")
    if ground == "other" and not answer.reason.strip():
        raise JudgmentError("Say in a few words why.")
    with transaction.atomic():
        case = ReviewCase.objects.select_for_update().get(pk=case.pk)
        comparison = Comparison.objects.select_related("batch__project").get(pk=case.comparison_id)
        if case.state == State.DECIDED and case.decided_by_id != by.pk:
            raise JudgmentError(f"{case.decided_by} decided this one meanwhile.")
        assignment = ruling_assignment(comparison, by)
        judgment = submit_judgment(assignment, answer=answer, key=key)
        was_decided = case.state == State.DECIDED
        case.state, case.ground = State.DECIDED, ground
        case.decided_by, case.decided_at = by, timezone.now()
        case.save(update_fields=["state", "ground", "decided_by", "decided_at"])
        Comparison.objects.filter(pk=comparison.pk).update(is_ruled=True)
        Judgment.objects.filter(assignment__comparison=comparison).update(needs_review=False)
        if not was_decided or judgment.revision > 1:
            Event.record(
                case.project, by, "ruled", case.uid, ground=ground, judgment=str(judgment.uid)
            )
    return judgment


def undo(case: ReviewCase, by: User) -> None:
    """Take a ruling back: the votes count again and the case is open."""
    with transaction.atomic():
        case = ReviewCase.objects.select_for_update().get(pk=case.pk)
        if case.state != State.DECIDED:
            return
        for assignment in Assignment.objects.filter(
            comparison=case.comparison_id, is_ruling=True, judgment__isnull=False
        ):
            withdraw_ruling(assignment)
        Comparison.objects.filter(pk=case.comparison_id).update(is_ruled=False)
        case.state, case.ground, case.decided_by, case.decided_at = State.OPEN, "", None, None
        case.save(update_fields=["state", "ground", "decided_by", "decided_at"])
        Event.record(case.project, by, "took back a ruling", case.uid)


def queue(project: Project, reviewer: User, *, reason: str = "") -> Any:
    """Open cases that this reviewer may decide, the most urgent first."""
    own = Assignment.objects.filter(
        annotator=reviewer, state=Assignment.State.JUDGED, is_ruling=False
    ).values("comparison")
    cases = ReviewCase.objects.filter(project=project, state=State.OPEN).exclude(comparison__in=own)
    if reason in ReviewCase.REASONS:
        # No `contains` on JSON, which SQLite lacks: the list is stored as text there and here.
        cases = cases.filter(reasons__icontains=f'"{reason}"')
    return cases.order_by("-weight", "pk")


def as_answer(vote: Judgment, note: str = "") -> Answer:
    """A vote's whole content, to rule as that person said, with the reviewer's own words."""
    return Answer(
        reason=note or vote.reason,
        ranks=vote.ranks,
        flags=vote.flags,
        rewrite=vote.rewrite,
        strength={axis: of["level"] for axis, of in vote.strength.items()},
        all_bad=vote.all_bad,
        ratings=vote.ratings,
        safety=vote.safety,
        based_on=str(vote.based_on_id or ""),
    )


def _votes(project: Project) -> Any:
    return Judgment.objects.current().votes().of_project(project)
