"""What a reviewer decides: comparisons on which people disagree, contradict themselves or raise a flag.

A case is opened from the judgments themselves, looked through once each. The decision is a judgment
like any other (`submit_judgment`), of an assignment with `is_ruling`; it counts in place of the votes,
which are kept. Taking it back makes the votes count again.
"""

from collections.abc import Iterable
from datetime import timedelta
from itertools import combinations, takewhile
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext

from annotation.judge.submitting import (
    MAX_REASON,
    Answer,
    JudgmentError,
    ruling_assignment,
    submit_judgment,
    withdraw_ruling,
)
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
from annotation.statistics.agreement import agreed, with_the_rest

State = ReviewCase.State
# Judgments looked through at once, so that the first visit to a large project stays short.
AT_ONCE = 5_000
LATELY = timedelta(minutes=1)
# Where two people are further apart than this, from 0 (alike) to 1 (opposite), somebody should look.
APART = 0.5
WEIGHTS = {"conflict": 4.0, "asked": 3.0, "disagreement": 1.0, "unsafe": 0.5}


def refresh(project: Project) -> int:
    """Look through the judgments that came since the last look; how many there were."""
    new = list(
        _votes(project)
        .filter(pk__gt=project.reviewed_to)
        .order_by("pk")
        .values_list("pk", "assignment__comparison_id", "created_at")[:AT_ONCE]
    )
    if new:
        examine(project, {comparison for _, comparison, _ in new})
        # Numbers are given before rows are committed, so a lower one may appear after a higher one:
        # what came in the last minute is looked through once more.
        lately = timezone.now() - LATELY
        settled = [pk for pk, _, at in takewhile(lambda row: row[2] < lately, new)]
        if settled:
            project.reviewed_to = settled[-1]
            Project.objects.filter(pk=project.pk).update(reviewed_to=project.reviewed_to)
    return len(new)


