"""Guidelines and their versions: changed by an admin, shown as a difference to whoever judges, once.

A judgment notes the version that it was made under. After a change a share of what was judged can be
judged by one more person, which shows how far the new words move people.
"""

import math
import random
from dataclasses import dataclass

from django.db import transaction
from django.db.models import Exists, OuterRef, Q

from annotation.judge.assignment import could_judge, count, lock
from annotation.judge.gold import must_qualify
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
class Change:
    """What is new for one person: from the version that they know to the one in force."""

    known: int
    version: int
    html: str


@transaction.atomic
def change_guidelines(project: Project, text: str, *, by: User | None, share: float = 0.0) -> int:
    """Put new guidelines in force as the next version; how many comparisons are judged once more.

    `share`, 0 to 1, of those judged in open batches is judged by one more person, drawn at random.
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
    again = judge_again(project, share)
    Event.record(
        project,
        by,
        "changed guidelines",
        f"version {project.guideline_version}",
        judged_again=again,
    )
    return again


def judge_again(project: Project, share: float) -> int:
    """Ask one more person for a random share of the comparisons that have been judged; how many.

    Only in open batches, only where nobody's place is still free, and only where somebody is left
    who has not had it and who judges here: a place that nobody fills keeps a batch open for ever.
    """
    judged = Comparison.objects.filter(
        batch__project=project,
        batch__state=Batch.State.OPEN,
        judged__gt=0,
        is_free=False,
        is_live=False,  # What was said in a dialogue is judged by who said it.
    )
    n, wanted = judged.count(), set[int]()
    for member in _judges(project):
        if len(wanted) == n:
            break
        wanted.update(could_judge(member).filter(pk__in=judged).values_list("pk", flat=True))
    drawn = sorted(random.SystemRandom().sample(sorted(wanted), math.ceil(share * len(wanted))))
    for pk in drawn:  # In one order everywhere, so that two transactions can't wait for each other.
        comparison = lock(pk)
        comparison.needed += 1
        comparison.save(update_fields=["needed"])
        count(comparison)
    return len(drawn)


def _judges(project: Project) -> list[Membership]:
    """Whose work judging is: annotators, and whoever else has judged here of their own accord."""
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


def news_for(membership: Membership) -> Change | None:
    """What changed since this person last looked; None if nothing did.

    Whoever comes for the first time has nothing to compare with: they begin with what is in force.
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
    return Change(known, version, word_diff(before.text, project.guidelines))


def mark_seen(membership: Membership, version: int) -> None:
    """This person has read what changed up to `version`; going back is not possible."""
    Membership.objects.filter(pk=membership.pk, guidelines_seen__lt=version).update(
        guidelines_seen=min(version, membership.project.guideline_version)
    )
