"""The people of a project: what each has done, how reliable they are, and who needs attention."""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import median
from typing import Any

from django.db.models import Count
from django.utils import timezone
from django.utils.translation import gettext

from annotation.judge.gold_scores import Tally, tallies
from annotation.models import Assignment, Batch, Judgment, Membership, Project, User
from annotation.quality.assessment import reliability_of
from annotation.statistics.profiles import Profile

# Longer times on one comparison are breaks and not counted as work beyond this.
MAX_WORK_SECONDS = 600.0
IDLE_MINUTES = 20
# With at least this many gold items answered, a lower share of right answers needs attention.
MIN_GOLD_SHARE, MIN_GOLD_ANSWERS = 0.6, 5


@dataclass
class Work:
    """What one person has done, counted from their judgments and skips."""

    n_judgments: int = 0
    n_excluded: int = 0
    n_skipped: int = 0
    last_at: datetime | None = None
    seconds: list[float] = field(default_factory=list)
    """Of each judgment that was timed, at most MAX_WORK_SECONDS."""


@dataclass(frozen=True)
class Person:
    """One annotator of a project, as an admin sees them."""

    user: User
    membership: Membership | None
    profile: Profile | None
    gold: Tally
    n_judgments: int
    n_excluded: int
    n_skipped: int
    last_at: datetime | None
    median_seconds: float | None
    hours: float
    idle_minutes: int | None

    @property
    def per_hour(self) -> float | None:
        """Judgments per hour of measured work."""
        return self.n_judgments / self.hours if self.hours > 0 else None

    @property
    def reasons(self) -> tuple[str, ...]:
        reasons = tuple(gettext(reason) for reason in self.profile.reasons) if self.profile else ()
        if self.fails_gold:
            n_wrong = self.gold.answered - self.gold.right
            sentence = gettext("Got %(n)s of %(of)s gold items wrong.")
            reasons = (*reasons, sentence % {"n": n_wrong, "of": self.gold.answered})
        return reasons

    @property
    def knows_gold(self) -> bool:
        return self.membership is not None and self.membership.may_know_gold

    @property
    def fails_gold(self) -> bool:
        return self.gold.answered >= MIN_GOLD_ANSWERS and (self.gold.share or 0) < MIN_GOLD_SHARE

    @property
    def is_suspect(self) -> bool:
        return self.fails_gold or (self.profile is not None and self.profile.is_suspect)


def people_of(
    project: Project, profiles: dict[Any, Profile] | None = None, *, only: int | None = None
) -> list[Person]:
    """Everybody who judged or may judge here, those who need attention first; `only` one user's id.

    Without `profiles`, they are computed from the current votes.
    """
    if profiles is None:
        profiles = reliability_of(project).profiles
    gold_tallies = tallies(project)
    work_by_user = _work_of(project, only)
    members = {member.user_id: member for member in project.memberships.select_related("user")}
    annotators = {
        pk
        for pk, member in members.items()
        if member.role == Membership.Role.ANNOTATOR or pk in work_by_user
    }
    users = User.objects.in_bulk(annotators | set(work_by_user))
    idle = _idle_minutes(project)
    people = []
    for pk, user in users.items():
        if only not in (None, pk):
            continue
        work = work_by_user.get(pk, Work())
        people.append(
            Person(
                user=user,
                membership=members.get(pk),
                profile=profiles.get(pk),
                gold=gold_tallies.get(pk, Tally()),
                n_judgments=work.n_judgments,
                n_excluded=work.n_excluded,
                n_skipped=work.n_skipped,
                last_at=work.last_at,
                median_seconds=median(work.seconds) if work.seconds else None,
                hours=sum(work.seconds) / 3600,
                idle_minutes=idle.get(pk),
            )
        )
    return sorted(people, key=_attention_first)


def _attention_first(person: Person) -> tuple[bool, float, int, str]:
    spam = person.profile.spam if person.profile else 0.0
    return not person.is_suspect, -spam, -person.n_judgments, person.user.username


def _work_of(project: Project, only: int | None) -> dict[int, Work]:
    work: dict[int, Work] = defaultdict(Work)
    judgments = Judgment.objects.of_project(project).filter(
        current_for__isnull=False, assignment__is_ruling=False
    )
    skipped = Assignment.objects.filter(
        comparison__batch__project=project, state=Assignment.State.SKIPPED, is_ruling=False
    )
    if only is not None:
        judgments = judgments.filter(assignment__annotator=only)
        skipped = skipped.filter(annotator=only)
    for pk, seconds, excluded_at, created_at in judgments.values_list(
        "assignment__annotator_id", "seconds", "excluded_at", "created_at"
    ):
        person = work[pk]
        person.n_judgments += 1
        person.n_excluded += excluded_at is not None
        if seconds is not None:
            person.seconds.append(min(seconds, MAX_WORK_SECONDS))
        person.last_at = max(person.last_at or created_at, created_at)
    for pk, n in skipped.values_list("annotator").annotate(n=Count("pk")):
        work[pk].n_skipped = n
    return dict(work)


def _idle_minutes(project: Project) -> dict[int, int]:
    """By user: minutes for which they have had a comparison open without a sign of work on it.

    Signs of work are that it was handed out, that a draft was saved, and that the lease was extended:
    the page does so while somebody works on it, and when they press “Keep it for me”.
    """
    now = timezone.now()
    lease_length = timedelta(minutes=project.lease_minutes)
    idle: dict[int, int] = {}
    leases = Assignment.objects.filter(
        comparison__batch__project=project,
        comparison__batch__state=Batch.State.OPEN,
        state=Assignment.State.LEASED,
    )
    for pk, leased_at, saved_at, lease_until in leases.values_list(
        "annotator", "leased_at", "draft_saved_at", "lease_until"
    ):
        # If the lease length has changed meanwhile, the other two times still hold.
        last_sign = max(leased_at, saved_at or leased_at, min(lease_until - lease_length, now))
        minutes = int((now - last_sign).total_seconds() // 60)
        if minutes >= IDLE_MINUTES:
            idle[pk] = max(idle.get(pk, 0), minutes)
    return idle