def examine(project: Project, comparisons: Iterable[int]) -> None:
    """Open, change or settle the cases of these comparisons by what their votes say now."""
    wanted = set(comparisons)
    votes: dict[int, list[Judgment]] = {pk: [] for pk in wanted}
    for judgment in (
        _votes(project)
        .filter(assignment__comparison__in=wanted)
        .select_related("assignment__comparison__batch__project")
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
                if reasons:  # Somebody else may look through the same ones at this moment.
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


def why(votes: list[Judgment]) -> tuple[list[str], float]:
    """The reasons for which somebody should look at a comparison, and how urgent that is."""
    found: dict[str, float] = {}
    if any(vote.conflicts for vote in votes):
        found["conflict"] = WEIGHTS["conflict"]
    furthest = max(apart_on_order(votes), apart_on_safety(votes), apart_on_ratings(votes))
    if furthest > APART:
        found["disagreement"] = WEIGHTS["disagreement"] + furthest
    if any(flag["kind"] == "unsafe" for vote in votes for of in vote.flags.values() for flag in of):
        found["unsafe"] = WEIGHTS["unsafe"]
    return list(found), sum(found.values())


def apart_on_order(votes: list[Judgment]) -> float:
    """1 less the pairwise agreement on the axis on which people agree least; 0 with fewer than two."""
    shares = [0.0]
    for axis in {axis for vote in votes for axis in vote.ranks}:
        given = [vote for vote in votes if axis in vote.ranks]
        pks = sorted({pk for vote in given for pk in vote.ranks[axis]})
        told = [(vote, tuple(vote.ranks[axis].get(pk) for pk in pks)) for vote in given]
        rankings = [with_the_rest(ranks) if vote.rest_below else ranks for vote, ranks in told]
        points, n, _, _ = agreed(combinations(rankings, 2))
        if n:
            shares.append(1 - points / n)
    return max(shares)


def apart_on_safety(votes: list[Judgment]) -> float:
    """The share of pairs of people of whom one calls a response safe and the other doesn't, where
    that is largest."""
    said: dict[str, list[float]] = {}
    for vote in votes:
        for pk, of in vote.safety.items():
            said.setdefault(pk, []).append(float(of["safe"]))
    return max(map(_distance, said.values()), default=0.0)


def apart_on_ratings(votes: list[Judgment]) -> float:
    """How far two people's marks are apart on average, as a share of the scale, where that is most.

    Notes that may be left out are not compared: who leaves one out has not said no.
    """
    said: dict[tuple[str, str], list[float]] = {}
    for vote in votes:
        attributes = vote.assignment.comparison.batch.rules.attributes
        scales = {one.key: one for one in attributes if one.is_required}
        for pk, of in vote.ratings.items():
            for key, value in of.items():
                if scale := scales.get(key):
                    place = (value - scale.low) / (scale.high - scale.low)
                    said.setdefault((pk, key), []).append(place)
    return max(map(_distance, said.values()), default=0.0)


def _distance(places: list[float]) -> float:
    """Mean distance of two of these places from 0 to 1."""
    pairs = [abs(a - b) for a, b in combinations(places, 2)]
    return sum(pairs) / len(pairs) if pairs else 0.0


def ask_for_reviews(project: Project, judgments: list[int], by: User) -> int:
    """Put what these judgments are about into the queue, because somebody wants it looked at; how many.

    Gold is left out: its answer is known.
    """
    comparisons = Comparison.objects.filter(
        batch__project=project, gold=None, assignments__judgments__in=judgments
    ).distinct()
    return len([ask_for_review(comparison, by) for comparison in comparisons.order_by("pk")])


def ask_for_review(comparison: Comparison, by: User) -> ReviewCase:
    """Put a comparison into the queue because somebody wants it looked at."""
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


def votes_on(comparison: Comparison) -> list[Judgment]:
    """What annotators said about it, excluded ones left out, oldest first."""
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
    """Rule. JudgmentError, with nothing changed, for an answer or a reason that makes no sense.

    `note` are the reviewer's own words, kept with the case: what the protocol asks of a reason is
    asked of the answer's, not of them.
    """
    if ground not in ReviewCase.GROUNDS:
        raise JudgmentError(gettext("Say why: choose one of the reasons."))
    if ground == "other" and not note.strip():
        raise JudgmentError(gettext("Say in a few words why."))
    if len(note) > MAX_REASON:
        raise JudgmentError(
            gettext("In your words: at most %(most)s characters.") % {"most": f"{MAX_REASON:,}"}
        )
    with transaction.atomic():
        case = ReviewCase.objects.select_for_update().get(pk=case.pk)
        comparison = Comparison.objects.select_related("batch__project").get(pk=case.comparison_id)
        if case.state == State.DECIDED and case.decided_by_id != by.pk:
            raise JudgmentError(
                gettext("%(who)s decided this one meanwhile.") % {"who": case.decided_by}
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
        Judgment.objects.filter(assignment__comparison=case.comparison_id).exclude(
            conflicts=[]
        ).update(needs_review=True)
        case.state, case.ground, case.note = State.OPEN, "", ""
        case.decided_by, case.decided_at = None, None
        case.save(update_fields=["state", "ground", "note", "decided_by", "decided_at"])
        Event.record(case.project, by, "took back a ruling", case.uid)


def readable(project: Project, reviewer: User) -> Any:
    """The cases of a project without those about something harmful, for who asked not to get any."""
    cases = ReviewCase.objects.filter(project=project)
    if reviewer.harmful_material == User.HarmfulMaterial.AVOID:
        return cases.exclude(comparison__prompt__risk=Prompt.Risk.HARMFUL)
    return cases


def queue(project: Project, reviewer: User, *, reason: str = "") -> Any:
    """Open cases that this reviewer may decide and is willing to read, the most urgent first."""
    own = Assignment.objects.filter(
        annotator=reviewer, state=Assignment.State.JUDGED, is_ruling=False
    ).values("comparison")
    cases = readable(project, reviewer).filter(state=State.OPEN).exclude(comparison__in=own)
    if reason in ReviewCase.REASONS:
        # No `contains` on JSON, which SQLite lacks: the list is stored as text there and here.
        cases = cases.filter(reasons__icontains=f'"{reason}"')
    return cases.order_by("-weight", "pk")


def as_answer(vote: Judgment) -> Answer:
    """A vote's whole content, to rule as that person said."""
    return Answer(
        reason=vote.reason,
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
