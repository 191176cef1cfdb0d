"""The people of a project: how far to rely on each, how fast they work, what it costs; and what to do.

The arithmetic is in `reliability`, `agreement` and `gold`; this reads rows for it and acts: pause,
exclude (never delete), ask again. Every act writes an Event.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from statistics import median
from time import perf_counter
from typing import Any

from django.core.cache import cache
from django.db import transaction
from django.db.models import Count, Max, Min, Q
from django.utils import timezone
from django.utils.translation import gettext

from annotation.data.preferences import annotator_id, preference_rows
from annotation.data.ratings_and_demonstrations import rating_rows
from annotation.judge import gold
from annotation.judge.answer_parts import Ratings, Safety, marks_by_place
from annotation.judge.assignment import count, lock, release
from annotation.models import (
    Assignment,
    Batch,
    Comparison,
    Event,
    Judgment,
    Membership,
    Project,
    Response,
    User,
)
from annotation.projects.batches import Progress, batch_progress
from annotation.protocols import BELOW, SAFE_OR_NOT
from annotation.statistics import reliability
from annotation.statistics.agreement import agreement_by_annotator, agreement_in_all
from annotation.statistics.consensus import MarkConsensus, consensus_of_marks
from annotation.statistics.labels import Rating, Vote
from annotation.statistics.profiles import Profile
from annotation.statistics.reliability import Known, Quality

CACHE_VERSION = 1
"""Part of every cache key: raise it when what is cached has another shape or is computed otherwise."""

CHUNK = 2_000
# Beyond this nobody is reading one comparison: they went for coffee, and that is not counted as work.
IDLE_SECONDS = 600.0
STUCK_MINUTES = 20
# Below this share of gold answered rightly, and from this many on, somebody should look.
GOLD_LEAST, GOLD_ENOUGH = 0.6, 5
CACHE_SECONDS, LATELY_SECONDS = 3_600, 300
# Old figures are better than a wait: they are shown as old, and reckoned anew behind the page.
FIGURES_SECONDS = 30 * 24 * 3_600
# Figures that took longer to reckon are shown as they were while they are reckoned anew.
LONG_SECONDS = 1.0


class QualityError(Exception):
    """Why something can't be done, in one sentence."""


# --- What people said, as votes ---------------------------------------------------------------------------


def votes_of(
    project: Project,
    *,
    batches: Iterable[Batch] | None = None,
    comparison: Comparison | None = None,
) -> tuple[list[Vote], list[Rating]]:
    """Every current vote on every axis and every rating, as it was shown; people are ids, and so are
    comparisons."""
    judgments = _votes(project)
    if batches is not None:
        judgments = judgments.filter(assignment__comparison__batch__in=list(batches))
    if comparison is not None:
        judgments = judgments.filter(assignment__comparison=comparison)
    lengths: dict[int, int] = {}
    votes, ratings = [], []
    ids = list(judgments.order_by("pk").values_list("pk", flat=True))
    for start in range(0, len(ids), CHUNK):
        rows = list(
            Judgment.objects.filter(pk__in=ids[start : start + CHUNK]).values_list(
                "assignment__annotator_id",
                "assignment__comparison_id",
                "assignment__shown_order",
                "ranks",
                "rest_below",
                "seconds",
                "ratings",
                "safety",
            )
        )
        missing = {row[1] for row in rows}
        for pk, text in Response.objects.filter(comparison__in=missing).values_list("pk", "text"):
            lengths[pk] = len(text)
        for person, unit, shown, ranks, rest_below, seconds, rated, safety in rows:
            sizes = tuple(lengths.get(pk, 0) for pk in shown)
            if rated or safety:
                marks = marks_by_place([str(pk) for pk in shown], rated, safety)
                told = {measure: tuple(values) for measure, values in marks.items()}
                ratings.append(Rating(person, unit, tuple(shown), told, sizes, seconds))
            left_out = BELOW if rest_below else None
            for axis, given in ranks.items():
                votes.append(
                    Vote(
                        person,
                        unit,
                        tuple(shown),
                        tuple(given.get(str(pk), left_out) for pk in shown),
                        sizes,
                        seconds,
                        axis,
                    )
                )
    return votes, ratings


