"""Who judges what next: leases, overlap, and the counters that keep them right.

A comparison has `needed` places. A place is held by a live lease or by a judgment; `taken` counts
the places that are held and `judged` those that hold a judgment. An assignment marked `is_extra`
holds no place. All of this changes only under the comparison's row lock (SQLite: inside BEGIN
IMMEDIATE, where the whole database is the lock), here and in `judging`.
"""

import random
from datetime import datetime, timedelta

from django.db import connection, transaction
from django.db.models import Exists, OuterRef
from django.utils import timezone

from annotation.models import Assignment, Batch, Comparison, Membership, Project, User

State = Assignment.State


def lock(comparison_id: int) -> Comparison:
    """The comparison, locked until the transaction ends; its batch comes with it, unlocked."""
    return (
        Comparison.objects.select_for_update(of=("self",))
        .select_related("batch__project")
        .get(pk=comparison_id)
    )


def count(comparison: Comparison, *, taken: int = 0, judged: int = 0) -> None:
    """Move the counters of a locked comparison."""
    comparison.taken += taken
    comparison.judged += judged
    comparison.is_free = comparison.taken < comparison.needed
    comparison.save(update_fields=["taken", "judged", "is_free"])


def take_place(comparison: Comparison) -> bool:
    """Hold one more place of a locked comparison; False if none is left or the batch is not open."""
    if not comparison.is_free or comparison.batch.state != Batch.State.OPEN:
        return False
    count(comparison, taken=1)
    return True


def lease_end(project: Project) -> datetime:
    return timezone.now() + timedelta(minutes=project.lease_minutes)


def next_assignment(user: User, project: Project) -> Assignment | None:
    """What this person judges now: what they were handed and have not answered, else a new one.

    None when nothing is free for them. The lease starts again at its full length.
    """
    with transaction.atomic():
        _one_request_at_a_time(user, project)
        held = _held(user, project)
        if held:
            held[0].lease_until = lease_end(project)
            held[0].save(update_fields=["lease_until"])
            return held[0]
        return _take(user, project)


def peek_next(user: User, project: Project, current: Assignment) -> Assignment | None:
    """The one after `current`, leased as well, so that a page can show it without waiting.

    A person never holds more than two: asking again gives the same one.
    """
    with transaction.atomic():
        _one_request_at_a_time(user, project)
        for held in _held(user, project):
            if held.pk != current.pk:
                return held
        return _take(user, project)


def renew(assignment: Assignment) -> bool:
    """The person is still at it: the lease starts again. False if the place has gone meanwhile.

    An answer is accepted all the same, as an extra.
    """
    with transaction.atomic():
        comparison = lock(assignment.comparison_id)
        assignment.refresh_from_db()
        if assignment.state == State.EXPIRED:
            if not take_place(comparison):
                return False
            assignment.state, assignment.is_extra = State.LEASED, False
        elif assignment.state != State.LEASED:
            return False
        assignment.lease_until = lease_end(comparison.batch.project)
        assignment.save(update_fields=["state", "is_extra", "lease_until"])
        return True


def release(assignment: Assignment) -> None:
    """Give the place back unanswered; the draft stays, and the person may be handed it again."""
    with transaction.atomic():
        _expire(lock(assignment.comparison_id), assignment)


def release_overdue() -> int:
    """Give back every lease that ran out; how many. One short transaction each."""
    released = 0
    for assignment in Assignment.objects.overdue().order_by("lease_until"):
        with transaction.atomic():
            comparison = lock(assignment.comparison_id)
            assignment.refresh_from_db()
            if assignment.is_overdue:
                _expire(comparison, assignment)
                released += 1
    return released


def release_all(batch: Batch) -> int:
    """Give back every live lease of a batch; how many."""
    leased = Assignment.objects.filter(comparison__batch=batch, state=State.LEASED)
    # In one order everywhere, so that two such transactions can't wait for each other.
    assignments = list(leased.order_by("comparison_id", "id"))
    for assignment in assignments:
        _expire(lock(assignment.comparison_id), assignment)
    return len(assignments)


def waiting(user: User, project: Project) -> int:
    """How many comparisons this person could be handed, what they hold included."""
    held = Assignment.objects.open_for(user).filter(
        comparison__batch__project=project, comparison__batch__state=Batch.State.OPEN
    )
    free = Comparison.objects.filter(
        batch__project=project, batch__state=Batch.State.OPEN, is_free=True
    ).exclude(_had(user))
    return held.count() + free.count()


def _one_request_at_a_time(user: User, project: Project) -> None:
    """Two tabs of one person wait for each other here, so that both get the same comparison."""
    list(Membership.objects.select_for_update().filter(user=user, project=project))


def _held(user: User, project: Project) -> list[Assignment]:
    """Open leases of this person, the one to show first first."""
    return list(
        Assignment.objects.open_for(user)
        .filter(comparison__batch__project=project, comparison__batch__state=Batch.State.OPEN)
        .order_by("leased_at", "id")
    )


def _had(user: User) -> Exists:
    """Comparisons that this person holds, judged or skipped. What merely ran out may come again."""
    return Exists(
        Assignment.objects.filter(comparison=OuterRef("pk"), annotator=user).exclude(
            state=State.EXPIRED
        )
    )


def _take(user: User, project: Project) -> Assignment | None:
    begun = (
        Assignment.objects.filter(
            annotator=user,
            state=State.EXPIRED,
            comparison__is_free=True,
            comparison__batch__project=project,
            comparison__batch__state=Batch.State.OPEN,
        )
        .order_by("-leased_at")
        .first()
    )
    if begun is not None and renew(begun):
        return begun
    batches = Batch.objects.filter(project=project, state=Batch.State.OPEN)
    # skip_locked lets people who ask at the same moment take different rows without waiting. Where
    # the only free row was locked by somebody who leaves a place over, the second pass waits for it.
    for skip_locked in (True, False) if connection.features.has_select_for_update else (False,):
        for batch in batches.order_by("opened_at", "id"):
            comparison = (
                Comparison.objects.select_for_update(of=("self",), skip_locked=skip_locked)
                .filter(batch=batch, is_free=True)
                .exclude(_had(user))
                .order_by("-priority", "shuffle", "id")
                .first()
            )
            if comparison is not None:
                return _lease(comparison, user, project)
    return None


def _lease(comparison: Comparison, user: User, project: Project) -> Assignment:
    count(comparison, taken=1)
    order = list(comparison.responses.values_list("pk", flat=True))
    random.SystemRandom().shuffle(order)
    assignment, created = Assignment.objects.get_or_create(
        comparison=comparison,
        annotator=user,
        defaults={"shown_order": order, "lease_until": lease_end(project)},
    )
    if not created:  # It ran out once; what was drafted then refers to the order shown then.
        assignment.state, assignment.is_extra = State.LEASED, False
        assignment.leased_at = timezone.now()
        assignment.lease_until = lease_end(project)
        assignment.save(update_fields=["state", "is_extra", "leased_at", "lease_until"])
    return assignment


def _expire(comparison: Comparison, assignment: Assignment) -> None:
    """Under the comparison's lock: end a live lease and free the place it held."""
    assignment.refresh_from_db()
    if assignment.state != State.LEASED:
        return
    if not assignment.is_extra:
        count(comparison, taken=-1)
    assignment.state, assignment.is_extra = State.EXPIRED, False
    assignment.save(update_fields=["state", "is_extra"])
