"""What a person judges next: assigned or expired comparisons first, then the queues."""

import random
from collections.abc import Callable, Mapping
from uuid import UUID

from django.db import IntegrityError, connection, transaction
from django.db.models import QuerySet
from django.utils import timezone

from annotation.judge import gold_mixing, qualification
from annotation.judge.leases import count, release, renew
from annotation.judge.permission import limit_reached, may_work
from annotation.judge.queues import HARMLESS, Queue, handed_to
from annotation.models import (
    Assignment,
    Batch,
    Comparison,
    Membership,
    Project,
    Prompt,
    User,
    hot_queries,
)
from annotation.models.hot_queries import Locking

State = Assignment.State
WAITING_COUNTED = 500
HELD_AT_MOST = 50


def own_assignment(user: User, project: Project, uid: UUID) -> Assignment:
    """This person's own assignment in this project, or Assignment.DoesNotExist.

    Rulings are excluded: reviewers make and undo them on the review page.
    """
    assignment = own_row(user, project, uid)
    comparison = assignment.comparison
    comparison.batch = hot_queries.row(Batch, comparison.batch_id)
    comparison.batch.project = project
    return assignment


def own_row(user: User, project: Project, uid: UUID) -> Assignment:
    """As `own_assignment`, without its batch."""
    assignment = hot_queries.own_assignment(uid, user.pk, project.pk)
    if assignment is None:
        raise Assignment.DoesNotExist
    return assignment


def next_assignment(user: User, project: Project) -> Assignment | None:
    """The comparison that this person judges now: an unanswered one, else a new one.

    None when no comparison is free. The lease is renewed at its full length.
    """
    return _settled(lambda *, wait: _next(user, project, wait=wait))


class AllLocked(Exception):
    """Others hold the locks of all free comparisons; a place may stay free, so the search waits."""


def _settled(search: Callable[..., Assignment | None]) -> Assignment | None:
    """The result of `search`, run up to three times, each time in its own transaction.

    The first search skips locked rows, so that simultaneous requests take different rows. Its
    locks are released before the second search, which waits for locked rows, to avoid a deadlock.
    """
    wait = False
    try:
        return search(wait=wait)
    except AllLocked:
        wait = True
    except IntegrityError:
        # The place of an expired assignment became free after this person's assignments were read:
        # the second search finds it.
        pass
    try:
        return search(wait=wait)
    except (AllLocked, IntegrityError):
        return search(wait=True)


def _next(user: User, project: Project, *, wait: bool) -> Assignment | None:
    with transaction.atomic():
        member, keys = _lock_member(user, project)
        if may_work(user, project, member, is_read=True).to_change:
            return None
        leased, expired = _open(keys, project)
        if leased:
            leased[0].lease_until = project.lease_end()
            leased[0].save(update_fields=["lease_until"])
            return leased[0]
        if member is not None and qualification.must_qualify(member, project):
            return _qualify(user, project, member, expired, wait=wait)
        return _take(user, project, member, expired, wait=wait)


def peek_next(user: User, project: Project, current: Assignment) -> Assignment | None:
    """The comparison after `current`, leased in advance, so that a page shows it at once.

    A person holds at most two leases: a repeated request gets the same comparison and renews its
    lease.
    """
    return _settled(lambda *, wait: _peek(user, project, current, wait=wait))


def _peek(user: User, project: Project, current: Assignment, *, wait: bool) -> Assignment | None:
    with transaction.atomic():
        member, keys = _lock_member(user, project)
        if may_work(user, project, member, is_read=True).to_change:
            return None
        # The usual case, after an answer: no query is needed for the columns of the current
        # comparison.
        leased, expired = _open([] if keys == [current.pk] else keys, project)
        for other in leased:
            if other.pk != current.pk:
                # As in `_next`: what a page that is being left gives back is not what this one shows.
                other.lease_until = project.lease_end()
                other.save(update_fields=["lease_until"])
                return other
        if member is not None and qualification.must_qualify(member, project):
            chosen = qualification.next_qualifying(member, project, handed_to(user))
            if chosen is None:
                return None
            return _lease(chosen, user, project, Assignment.Drawn.RANKED, may_have_begun=True)
        return _take(user, project, member, expired, wait=wait)