def assessed(project: Project, *, lately: bool = False) -> Quality:
    """`reliability.assess` of the project's votes, kept until a judgment comes, goes or changes.

    `lately`: what was found in the last five minutes will do.
    """
    name = f"quality:{project.pk}:last:{CACHE_VERSION}"
    key = (cache.get(name) if lately else None) or f"assessed:{_state_of_votes(project)}"
    found: Quality | None = cache.get(key)
    if found is None:
        found = reliability.assess(*votes_of(project))
        cache.set(key, found, CACHE_SECONDS)
        cache.set(name, key, LATELY_SECONDS)
    return found


@dataclass(frozen=True)
class Said:
    """What everybody said of one response by itself comes to."""

    marks: dict[str, MarkConsensus]
    """By mark, and the vote on safety."""
    harms: dict[str, float]
    """Of those who call it unsafe, weighed by their skill in that: the share that names each kind."""

    @property
    def main_harms(self) -> list[str]:
        """The kinds that more than half of them name."""
        return [kind for kind, share in self.harms.items() if share > 0.5]


def said_of_each(
    found: Quality, keys: Sequence[str], votes: Sequence[tuple[int, Ratings, Safety]]
) -> list[Said]:
    """The consensus on each response (`keys`: their ids) of one comparison, in that order.

    `votes` are those on this comparison: who, what they rated and what they voted on safety.
    """
    told = [(who, marks_by_place(keys, rated, safety)) for who, rated, safety in votes]
    measures = dict.fromkeys(measure for _, marks in told for measure in marks)
    each = []
    for place, key in enumerate(keys):
        marks = {}
        for measure in measures:
            given = [
                (value, found.weight(who, measure))
                for who, of in told
                if (value := of.get(measure, [None] * len(keys))[place]) is not None
            ]
            if given:
                marks[measure] = consensus_of_marks(*map(list, zip(*given, strict=True)))
        unsafe = [
            (safety[key]["harms"], found.weight(who, SAFE_OR_NOT))
            for who, _, safety in votes
            if key in safety and not safety[key]["safe"]
        ]
        named = dict.fromkeys(kind for kinds, _ in unsafe for kind in kinds)
        total = sum(weight for _, weight in unsafe)
        each.append(
            Said(
                marks,
                {
                    kind: sum(weight for kinds, weight in unsafe if kind in kinds) / total
                    for kind in named
                },
            )
        )
    return each


def agreement_of(project: Project) -> tuple[dict[str, Any], dict[str, Any]]:
    """How far annotators agree per axis and mark, and by category: kept as `assessed` is."""
    key = f"agreement:{_state_of_votes(project)}"
    found: tuple[dict[str, Any], dict[str, Any]] | None = cache.get(key)
    if found is None:
        rows = preference_rows(project, only_trainable=False, adjudicated=False)
        found = agreement_in_all(chain(rows, rating_rows(project)))
        cache.set(key, found, CACHE_SECONDS)
    return found


@dataclass(frozen=True)
class Figures:
    """What the pages about a project's people rest on."""

    state: str
    """Of which votes (`_state_of_votes`)."""
    known: Known
    agreement: dict[str, Any]
    by_category: dict[str, Any]
    by_annotator: dict[str, Any]
    seconds: float
    """How long it took to reckon them."""

    @property
    def profiles(self) -> dict[Any, Profile]:
        return self.known.profiles

    def agreement_of(self, project: Project, user: User) -> dict[str, Any]:
        """`{axis or mark: figures}`: how far one person agrees with the others."""
        # In rows somebody whose judgments came from a file as well has two names.
        names = [annotator_id(project, user, is_imported=of) for of in (False, True)]
        return next((self.by_annotator[name] for name in names if name in self.by_annotator), {})


def figures_of(project: Project, *, at_once: bool = False) -> tuple[Figures, bool]:
    """The figures, and whether they are of now.

    `at_once`: of those that take long to reckon, what was reckoned last will do, if anything was.
    """
    name, state = f"figures:{project.pk}:known:{CACHE_VERSION}", _state_of_votes(project)
    last: Figures | None = cache.get(name)
    if last is not None and (last.state == state or (at_once and last.seconds > LONG_SECONDS)):
        return last, last.state == state
    began = perf_counter()
    known = Known.of(assessed(project))
    agreement, by_category = agreement_of(project)
    rows = preference_rows(project, only_trainable=False, adjudicated=False)
    by_annotator = agreement_by_annotator(chain(rows, rating_rows(project)))
    seconds = perf_counter() - began
    found = Figures(state, known, agreement, by_category, by_annotator, seconds)
    cache.set(name, found, FIGURES_SECONDS)
    return found, True


