"""Actions on an assigned comparison: answer, skip, undo; and reviewers' rulings.

`submit_judgment` is the one door for pages, API and simulated annotators. Judgments are append-only:
a correction is a new revision; taking one back leaves its row and only clears `Assignment.judgment`.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from annotation.judge.answers import MAX_SKIP_REASON, Answer, complete, in_letters, read_text
from annotation.judge.assignment import State
from annotation.judge.leases import count, lock, lock_with, take_place
from annotation.judge.permission import may_work
from annotation.judge.requirements import JudgmentError, conflicts, strength_record
from annotation.models import Assignment, Batch, Comparison, Judgment, Project, User, hot_queries
from annotation.protocols import RANK


class JudgmentConflict(JudgmentError):
    """The same idempotency key came with another answer."""


class AnsweredElsewhere(JudgmentConflict):
    """Another answer of the same person counts, which the sender of this one has not seen."""

    def __init__(self, current: Judgment) -> None:
        super().__init__(
            _("You answered this comparison elsewhere after this page was opened: choose one.")
        )
        self.current = current


def submit_judgment(
    assignment: Assignment,
    *,
    by: User,
    answer: Answer | Mapping[str, Any],
    key: UUID,
    seen: int | None = None,
) -> Judgment:
    """Store the answer of `by`, who holds the assignment. The only function that writes judgments.

    A mapping is an answer that names responses by letter, as pages and programs send it. The same key with the same answer gives the same row, with another answer JudgmentConflict. An
    answer that comes after its lease is accepted: it takes a place if one is left, and is kept as an
    extra otherwise. An answer to what was judged before is a new revision. JudgmentError if the
    answer makes no sense, comes from somebody else or the batch of an earlier judgment is closed.

    `seen` is the revision that counted when the sender's page was opened, 0 for none: AnsweredElsewhere
    if another answer counts now. None asks nothing.
    """
    if assignment.annotator_id != by.pk:
        raise JudgmentError(_("This comparison is assigned to somebody else."))
    complete_answer = complete(assignment, answer)
    try:
        with transaction.atomic():
            comparison = lock_with(assignment)
            earlier = hot_queries.earlier_judgments(key, assignment.pk)
            known = {judgment.key: judgment.revision for judgment in earlier}
            if key in known:
                return _replayed(Judgment.objects.get(key=key), assignment, complete_answer)
            if seen is not None and assignment.judgment_id is not None:
                current = Judgment.objects.get(pk=assignment.judgment_id)
                if current.answer_sha256 == complete_answer.sha256 and current.revision != seen:
                    return current  # The same answer, sent from two pages.
                if current.revision != seen:
                    raise AnsweredElsewhere(current)
            _occupy(comparison, assignment)
            revision = 1 + max(known.values(), default=0)
            return _write(comparison, assignment, complete_answer, key, revision)
    except IntegrityError:
        # The key was used for another comparison in the same instant.
        replay = Judgment.objects.filter(key=key).first()
        if replay is None:
            raise
        return _replayed(replay, assignment, complete_answer)


def skip(assignment: Assignment, reason: str) -> None:
    """Release the comparison to somebody else, with a reason. A repeated skip changes nothing."""
    text, problem = read_text(reason, gettext_noop("reason"), MAX_SKIP_REASON)
    reason = text.strip()
    if problem:
        raise JudgmentError(problem)
    if not reason:
        raise JudgmentError(_("Give a short reason for skipping."))
    with transaction.atomic():
        comparison = lock(assignment.comparison_id)
        assignment.refresh_from_db()
        if assignment.state == State.JUDGED:
            raise JudgmentError(_("You have already judged this comparison; undo that first."))
        if assignment.state == State.LEASED and not assignment.is_extra:
            count(comparison, taken=-1)
        assignment.state, assignment.is_extra = State.SKIPPED, False
        assignment.skip_reason = reason
        assignment.lease_until = timezone.now()  # A skip ends the lease: when it was, for an undo.
        assignment.save(update_fields=["state", "is_extra", "skip_reason", "lease_until"])


def undo_last(user: User, project: Project) -> Assignment | None:
    """Undo this person's last judgment or skip in an open batch; an answer becomes the draft.

    None if there is none in an open batch.
    """
    last = last_done(user, project)
    return reopen(last) if last else None


def last_done(user: User, project: Project) -> Assignment | None:
    """What this person judged or skipped last and may undo: of open batches.

    The answers of a finished qualification round are left out, as its result is stored.
    """
    ongoing = may_work(user, project).ongoing_attempt
    mine = Assignment.objects.filter(
        Q(comparison__batch__qualification=None) | Q(comparison__batch__qualification=ongoing),
        annotator=user,
        is_ruling=False,
        comparison__batch__project=project,
        comparison__batch__state=Batch.State.OPEN,
        comparison__is_live=False,
    )
    judged = (
        mine.filter(state=State.JUDGED)
        .select_related("judgment")
        .order_by("-judgment__created_at", "-judgment_id")
        .first()
    )
    skipped = mine.filter(state=State.SKIPPED).order_by("-lease_until", "-id").first()
    if judged is None or judged.judgment is None or skipped is None:
        return judged or skipped
    return skipped if skipped.lease_until > judged.judgment.created_at else judged


def reopen(assignment: Assignment) -> Assignment:
    """Reopen a judged or skipped assignment; a judgment's answer becomes the draft."""
    with transaction.atomic():
        comparison = lock(assignment.comparison_id)
        assignment.refresh_from_db()
        _check_open(comparison)
        _check_may_change(assignment, comparison)
        if assignment.state == State.JUDGED:
            if assignment.judgment is not None:
                assignment.draft = in_letters(assignment, assignment.judgment)
                assignment.draft_saved_at = timezone.now()
            if not assignment.is_extra:
                count(comparison, judged=-1)
        elif assignment.state in (State.SKIPPED, State.EXPIRED):
            assignment.is_extra = not take_place(comparison)
        assignment.state, assignment.judgment = State.LEASED, None
        assignment.lease_until = comparison.batch.project.lease_end()
        # Older than every lease of this person, so that this assignment is shown next.
        first = Assignment.objects.open_for(assignment.annotator).last()
        if first is not None:
            assignment.leased_at = min(
                assignment.leased_at, first.leased_at - timedelta(microseconds=1)
            )
        assignment.save()
    return assignment


