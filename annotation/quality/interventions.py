"""Actions of an admin on annotators and judgments: pause, exclude (never delete), ask again.

Every action writes an Event.
"""

from collections.abc import Iterable

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext

from annotation.judge.leases import count, lock, release
from annotation.models import (
    Assignment,
    Batch,
    Comparison,
    Event,
    Judgment,
    Membership,
    Project,
    User,
)

MAX_REASON = 200
RECORDED_JUDGMENTS = 500


class QualityError(Exception):
    """Why something can't be done, in one sentence."""


def pause(membership: Membership, by: User, reason: str) -> None:
    """Stop assigning work to this person and release their leases; a late judgment counts."""
    reason = reason.strip()[:MAX_REASON]
    if not reason:
        raise QualityError(gettext("Give a reason: the annotator sees it."))
    project = membership.project
    with transaction.atomic():
        membership.paused_at, membership.paused_reason = timezone.now(), reason
        membership.save(update_fields=["paused_at", "paused_reason"])
        for assignment in Assignment.objects.open_for(membership.user).filter(
            comparison__batch__project=project
        ):
            release(assignment)
        Event.record(project, by, "paused annotator", membership.user, reason=reason)


def resume(membership: Membership, by: User) -> None:
    with transaction.atomic():
        membership.paused_at, membership.paused_reason = None, ""
        membership.save(update_fields=["paused_at", "paused_reason"])
        Event.record(membership.project, by, "resumed annotator", membership.user)


def exclude(
    project: Project, judgments: Iterable[int], by: User, reason: str, *, ask_again: bool = False
) -> int:
    """Take judgments (ids) out of every export and figure, with a reason; how many.

    They stay on record. With `ask_again` their places are free again, for somebody else to judge.
    """
    reason = reason.strip()[:MAX_REASON]
    if not reason:
        raise QualityError(gettext("Give a reason for the exclusion: it stays on record."))
    with transaction.atomic():
        rows = list(
            Judgment.objects.of_project(project)
            .filter(pk__in=set(judgments), current_for__isnull=False, excluded_at__isnull=True)
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
                judgments=[str(judgment.uid) for judgment in rows[:RECORDED_JUDGMENTS]],
                ask_again=ask_again,
            )
    return len(rows)


def _free_place(assignment: Assignment) -> None:
    """Keep the judgment as an extra; its place is free for somebody else."""
    comparison = lock(assignment.comparison_id)
    assignment.refresh_from_db()
    if assignment.state == Assignment.State.JUDGED and not assignment.is_extra:
        assignment.is_extra = True
        assignment.save(update_fields=["is_extra"])
        count(comparison, taken=-1, judged=-1)


def include(project: Project, judgments: Iterable[int], by: User) -> int:
    """Undo exclusions; returns their number. A place that somebody else took stays theirs.

    Judgments of a person who withdrew stay excluded.
    """
    with transaction.atomic():
        rows = Judgment.objects.of_project(project).filter(
            pk__in=set(judgments), excluded_at__isnull=False
        )
        withdrawn = project.withdrawals.values("person")
        rows = rows.exclude(assignment__annotator__in=withdrawn)
        uids = [str(uid) for uid in rows.values_list("uid", flat=True)]
        n = Judgment.objects.filter(pk__in=list(rows.values_list("pk", flat=True))).update(
            excluded_at=None, excluded_reason=""
        )
        if n:
            Event.record(
                project, by, "included judgments", f"{n}", judgments=uids[:RECORDED_JUDGMENTS]
            )
    return n


def ask_again(comparison: Comparison, by: User, reason: str = "") -> None:
    """Request one more judgment of a comparison."""
    with transaction.atomic():
        comparison = lock(comparison.pk)
        if comparison.gold_id is not None:
            raise QualityError(gettext("A gold item gets no further judgment."))
        if comparison.is_live:
            raise QualityError(gettext("Only its participant judges a live dialogue."))
        if comparison.exclusion_id is not None:
            raise QualityError(gettext("It was excluded; undo that first."))
        batch = comparison.batch
        if batch.state != Batch.State.OPEN:
            raise QualityError(
                gettext("“%(batch)s” is closed; open it to request another judgment.")
                % {"batch": batch}
            )
        # One more than the places taken: a place that is still free is already a request.
        comparison.needed = max(comparison.needed, comparison.taken + 1)
        comparison.save(update_fields=["needed"])
        count(comparison)
        Event.record(
            batch.project,
            by,
            "requested another judgment",
            f"comparison {comparison.pk}",
            reason=reason,
        )