def may_reckon(project: Project) -> bool:
    """Whether a page that shows old figures may have them reckoned: not each that is opened."""
    return cache.add(f"figures:{project.pk}:anew", value=True, timeout=LATELY_SECONDS)


def _state_of_votes(project: Project) -> str:
    """A key that is another one as soon as a vote comes, goes or changes."""
    state = (
        Judgment.objects.of_project(project)
        .votes()
        .aggregate(
            last=Max("pk"),
            n=Count("pk", filter=Q(current_for__isnull=False)),
            out=Count("pk", filter=Q(excluded_at__isnull=False)),
            out_last=Max("excluded_at"),  # Another one taken out instead leaves the count the same.
        )
    )
    parts = ("votes", CACHE_VERSION, project.pk, *state.values())
    return ":".join(f"{part}".replace(" ", "T") for part in parts)


# --- The people -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Person:
    """One annotator of a project, as an admin sees them."""

    user: User
    membership: Membership | None
    profile: Profile | None
    gold: gold.Tally
    n_judgments: int
    n_excluded: int
    n_skipped: int
    last_at: datetime | None
    median_seconds: float | None
    hours: float
    stuck_minutes: int | None

    @property
    def per_hour(self) -> float | None:
        """Judgments an hour of measured work."""
        return self.n_judgments / self.hours if self.hours > 0 else None

    @property
    def reasons(self) -> tuple[str, ...]:
        found = tuple(gettext(reason) for reason in self.profile.reasons) if self.profile else ()
        if self.fails_gold:
            found = (
                *found,
                gettext("Got %(n)s of %(of)s gold items wrong.")
                % {"n": self.gold.of - self.gold.right, "of": self.gold.of},
            )
        return found

    @property
    def knows_gold(self) -> bool:
        return self.membership is not None and gold.knows_gold(self.membership)

    @property
    def fails_gold(self) -> bool:
        return self.gold.of >= GOLD_ENOUGH and (self.gold.share or 0) < GOLD_LEAST

    @property
    def is_suspect(self) -> bool:
        return self.fails_gold or (self.profile is not None and self.profile.is_suspect)


def people(
    project: Project, profiles: dict[Any, Profile] | None = None, *, only: int | None = None
) -> list[Person]:
    """Everybody who judged or may judge here, those to look at first; `only` one of them.

    `profiles` are reckoned from the votes as they are now where none are given.
    """
    if profiles is None:
        profiles = assessed(project).profiles
    tallies = gold.tallies(project)
    work: dict[int, dict[str, Any]] = defaultdict(
        lambda: {"n": 0, "seconds": [], "excluded": 0, "skipped": 0, "last": None}
    )
    rows = Judgment.objects.of_project(project).filter(
        current_for__isnull=False, assignment__is_ruling=False
    )
    if only is not None:
        rows = rows.filter(assignment__annotator=only)
    for person, seconds, excluded, at in rows.values_list(
        "assignment__annotator_id", "seconds", "excluded_at", "created_at"
    ):
        of = work[person]
        of["n"] += 1
        of["excluded"] += excluded is not None
        if seconds is not None:
            of["seconds"].append(min(seconds, IDLE_SECONDS))
        of["last"] = max(of["last"] or at, at)
    skipped = Assignment.objects.filter(
        comparison__batch__project=project, state=Assignment.State.SKIPPED, is_ruling=False
    )
    if only is not None:
        skipped = skipped.filter(annotator=only)
    for person, n in skipped.values_list("annotator").annotate(n=Count("pk")):
        work[person]["skipped"] = n
    members = {m.user_id: m for m in project.memberships.select_related("user")}
    judges = {pk for pk, m in members.items() if m.role == Membership.Role.ANNOTATOR or pk in work}
    users = User.objects.in_bulk(judges | set(work))
    stuck = _stuck(project)
    found = [
        Person(
            user=user,
            membership=members.get(pk),
            profile=profiles.get(pk),
            gold=tallies.get(pk, gold.Tally()),
            n_judgments=work[pk]["n"],
            n_excluded=work[pk]["excluded"],
            n_skipped=work[pk]["skipped"],
            last_at=work[pk]["last"],
            median_seconds=median(work[pk]["seconds"]) if work[pk]["seconds"] else None,
            hours=sum(work[pk]["seconds"]) / 3600,
            stuck_minutes=stuck.get(pk),
        )
        for pk, user in users.items()
        if only in (None, pk)
    ]
    return sorted(
        found,
        key=lambda p: (
            not p.is_suspect,
            -(p.profile.spam if p.profile else 0),
            -p.n_judgments,
            p.user.username,
        ),
    )