def ruling_assignment(comparison: Comparison, reviewer: User) -> Assignment:
    """Where a reviewer's decision goes: an assignment that takes no place of the overlap.

    JudgmentError if the reviewer judged it: nobody decides about their own vote.
    """
    with transaction.atomic():
        comparison = lock(comparison.pk)
        order = list(comparison.responses.order_by("pk").values_list("pk", flat=True))
        assignment, made = Assignment.objects.get_or_create(
            comparison=comparison,
            annotator=reviewer,
            defaults={
                "state": State.SKIPPED,
                "is_extra": True,
                "is_ruling": True,
                "shown_order": order,
                "lease_until": timezone.now(),
            },
        )
        if not made and not assignment.is_ruling:
            if assignment.state == State.JUDGED:
                raise JudgmentError(_("You judged this comparison, so another reviewer decides."))
            if assignment.state == State.LEASED and not assignment.is_extra:
                count(comparison, taken=-1)
            assignment.state, assignment.is_extra, assignment.is_ruling = State.SKIPPED, True, True
            assignment.shown_order, assignment.draft = order, {}
            assignment.save()
    return assignment


def withdraw_ruling(assignment: Assignment) -> None:
    """Take a reviewer's decision back; its row stays, and the votes count again."""
    with transaction.atomic():
        lock(assignment.comparison_id)
        assignment.refresh_from_db()
        if assignment.is_ruling:
            assignment.state, assignment.judgment = State.SKIPPED, None
            assignment.save(update_fields=["state", "judgment"])


def _check_open(comparison: Comparison) -> None:
    if comparison.batch.state != Batch.State.OPEN:
        raise JudgmentError(
            _("“%(batch)s” is closed: its judgments can't be changed.")
            % {"batch": comparison.batch}
        )


def _check_may_change(assignment: Assignment, comparison: Comparison) -> None:
    may = may_work(assignment.annotator, comparison.batch.project)
    attempt = comparison.batch.qualification
    if attempt is not None and attempt != may.ongoing_attempt:
        raise JudgmentError(_("This answer counted in a qualification round: it stays as it is."))
    if may.to_change:
        raise JudgmentError(may.to_change)


def _replayed(earlier: Judgment, assignment: Assignment, answer: Answer) -> Judgment:
    if earlier.assignment_id == assignment.pk and earlier.answer_sha256 == answer.sha256:
        return earlier
    raise JudgmentConflict(
        _(
            "This answer was already sent with different contents; nothing was changed. Reload the page."
        )
    )


def _occupy(comparison: Comparison, assignment: Assignment) -> None:
    """Under the lock: turn the assignment's lease into a judged place, or mark it as an extra."""
    if assignment.state == State.JUDGED:
        if not assignment.is_ruling:
            _check_open(comparison)
            _check_may_change(assignment, comparison)
        return
    holds = assignment.state == State.LEASED and not assignment.is_extra
    if not holds and not assignment.is_ruling:
        holds = take_place(comparison)
    if holds:
        count(comparison, judged=1)
    assignment.is_extra = not holds


def _write(
    comparison: Comparison,
    assignment: Assignment,
    answer: Answer,
    key: UUID,
    revision: int,
) -> Judgment:
    batch = comparison.batch
    last = None
    if revision > 1:
        last = Judgment.objects.filter(assignment=assignment, revision=revision - 1).first()
    rest_below = batch.effective_interface == RANK and batch.effective_protocol.unranked == "below"
    rest = assignment.letters if rest_below else ()
    between_parts = conflicts(answer.ranks, answer.safety, answer.flags, rest)
    judgment = Judgment(
        assignment=assignment,
        revision=revision,
        key=key,
        answer_sha256=answer.sha256,
        ranks=answer.ranks,
        rest_below=rest_below,
        strength=strength_record(answer.strength, batch.effective_protocol),
        all_bad=answer.all_bad,
        flags=answer.flags,
        ratings=answer.ratings,
        safety=answer.safety,
        rewrite=answer.rewrite,
        based_on_id=int(answer.based_on) if answer.based_on else None,
        conflicts=between_parts,
        needs_review=bool(between_parts),
        reason=answer.reason,
        seconds=answer.seconds,
        guideline_version=answer.guideline_version or batch.project.guideline_version,
        # A correction does not restore a judgment that an admin excluded.
        excluded_at=last.excluded_at if last else None,
        excluded_reason=last.excluded_reason if last else "",
    )
    judgment.save(force_insert=True)
    assignment.judgment, assignment.state, assignment.draft = judgment, State.JUDGED, {}
    assignment.skip_reason = ""
    assignment.save(update_fields=["judgment", "state", "draft", "is_extra", "skip_reason"])
    return judgment
