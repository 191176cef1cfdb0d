"""Whether a person may work now: asked at every door through which work is begun or changed.

An answer that is sent is always taken, as nothing that was typed may be lost; what may be refused is
to get more work, to take up what was given back, and to change what was said before.
"""

from dataclasses import dataclass

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from annotation.judge import leases
from annotation.judge.qualification import must_qualify
from annotation.lib.days import last_midnight
from annotation.models import Assignment, Membership, Project, User

State = Assignment.State


@dataclass(frozen=True)
class Permission:
    """What keeps a person from work, each as a sentence for them; "" where nothing does."""

    member: Membership | None
    project: Project
    user: User

    @property
    def to_begin(self) -> str:
        """Why no new work may be begun."""
        return self.to_change or self.unqualified or self.limit

    @property
    def to_change(self) -> str:
        """Why nothing may be taken up or said again."""
        if self.member is None:
            return _("You are not a member of this project.")
        return self.paused

    @property
    def paused(self) -> str:
        if self.member is None or self.member.paused_at is None:
            return ""
        return _("Your work is paused: %(reason)s") % {"reason": self.member.paused_reason}

    @property
    def unqualified(self) -> str:
        if self.member is not None and must_qualify(self.member, self.project):
            return _("Pass the qualification round first.")
        return ""

    @property
    def ongoing_attempt(self) -> int | None:
        """The qualification round that this person is in, whose answers they may still change."""
        member = self.member
        if member is None or member.qualification or not must_qualify(member, self.project):
            return None
        return member.attempt

    @property
    def limit(self) -> str:
        return limit_reached(self.user, self.project, self.member)


def may_work(
    user: User, project: Project, member: Membership | None = None, *, is_read: bool = False
) -> Permission:
    """What this person may do in the project now; `member` if it was read already (`is_read`)."""
    if not is_read and member is None:
        member = Membership.objects.filter(user=user, project=project).first()
    return Permission(member, project, user)


def renew(assignment: Assignment) -> bool:
    """`leases.renew`, unless this person may not take up work; False if not."""
    may = may_work(assignment.annotator, assignment.comparison.batch.project)
    return not may.to_change and leases.renew(assignment)


def limit_reached(user: User, project: Project, member: Membership | None) -> str:
    """The limit that this person has reached, as a sentence; "" if none."""
    daily, total = (
        getattr(member, name) if getattr(member, name, None) is not None else getattr(project, name)
        for name in ("daily_limit", "total_limit")
    )
    if daily is None and total is None:
        return ""
    mine = Assignment.objects.filter(
        annotator=user,
        state__in=[State.LEASED, State.JUDGED],
        comparison__batch__project=project,
    )
    midnight = last_midnight()
    if daily is not None and mine.filter(leased_at__gte=midnight)[:daily].count() >= daily:
        return ngettext(
            "You have reached the limit of %(n)s comparison a day.",
            "You have reached the limit of %(n)s comparisons a day.",
            daily,
        ) % {"n": daily}
    if total is not None and mine[:total].count() >= total:
        return ngettext(
            "You have reached the limit of %(n)s comparison in this project.",
            "You have reached the limit of %(n)s comparisons in this project.",
            total,
        ) % {"n": total}
    return ""