def _stuck(project: Project) -> dict[int, int]:
    """Minutes for which people have held a comparison without a sign of work on it.

    Signs are that it was handed out, that a draft was saved, and that the lease was begun again: the
    page does so while somebody is at it, and when they press “Keep it for me”.
    """
    now = timezone.now()
    length = timedelta(minutes=project.lease_minutes)
    found: dict[int, int] = {}
    leases = Assignment.objects.filter(
        comparison__batch__project=project,
        comparison__batch__state=Batch.State.OPEN,
        state=Assignment.State.LEASED,
    )
    for person, leased, saved, until in leases.values_list(
        "annotator", "leased_at", "draft_saved_at", "lease_until"
    ):
        # Where the length was changed meanwhile the other two still say something.
        last = max(leased, saved or leased, min(until - length, now))
        idle = int((now - last).total_seconds() // 60)
        if idle >= STUCK_MINUTES:
            found[person] = max(found.get(person, 0), idle)
    return found


@dataclass(frozen=True)
class Outlook:
    """When an open batch will be done, and what that rests on."""

    batch: Batch
    left: int
    done_at: datetime | None
    pace_n: int
    is_pace_of_week: bool


@dataclass(frozen=True)
class Throughput:
    """How the work goes: pace, what is left, what a judgment costs."""

    n_judgments: int
    hours: float
    per_hour_of_work: float | None
    per_day: float | None
    cost_each: float | None
    cost_so_far: float | None
    left: int
    hours_left: float | None
    done_at: datetime | None
    """Of the last of the open batches; None where one of them has no pace."""
    batches: tuple[Outlook, ...]
    """Open ones with work left."""


def throughput(project: Project, found: list[Person]) -> Throughput:
    n, hours = sum(p.n_judgments for p in found), sum(p.hours for p in found)
    per_hour = n / hours if hours > 0 else None
    week = timezone.now() - timedelta(days=7)
    recent = (
        _votes(project)
        .filter(created_at__gte=week)
        .aggregate(n=Count("pk"), first=Min("created_at"))
    )
    per_day = None
    if recent["n"] >= 2:
        days = max((timezone.now() - recent["first"]).total_seconds() / 86_400, 1.0)
        per_day = recent["n"] / days
    pay = float(project.pay_per_hour) if project.pay_per_hour is not None else None
    batches = [
        outlook(batch, batch_progress(batch))
        for batch in project.batches.filter(state=Batch.State.OPEN, qualification__isnull=True)
    ]
    batches = [of for of in batches if of.left]
    left = sum(of.left for of in batches)
    done = [of.done_at for of in batches if of.done_at is not None]
    return Throughput(
        n_judgments=n,
        hours=hours,
        per_hour_of_work=per_hour,
        per_day=per_day,
        cost_each=pay / per_hour if pay is not None and per_hour else None,
        cost_so_far=pay * hours if pay is not None else None,
        left=left,
        hours_left=left / per_hour if per_hour else None,
        done_at=max(done) if done and len(done) == len(batches) else None,
        batches=tuple(batches),
    )


def outlook(batch: Batch, progress: Progress) -> Outlook:
    """When a batch will be done if people go on as they did."""
    eta = progress["eta_seconds"]
    return Outlook(
        batch,
        max(0, progress["needed"] - progress["judged"]),
        timezone.now() + timedelta(seconds=eta) if eta is not None else None,
        progress["pace_n"],
        progress["is_pace_of_week"],
    )


# --- What an admin does --------------------------------------------------------------------------------------------


def pause(membership: Membership, by: User, reason: str) -> None:
    """Hand this person nothing more; what they hold goes back, what they send still counts."""
    reason = reason.strip()[:200]
    if not reason:
        raise QualityError(gettext("Say why: the person is shown the reason."))
    project = membership.project
    with transaction.atomic():
        membership.paused_at, membership.paused_reason = timezone.now(), reason
        membership.save(update_fields=["paused_at", "paused_reason"])
        for held in Assignment.objects.open_for(membership.user).filter(
            comparison__batch__project=project
        ):
            release(held)
        Event.record(project, by, "paused annotator", membership.user, reason=reason)


def resume(membership: Membership, by: User) -> None:
    with transaction.atomic():
        membership.paused_at, membership.paused_reason = None, ""
        membership.save(update_fields=["paused_at", "paused_reason"])
        Event.record(membership.project, by, "let annotator go on", membership.user)


def exclude(
    project: Project, judgments: Iterable[int], by: User, reason: str, *, ask_again: bool = False
) -> int:
    """Take judgments (ids) out of every export and figure, saying why; how many. They stay on record.

    With `ask_again` the places they held are free again, so that somebody else judges instead.
    """
    reason = reason.strip()[:200]
    if not reason:
        raise QualityError(gettext("Say why they are taken out: the reason stays on record."))
    wanted = set(judgments)
    with transaction.atomic():
        rows = list(
            Judgment.objects.of_project(project)
            .filter(pk__in=wanted, current_for__isnull=False, excluded_at__isnull=True)
            .select_related("assignment")
            .order_by("assignment__comparison_id", "pk")
        )
        for judgment in rows:
            judgment.excluded_at, judgment.excluded_reason = timezone.now(), reason
            judgment.save(update_fields=["excluded_at", "excluded_reason"])
            if ask_again:
                _free_place(judgment.assignment)
        if rows:
            Event.record(
                project,
                by,
                "excluded judgments",
                f"{len(rows)}",
                reason=reason,
                judgments=[str(judgment.uid) for judgment in rows[:500]],
                ask_again=ask_again,
            )
    return len(rows)


def include(project: Project, judgments: Iterable[int], by: User) -> int:
    """Take an exclusion back; how many. A place that was given to somebody else stays theirs."""
    with transaction.atomic():
        rows = Judgment.objects.of_project(project).filter(
            pk__in=set(judgments), excluded_at__isnull=False
        )
        uids = [str(uid) for uid in rows.values_list("uid", flat=True)]
        n = Judgment.objects.filter(pk__in=list(rows.values_list("pk", flat=True))).update(
            excluded_at=None, excluded_reason=""
        )
        if n:
            Event.record(project, by, "included judgments", f"{n}", judgments=uids[:500])
    return n


def ask_again(comparison: Comparison, by: User, reason: str = "") -> None:
    """Let one more person judge a comparison."""
    with transaction.atomic():
        locked = lock(comparison.pk)
        if locked.gold_id is not None:
            raise QualityError(gettext("Gold is not asked again."))
        if locked.is_live:
            raise QualityError(
                gettext("A live dialogue is judged by who talks: nobody else is asked.")
            )
        if locked.batch.state != Batch.State.OPEN:
            raise QualityError(
                gettext("“%(batch)s” is closed; open it to ask again.") % {"batch": locked.batch}
            )
        # One more than there are answers: where a place is free already, somebody is being asked.
        locked.needed = max(locked.needed, locked.taken + 1)
        locked.save(update_fields=["needed"])
        count(locked)
        Event.record(
            locked.batch.project, by, "asked again", f"comparison {locked.pk}", reason=reason
        )


def _free_place(assignment: Assignment) -> None:
    """The judgment stays, as an extra; its place is free for somebody else."""
    comparison = lock(assignment.comparison_id)
    assignment.refresh_from_db()
    if assignment.state == Assignment.State.JUDGED and not assignment.is_extra:
        assignment.is_extra = True
        assignment.save(update_fields=["is_extra"])
        count(comparison, taken=-1, judged=-1)


def _votes(project: Project) -> Any:
    return Judgment.objects.current().votes().of_project(project)
