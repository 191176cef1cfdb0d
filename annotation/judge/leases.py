"""Places of a comparison and the leases that hold them.

A comparison has `needed` places. A place is held by a live lease or by a judgment; `taken` counts
the places that are held and `judged` those that hold a judgment. An assignment marked `is_extra`
holds no place. All of this changes only under the comparison's row lock (SQLite: inside BEGIN
IMMEDIATE, where the whole database is the lock).
"""

from django.db import transaction

from annotation.models import Assignment, Batch, Comparison, User, hot_queries

State = Assignment.State


def lock(comparison_id: int) -> Comparison:
    """The comparison, locked until the transaction ends; its batch comes with it, unlocked."""
    rows = Comparison.objects.select_for_update(of=("self",)).select_related("batch__project")
    return rows.get(pk=comparison_id)


def lock_with(assignment: Assignment) -> Comparison:
    """As `lock`; the assignment takes the values that its row has once the lock is held."""
    project = assignment.comparison.batch.project
    comparison = hot_queries.row(Comparison, assignment.comparison_id, locking="wait")
    comparison.batch = hot_queries.row(Batch, comparison.batch_id)
    comparison.batch.project = project
    assignment.refresh_from_db()
    assignment.comparison = comparison
    return comparison


def count(comparison: Comparison, *, taken: int = 0, judged: int = 0) -> None:
    """Move the counters of a locked comparison. Gold has none: nobody is needed for it.

    Its row is written all the same, so that response times give nothing away.
    """
    if comparison.gold_id is None:
        comparison.taken += taken
        comparison.judged += judged
        comparison.is_free = comparison.taken < comparison.needed
    comparison.save(update_fields=["taken", "judged", "is_free"])


def take_place(comparison: Comparison) -> bool:
    """Hold one more place of a locked comparison; False if none is left or the batch is not open."""
    # To the person who holds it, gold behaves like work.
    is_free = comparison.is_free or comparison.gold_id is not None
    if not is_free or comparison.batch.state != Batch.State.OPEN:
        return False
    count(comparison, taken=1)
    return True


def renew(assignment: Assignment) -> bool:
    """Renew the lease of a person who still works; False if the place is taken.

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
        assignment.lease_until = comparison.batch.project.lease_end()
        assignment.save(update_fields=["state", "is_extra", "lease_until"])
        return True


def release(assignment: Assignment) -> None:
    """Give the place back unanswered; the draft stays, and the person may be handed it again."""
    with transaction.atomic():
        expire(lock(assignment.comparison_id), assignment)


def release_untouched(assignment: Assignment, lease: str) -> bool:
    """Give it back when its page is left: only if nothing was entered, and only the page's own lease.

    `lease` is the end of the lease that the page knows, in ISO 8601; a page loaded later knows another.
    """
    with transaction.atomic():
        comparison = lock(assignment.comparison_id)
        assignment.refresh_from_db()
        if assignment.draft or assignment.lease_until.isoformat() != lease:
            return False
        expire(comparison, assignment)
        return True


def release_on_leaving(user: User) -> int:
    """Give back what this person holds and has entered nothing for; how many. For signing out."""
    leased = Assignment.objects.open_for(user).filter(is_ruling=False, comparison__is_live=False)
    # In one order everywhere, so that two such transactions can't wait for each other.
    return sum(
        release_untouched(assignment, assignment.lease_until.isoformat())
        for assignment in leased.order_by("comparison_id")
    )


def release_overdue() -> int:
    """Give back every lease that ran out; how many. One short transaction each."""
    released = 0
    for assignment in Assignment.objects.overdue().order_by("lease_until"):
        with transaction.atomic():
            comparison = lock(assignment.comparison_id)
            assignment.refresh_from_db()
            if assignment.is_overdue:
                expire(comparison, assignment)
                released += 1
    return released


def release_all(batch: Batch) -> int:
    """Give back every live lease of a batch; how many."""
    leased = Assignment.objects.filter(comparison__batch=batch, state=State.LEASED)
    # In one order everywhere, so that two such transactions can't wait for each other.
    assignments = list(leased.order_by("comparison_id", "id"))
    for assignment in assignments:
        expire(lock(assignment.comparison_id), assignment)
    return len(assignments)


def expire(comparison: Comparison, assignment: Assignment) -> None:
    """Under the comparison's lock: end a live lease and free the place it held."""
    assignment.refresh_from_db()
    if assignment.state != State.LEASED:
        return
    if not assignment.is_extra:
        count(comparison, taken=-1)
    assignment.state, assignment.is_extra = State.EXPIRED, False
    assignment.save(update_fields=["state", "is_extra"])
