"""Qualification: items with known answers that an annotator must get right before they get work."""

from django.db import transaction
from django.db.models import Exists, QuerySet
from django.utils import timezone

from annotation.judge.gold_mixing import add_comparisons, avoids_harm
from annotation.judge.gold_scores import Tally, asked_measures, tallies
from annotation.models import Batch, Comparison, Event, GoldItem, Membership, Project, Prompt, User


def qualification_items(project: Project) -> list[GoldItem]:
    """The items of a qualification that begins now: marked for it, with a known answer to what is asked."""
    items = project.gold_items.filter(is_active=True, is_qualification=True)
    return [
        item
        for item in items
        if asked_measures(project.interface, project.effective_protocol, item.expected)
    ]


def must_qualify(membership: Membership, project: Project) -> bool:
    """Whether this person must qualify before they are handed work."""
    return bool(
        project.qualification_pass > 0
        and membership.role == Membership.Role.ANNOTATOR
        and not membership.may_know_gold
        and membership.qualification in ("", Membership.Qualification.FAILED)
        and not membership.user.is_simulated
    )


def next_qualifying(membership: Membership, project: Project, had: Exists) -> Comparison | None:
    """The next comparison of this person's qualification, None when there is none left."""
    if membership.qualification == Membership.Qualification.FAILED:
        return None
    left = _comparisons_of(membership, project).exclude(had)
    return left.select_related("batch__project", "prompt").order_by("shuffle").first()


def count_qualifying_left(membership: Membership, project: Project, had: Exists) -> int:
    if membership.qualification == Membership.Qualification.FAILED:
        return 0
    return int(_comparisons_of(membership, project).exclude(had).count())


def _comparisons_of(membership: Membership, project: Project) -> QuerySet[Comparison]:
    comparisons = Comparison.objects.filter(
        batch__project=project,
        batch__qualification=membership.attempt,
        batch__state=Batch.State.OPEN,
    )
    # A person who asked never to be given harmful material gets none here either.
    if avoids_harm(membership):
        return comparisons.exclude(prompt__risk=Prompt.Risk.HARMFUL)
    return comparisons


def finish_qualification(membership: Membership, project: Project) -> bool:
    """After the last answer: store the result; True if it was passed. Skipped items count as wrong."""
    if membership.qualification == Membership.Qualification.FAILED:
        return False
    n_items = _comparisons_of(membership, project).count()
    if not n_items:
        return False  # There is no batch for it yet; an admin must make one.
    right = tallies(project, attempt_of=membership).get(membership.user_id, Tally()).right
    passed = bool(100 * right >= project.qualification_pass * n_items)
    membership.qualification = (
        Membership.Qualification.PASSED if passed else Membership.Qualification.FAILED
    )
    membership.qualification_score = {
        "right": right,
        "of": n_items,
        "needed": project.qualification_pass,
        "attempt": membership.attempt,
        "at": timezone.now().isoformat(),
    }
    membership.save(update_fields=["qualification", "qualification_score"])
    if project.own_membership is not None and project.own_membership.pk == membership.pk:
        project.own_membership = membership
    Event.record(
        project,
        membership.user,
        "passed qualification" if passed else "failed qualification",
        membership.user,
        right=right,
        of=n_items,
    )
    return passed


def open_qualification(project: Project, attempt: int = 1) -> Batch | None:
    """The batch of a qualification attempt, made of the items marked for it if it is not there yet."""
    with transaction.atomic():
        Project.objects.lock(project.pk)
        existing = project.batches.filter(qualification=attempt).first()
        if existing is not None:
            return existing
        items = qualification_items(project)
        if not items:
            return None
        batch = Batch.objects.create(
            project=project,
            name="Qualification" if attempt == 1 else f"Qualification, attempt {attempt}",
            state=Batch.State.OPEN,
            opened_at=timezone.now(),
            qualification=attempt,
            overlap=1,
            interface=project.interface,
            protocol=project.protocol,
        )
        add_comparisons(batch, items)
    return batch


def give_another_attempt(membership: Membership, by: User) -> None:
    """Another attempt for a person who failed, with the same items. Twice gives one attempt."""
    with transaction.atomic():
        membership.refresh_from_db(from_queryset=Membership.objects.select_for_update())
        if membership.qualification != Membership.Qualification.FAILED:
            return
        membership.attempt += 1
        membership.qualification = Membership.Qualification.NONE
        membership.save(update_fields=["attempt", "qualification"])
        open_qualification(membership.project, membership.attempt)
        Event.record(
            membership.project, by, "gave another attempt", membership.user, n=membership.attempt
        )


def waive(membership: Membership, by: User, reason: str) -> None:
    """Let a person work without qualification."""
    with transaction.atomic():
        membership.qualification = Membership.Qualification.WAIVED
        membership.save(update_fields=["qualification"])
        Event.record(membership.project, by, "waived qualification", membership.user, reason=reason)