def waiting(user: User, project: Project) -> int:
    """The number of comparisons that this person could get, including current leases.

    Counted up to WAITING_COUNTED, so that a long queue costs no more. Gold items to be mixed in
    are included, so that the number falls by one with every answer.
    """
    member = project.own_membership
    if member is None or member.user_id != user.pk:
        member = Membership.objects.filter(user=user, project=project).first()
    n = n_held = hot_queries.count_leases(user.pk, project.pk)
    if may_work(user, project, member, is_read=True).to_change:
        return 0
    if member is not None and qualification.must_qualify(member, project):
        return n + qualification.count_qualifying_left(member, project, handed_to(user))
    for batch in _batches(project, member):
        for skill in _skills(member):
            if n < WAITING_COUNTED:
                n += _queue(user, batch, skill).count(WAITING_COUNTED)
    if member is not None and project.gold_every:
        n += gold_mixing.count_gold_ahead(member, project, n - n_held)
    return min(n, WAITING_COUNTED)


def is_wanted(user: User, assignment: Assignment) -> bool:
    """Whether this person's preferences still allow this comparison."""
    return (
        user.harmful_material != User.HarmfulMaterial.AVOID
        or assignment.comparison.prompt.risk != Prompt.Risk.HARMFUL
    )


def release_unwanted(user: User) -> int:
    """Release the leases that this person's preferences now exclude; returns their number."""
    leased = Assignment.objects.open_for(user).select_related("comparison__prompt")
    unwanted = [assignment for assignment in leased if not is_wanted(user, assignment)]
    for assignment in unwanted:
        release(assignment)
    return len(unwanted)


def _lock_member(user: User, project: Project) -> tuple[Membership | None, list[int]]:
    """The membership of the person, locked, and the keys of open assignments (in OPEN_ORDER).

    Two tabs of one person wait for this lock, so that both get the same comparison.
    """
    member = project.own_membership
    if (
        member is None
        or member.user_id != user.pk
        or connection.features.has_select_for_update  # Otherwise the whole database is locked.
    ):
        rows = Membership.objects.select_for_update().filter(user=user, project=project)
        member = rows.first()
    return member, hot_queries.open_keys(user.pk, project.pk, HELD_AT_MOST)


def _skills(member: Membership | None) -> list[str]:
    """Comparisons that require no skill, or a skill that this person has."""
    return ["", *(member.skills if member else [])]


def _batches(project: Project, member: Membership | None) -> list[Batch]:
    """Open batches whose comparisons this person may get, in the order of the search."""
    skills, campaign = _skills(member), member.campaign if member else ""
    batches = [
        batch
        for batch in hot_queries.open_batches(project.pk)
        if batch.skill in skills
        and campaign in ("", batch.campaign)
        and batch.only_for_id in (None, member.user_id if member else None)
    ]
    for batch in batches:
        batch.project = project
    return batches


# "leased" sorts behind "expired": every lease (two, or more after an undo) comes before the newest
# expired assignment.
OPEN_ORDER = ("-state", "-leased_at", "-id")


def _open(keys: list[int], project: Project) -> tuple[list[Assignment], list[Assignment]]:
    """A person's leases, in the order to show them, and their expired assignments."""
    leased: list[Assignment] = []
    expired: list[Assignment] = []
    if not keys:
        return leased, expired
    rows = Assignment.objects.filter(pk__in=keys).order_by(*OPEN_ORDER)
    for row in rows.select_related("comparison__batch", "comparison__prompt"):
        row.comparison.batch.project = project
        (leased if row.state == State.LEASED else expired).append(row)
    return leased[::-1], expired


def _qualify(
    user: User, project: Project, member: Membership, expired: list[Assignment], *, wait: bool
) -> Assignment | None:
    """The next comparison of the qualification round, or work once the round is passed."""
    rounds = [assignment for assignment in expired if assignment.comparison.batch.qualification]
    if rounds and _renew_expired(rounds[0]):
        return rounds[0]
    chosen = qualification.next_qualifying(member, project, handed_to(user))
    if chosen is not None:
        return _lease(chosen, user, project, Assignment.Drawn.RANKED, may_have_begun=True)
    work = [assignment for assignment in expired if assignment not in rounds]
    if not qualification.finish_qualification(member, project):
        return None
    return _take(user, project, member, work, wait=wait)


