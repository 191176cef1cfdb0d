"""Review: comparisons on which people disagree, contradict themselves or raise a flag.

`update_queue` opens cases from new judgments. A decision is a judgment like any other
(`submit_judgment`), of an assignment with `is_ruling`; it replaces the votes, which are kept.
Undoing it restores the votes.
"""

from collections.abc import Iterable
from datetime import timedelta
from itertools import takewhile
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext

from annotation.judge.answers import MAX_REASON, Answer
from annotation.judge.requirements import JudgmentError
from annotation.judge.submitting import ruling_assignment, submit_judgment, withdraw_ruling
from annotation.lib.text import storable
from annotation.models import (
    Assignment,
    Comparison,
    Event,
    Judgment,
    Project,
    Prompt,
    ReviewCase,
    User,
)
from annotation.protocols import RANK
from annotation.quality.disagreement import disagreement

State = ReviewCase.State
# Judgments read at once, so that the first visit to a large project stays short.
AT_ONCE = 5_000
RECENT = timedelta(minutes=1)
MAX_DISAGREEMENT = 0.5
WEIGHTS = {"conflict": 4.0, "asked": 3.0, "disagreement": 1.0, "unsafe": 0.5}


def update_queue(project: Project) -> int:
    """Open cases from the judgments that are new since the last call; how many there were."""
    new = list(
        _votes(project)
        .filter(pk__gt=project.reviewed_to)
        .order_by("pk")
        .values_list("pk", "assignment__comparison_id", "created_at")[:AT_ONCE]
    )
    if new:
        update_cases(project, {comparison for _, comparison, _ in new})
        # Numbers are assigned before rows are committed, so a lower one may appear after a higher
        # one: the judgments of the last minute are read once more.
        recent = timezone.now() - RECENT
        settled = [pk for pk, _, created_at in takewhile(lambda row: row[2] < recent, new)]
        if settled:
            project.reviewed_to = settled[-1]
            Project.objects.filter(pk=project.pk).update(reviewed_to=project.reviewed_to)
    return len(new)


def update_cases(project: Project, comparisons: Iterable[int]) -> None:
    """Open, change or settle the cases of these comparisons according to their current votes."""
    pks = set(comparisons)
    votes_by_comparison: dict[int, list[Judgment]] = {pk: [] for pk in pks}
    for judgment in (
        _votes(project)
        .filter(assignment__comparison__in=pks)
        .select_related("assignment__comparison__batch__project")
    ):
        votes_by_comparison[judgment.assignment.comparison_id].append(judgment)
    with transaction.atomic():
        cases = {
            case.comparison_id: case
            for case in ReviewCase.objects.select_for_update().filter(comparison__in=pks)
        }
        for pk, votes in votes_by_comparison.items():
            reasons, weight = reasons_to_review(votes)
            case = cases.get(pk)
            if case is None:
                if reasons:  # Another request may be opening the same case.
                    ReviewCase.objects.get_or_create(
                        comparison_id=pk,
                        defaults={"project": project, "reasons": reasons, "weight": weight},
                    )
                continue
            if "asked" in case.reasons:
                reasons, weight = ["asked", *reasons], weight + WEIGHTS["asked"]
            case.reasons, case.weight = reasons, weight
            if case.state != State.DECIDED:
                case.state = State.OPEN if reasons else State.SETTLED
            case.save(update_fields=["reasons", "weight", "state"])


def reasons_to_review(votes: list[Judgment]) -> tuple[list[str], float]:
    """Why a comparison with these votes needs a review, and how urgent that is."""
    weights: dict[str, float] = {}
    if any(vote.conflicts for vote in votes):
        weights["conflict"] = WEIGHTS["conflict"]
    distance = disagreement(votes)
    if distance > MAX_DISAGREEMENT:
        weights["disagreement"] = WEIGHTS["disagreement"] + distance
    flags = [flag for vote in votes for flags in vote.flags.values() for flag in flags]
    if any(flag["kind"] == "unsafe" for flag in flags):
        weights["unsafe"] = WEIGHTS["unsafe"]
    return list(weights), sum(weights.values())


def ask_for_reviews(project: Project, judgments: list[int], by: User) -> int:
    """Escalate the comparisons of these judgments (ids) to review; how many. Gold is left out."""
    comparisons = Comparison.objects.filter(
        batch__project=project, gold=None, assignments__judgments__in=judgments
    ).distinct()
    return len([ask_for_review(comparison, by) for comparison in comparisons.order_by("pk")])


