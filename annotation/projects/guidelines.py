"""Guidelines and their versions: an admin changes them, and each annotator sees the difference once.

A judgment records the version that it was made under. After a change, a share of the judged
comparisons can be judged by one more person, which shows how much the new text changes judgments.
"""

import math
import random
from dataclasses import dataclass

from django.db import transaction
from django.db.models import Exists, OuterRef, Q

from annotation.judge.assignment import could_judge
from annotation.judge.leases import count, lock
from annotation.judge.qualification import must_qualify
from annotation.lib.word_diff import word_diff
from annotation.models import (
    Assignment,
    Batch,
    Comparison,
    Event,
    GuidelineVersion,
    Membership,
    Project,
    User,
)


@dataclass(frozen=True)
class GuidelineChange:
    """The difference between the version that one person knows and the current one, as HTML."""

    known: int
    version: int
    html: str


@transaction.atomic
def change_guidelines(project: Project, text: str, *, by: User | None, share: float = 0.0) -> int:
    """Save new guidelines as the next version; how many comparisons are judged once more.

    A random `share`, 0 to 1, of the comparisons judged in open batches is judged by one more person.
    The same text changes nothing.
    """
    project = Project.objects.lock(project.pk)
    if text == project.guidelines:
        return 0
    GuidelineVersion.objects.get_or_create(
        project=project,
        version=project.guideline_version,
        defaults={"text": project.guidelines, "created_at": project.created_at},
    )
    project.guidelines, project.guideline_version = text, project.guideline_version + 1
    project.save(update_fields=["guidelines", "guideline_version"])
    GuidelineVersion.objects.create(
        project=project, version=project.guideline_version, text=text, created_by=by
    )
    n_again = request_reannotation(project, share)
    Event.record(
        project,
        by,
        "changed guidelines",
        f"version {project.guideline_version}",
        judged_again=n_again,
    )
    return n_again


def request_reannotation(project: Project, share: float) -> int:
    """Ask one more person to judge a random share of the judged comparisons; how many.

    Only in open batches, only where no place is still free, and only where another annotator of the
    project could judge it: a place that nobody can take would keep a batch open without end.
    """
    judged = Comparison.objects.filter(
        batch__project=project,
        batch__state=Batch.State.OPEN,
        judged__gt=0,
        is_free=False,
        is_live=False,  # Only its own participant judges a dialogue.
        exclusion__isnull=True,
    )
    n_judged, candidates = judged.count(), set[int]()
    for member in _annotators(project):
        if len(candidates) == n_judged:
            break
        candidates.update(could_judge(member).filter(pk__in=judged).values_list("pk", flat=True))
    n_drawn = math.ceil(share * len(candidates))
    drawn = sorted(random.SystemRandom().sample(sorted(candidates), n_drawn))
    for pk in drawn:  # Always in this order, so that two transactions can't deadlock.
        comparison = lock(pk)
        comparison.needed += 1
        comparison.save(update_fields=["needed"])
        count(comparison)
    return len(drawn)


def _annotators(project: Project) -> list[Membership]:
    """The members who judge: annotators, and reviewers and admins who have judged here before."""
    has_judged = Assignment.objects.filter(
        annotator=OuterRef("user"),
        comparison__batch__project=project,
        comparison__is_live=False,
        state=Assignment.State.JUDGED,
        is_ruling=False,
    )
    members = project.memberships.filter(
        Q(role=Membership.Role.ANNOTATOR)
        | Q(role__in=[Membership.Role.REVIEWER, Membership.Role.ADMIN]) & Exists(has_judged),
        user__is_active=True,
        paused_at=None,
    ).select_related("user", "project")
    failed = Membership.Qualification.FAILED
    return [
        member
        for member in members.order_by("pk")
        if not (must_qualify(member, project) and member.qualification == failed)
    ]


def unseen_change(membership: Membership) -> GuidelineChange | None:
    """What changed since this person last saw the guidelines; None if nothing did.

    A person who comes for the first time sees the current version, without a difference.
    """
    project = membership.project
    known, version = membership.guidelines_seen, project.guideline_version
    if not known:
        mark_seen(membership, version)
        return None
    if known >= version:
        return None
    before = GuidelineVersion.objects.filter(project=project, version=known).first()
    if before is None:
        return None
    return GuidelineChange(known, version, word_diff(before.text, project.guidelines))


def mark_seen(membership: Membership, version: int) -> None:
    """Record that this person has seen the guidelines up to `version`; it never decreases."""
    Membership.objects.filter(pk=membership.pk, guidelines_seen__lt=version).update(
        guidelines_seen=min(version, membership.project.guideline_version)
    )