def _take(
    user: User,
    project: Project,
    member: Membership | None,
    expired: list[Assignment],
    *,
    wait: bool,
) -> Assignment | None:
    if limit_reached(user, project, member):
        return None
    expired = [assignment for assignment in expired if is_wanted(user, assignment)]
    if expired and _renew_expired(expired[0]):
        return expired[0]
    at_random = not wait and random.SystemRandom().random() < project.random_share
    drawn = Assignment.Drawn.RANDOM if at_random else Assignment.Drawn.RANKED
    # All waiting searches use one order, to avoid a deadlock.
    skills = sorted(_skills(member)) if wait else _skills(member)
    queues = {
        batch: [_queue(user, batch, skill, at_random=at_random) for skill in skills]
        for batch in _batches(project, member)
    }
    first = _first_free(queues, "wait" if wait else "skip")
    if first is None:
        if not wait and connection.features.has_select_for_update:
            raise AllLocked
        return None
    batch, comparison = first
    if member is not None and project.gold_every:
        chosen = gold_mixing.work_or_gold(comparison, member, project)
        if chosen is not comparison:
            comparison, drawn = chosen, Assignment.Drawn.RANKED
    comparison.batch = batch
    return _lease(comparison, user, project, drawn, may_have_begun=bool(expired))


def _renew_expired(expired: Assignment) -> bool:
    """Renew the lease of an expired assignment; False if its place is taken."""
    if not renew(expired):
        return False
    # The earliest lease is shown first, also after a reload.
    expired.leased_at = timezone.now()
    expired.save(update_fields=["leased_at"])
    return True


def could_judge(member: Membership) -> QuerySet[Comparison]:
    """Comparisons of open batches that this person could get, ignoring free places and limits."""
    could = Comparison.objects.filter(
        batch__in=_batches(member.project, member), skill__in=_skills(member)
    )
    if member.user.harmful_material == User.HarmfulMaterial.AVOID:
        could = could.filter(HARMLESS)
    return could.exclude(handed_to(member.user_id))


def _queue(user: User, batch: Batch, skill: str, *, at_random: bool = False) -> Queue:
    avoid_harm = user.harmful_material == User.HarmfulMaterial.AVOID
    return Queue(user.pk, batch.pk, skill, at_random=at_random, avoid_harm=avoid_harm)


def _first_free(
    queues: Mapping[Batch, list[Queue]], locking: Locking
) -> tuple[Batch, Comparison] | None:
    """The first free comparison for this person, locked, with its batch."""
    unsure = []
    for batch, each in queues.items():
        for queue in _queues_by_head(each) if locking == "skip" else each:
            result = queue.first(locking, is_thorough=locking == "wait")
            if result.head is not None:
                return batch, result.head
            if not result.is_sure:
                unsure.append((batch, queue))
    # Only a search from the start can tell that no comparison is left.
    for batch, queue in unsure:
        comparison = queue.first(locking, is_thorough=True).head
        if comparison is not None:
            return batch, comparison
    return None


def _queues_by_head(queues: list[Queue]) -> list[Queue]:
    """The queues of one batch in the order of their first comparisons."""
    if len(queues) == 1:
        return queues
    heads, unsure = [], []
    for queue in queues:
        head, is_sure = queue.first("")
        if head is not None:
            rank = () if queue.at_random else (-head.priority, -head.score)
            heads.append((*rank, head.shuffle, head.pk, queue))
        elif not is_sure:
            unsure.append(queue)
    return [queue for *_, queue in sorted(heads, key=lambda head: head[:-1])] + unsure


def _lease(
    comparison: Comparison, user: User, project: Project, drawn: str, *, may_have_begun: bool
) -> Assignment:
    """Lease a locked comparison to this person, with a random order of its responses."""
    count(comparison, taken=1)
    assignment = None
    if may_have_begun:
        # An expired assignment keeps its row, as its draft refers to the order that was shown.
        assignment = Assignment.objects.filter(comparison=comparison, annotator=user).first()
    if assignment is None:
        order = [response.pk for response in comparison.ordered_responses()]
        random.SystemRandom().shuffle(order)
        assignment = Assignment(
            comparison=comparison,
            annotator=user,
            shown_order=order,
            drawn=drawn,
            lease_until=project.lease_end(),
        )
        assignment.save(force_insert=True)
        return assignment
    assignment.comparison = comparison
    assignment.state, assignment.is_extra, assignment.drawn = State.LEASED, False, drawn
    assignment.leased_at = timezone.now()
    assignment.lease_until = project.lease_end()
    assignment.save(update_fields=["state", "is_extra", "drawn", "leased_at", "lease_until"])
    return assignment