def ask_for_review(comparison: Comparison, by: User) -> ReviewCase:
    """Escalate a comparison to review."""
    project = comparison.batch.project
    with transaction.atomic():
        case, _ = ReviewCase.objects.select_for_update().get_or_create(
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


def votes_by_comparison(comparisons: Iterable[int]) -> dict[int, list[Judgment]]:
    """The annotators' votes on each of these comparisons (ids), without excluded ones."""
    votes: dict[int, list[Judgment]] = {pk: [] for pk in comparisons}
    rows = Judgment.objects.current().votes().filter(assignment__comparison__in=votes)
    for vote in rows.select_related("assignment__comparison__batch__project").order_by("pk"):
        votes[vote.assignment.comparison_id].append(vote)
    return votes


def votes_on(comparison: Comparison) -> list[Judgment]:
    """The annotators' votes on it without excluded ones, oldest first."""
    return list(
        Judgment.objects.current()
        .votes()
        .filter(assignment__comparison=comparison)
        .select_related("assignment__annotator")
        .order_by("pk")
    )


def decide(
    case: ReviewCase, by: User, *, answer: Answer, ground: str, key: UUID, note: str = ""
) -> Judgment:
    """Decide a case by an answer. JudgmentError, with nothing changed, if answer or ground is invalid.

    `note` is the reviewer's own explanation, kept with the case; the protocol's rules for reasons
    apply to the answer's reason only.
    """
    if ground not in ReviewCase.GROUNDS:
        raise JudgmentError(gettext("Choose a reason."))
    if ground == "other" and not note.strip():
        raise JudgmentError(gettext("Explain the decision in a few words."))
    if len(note) > MAX_REASON:
        raise JudgmentError(
            gettext("Explanation: at most %(most)s characters.") % {"most": f"{MAX_REASON:,}"}
        )
    with transaction.atomic():
        case = ReviewCase.objects.select_for_update().get(pk=case.pk)
        comparison = Comparison.objects.select_related("batch__project").get(pk=case.comparison_id)
        if case.state == State.DECIDED and case.decided_by_id != by.pk:
            raise JudgmentError(
                gettext("%(who)s has already decided this case.") % {"who": case.decided_by}
            )
        assignment = ruling_assignment(comparison, by)
        judgment = submit_judgment(assignment, by=by, answer=answer, key=key)
        was_decided = case.state == State.DECIDED
        case.state, case.ground = State.DECIDED, ground
        case.decided_by, case.decided_at, case.note = by, timezone.now(), storable(note.strip())
        case.save(update_fields=["state", "ground", "note", "decided_by", "decided_at"])
        Comparison.objects.filter(pk=comparison.pk).update(is_ruled=True)
        Judgment.objects.filter(assignment__comparison=comparison).update(needs_review=False)
        if not was_decided or judgment.revision > 1:
            Event.record(
                case.project, by, "ruled", case.uid, ground=ground, judgment=str(judgment.uid)
            )
    return judgment


def undo_decision(case: ReviewCase, by: User) -> None:
    """Undo a decision: the votes count again and the case is open."""
    with transaction.atomic():
        case = ReviewCase.objects.select_for_update().get(pk=case.pk)
        if case.state != State.DECIDED:
            return
        for assignment in Assignment.objects.filter(
            comparison=case.comparison_id, is_ruling=True, judgment__isnull=False
        ):
            withdraw_ruling(assignment)
        Comparison.objects.filter(pk=case.comparison_id).update(is_ruled=False)
        Judgment.objects.filter(assignment__comparison=case.comparison_id).exclude(
            conflicts=[]
        ).update(needs_review=True)
        case.state, case.ground, case.note = State.OPEN, "", ""
        case.decided_by, case.decided_at = None, None
        case.save(update_fields=["state", "ground", "note", "decided_by", "decided_at"])
        Event.record(case.project, by, "took back a ruling", case.uid)


def assign(cases: Iterable[ReviewCase], to: User | None, by: User) -> int:
    """Give open cases to a reviewer, or to nobody; how many changed hands.

    Nobody gets a case that they judged: another reviewer decides there.
    """
    changed = 0
    for case in cases:
        if to is not None and has_judged(to, case.comparison):
            continue
        rows = ReviewCase.objects.filter(pk=case.pk, state=State.OPEN).exclude(assignee=to)
        if to is None:
            rows = ReviewCase.objects.filter(pk=case.pk, assignee__isnull=False)
        if rows.update(assignee=to):
            changed += 1
            Event.record(case.project, by, "assigned a review", case.uid, to=to and to.pk)
    return changed


def has_judged(user: User, comparison: Comparison) -> bool:
    return Assignment.objects.filter(
        comparison=comparison,
        annotator=user,
        state=Assignment.State.JUDGED,
        is_ruling=False,
    ).exists()


def next_case(project: Project, reviewer: User, *, reason: str = "") -> ReviewCase | None:
    """What this reviewer decides next: their own cases first, none that is another's."""
    cases = queue(project, reviewer, reason=reason)
    mine: ReviewCase | None = cases.filter(assignee=reviewer).first()
    return mine or cases.filter(assignee=None).first()


def readable_cases(project: Project, reviewer: User) -> Any:
    """A project's cases; without harmful material for a reviewer whose preferences exclude it."""
    cases = ReviewCase.objects.filter(project=project)
    if reviewer.harmful_material == User.HarmfulMaterial.AVOID:
        return cases.exclude(comparison__prompt__risk=Prompt.Risk.HARMFUL)
    return cases


def queue(project: Project, reviewer: User, *, reason: str = "") -> Any:
    """Open cases that this reviewer may decide and read, the most urgent first."""
    own = Assignment.objects.filter(
        annotator=reviewer, state=Assignment.State.JUDGED, is_ruling=False
    ).values("comparison")
    cases = readable_cases(project, reviewer).filter(state=State.OPEN).exclude(comparison__in=own)
    if reason in ReviewCase.REASONS:
        # No `contains` on JSON, which SQLite lacks: the list is stored as text there and here.
        cases = cases.filter(reasons__icontains=f'"{reason}"')
    return cases.order_by("-weight", "pk")


def as_answer(vote: Judgment) -> Answer:
    """A vote's whole content, as the answer of a decision that adopts it.

    An imported vote may have a strength that this comparison does not ask for.
    """
    interface = vote.assignment.comparison.batch.effective_interface
    strength = {} if interface == RANK else vote.strength
    return Answer(
        reason=vote.reason,
        ranks=vote.ranks,
        flags=vote.flags,
        rewrite=vote.rewrite,
        strength={axis: entry["level"] for axis, entry in strength.items()},
        all_bad=[] if vote.assignment.comparison.batch.is_imported else vote.all_bad,
        ratings=vote.ratings,
        safety=vote.safety,
        based_on=str(vote.based_on_id or ""),
    )


def _votes(project: Project) -> Any:
    return Judgment.objects.current().votes().of_project(project)
