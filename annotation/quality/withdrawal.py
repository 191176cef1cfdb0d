"""A person takes their judgments back: none of them is used again, and what was made of them is named."""

from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from annotation.data.containing import versions_with
from annotation.data.deprecation import deprecate
from annotation.data.freezing import freeze
from annotation.data.snapshot_files import SnapshotError
from annotation.data.snapshot_options import SnapshotOptions
from annotation.judge.leases import release
from annotation.models import (
    Assignment,
    Batch,
    Comparison,
    Event,
    Freezing,
    Judgment,
    Membership,
    Project,
    ReviewCase,
    Snapshot,
    User,
    Withdrawal,
)
from annotation.quality.assessment import reliability_of

REASON = "Withdrawn by the person who made it."


@dataclass(frozen=True)
class Withdrawn:
    """What a withdrawal did: its row, the version made without the person, or why there is none."""

    withdrawal: Withdrawal
    made: Snapshot | Freezing | None
    why_none: str = ""


def withdraw(project: Project, person: User, by: Any, note: str = "") -> Withdrawn:
    """Exclude all judgments of a person for good, deprecate the versions that hold them, and freeze one
    without them.

    A second withdrawal of the same person adds what was judged since. The person gets no more work in
    this project.
    """
    # Versions never change, so they are searched before anything is locked.
    versions = versions_with(project, person)
    with transaction.atomic():
        Project.objects.lock(project.pk)
        n = _exclude_all(project, person)
        _stop_working(project, person)
        withdrawal, _ = Withdrawal.objects.get_or_create(
            project=project, person=person, defaults={"created_by": by}
        )
        withdrawal.n_judgments += n
        withdrawal.note = note.strip()[:200] or withdrawal.note
        withdrawal.versions = {str(version): n_rows for version, n_rows in versions.items()}
        withdrawal.save()
        # The log names no person: it outlives the account.
        Event.record(project, by, "withdrew a person's judgments", f"{n} judgments")
    holding = project.snapshots.filter(version__in=[int(v) for v in withdrawal.versions])
    made, why_none = _freeze_without(holding.order_by("-version").first(), by)
    if isinstance(made, Snapshot):
        withdrawal.new_version = made
        withdrawal.save(update_fields=["new_version"])
    for snapshot in holding:
        _deprecate(snapshot, by, withdrawal, made)
    return Withdrawn(withdrawal, made, why_none)


def people_who_judged(project: Project) -> QuerySet[User]:
    """Everybody who judged in this project, members or not."""
    judged = Judgment.objects.of_project(project).values("assignment__annotator")
    return User.objects.filter(pk__in=judged)


def models_trained_on(withdrawal: Withdrawal) -> list[tuple[Snapshot, int, list[Any]]]:
    """Each version that holds judgments of the person, how many of its rows rest on them, and the
    models that were trained on it."""
    versions = withdrawal.project.snapshots.filter(
        version__in=[int(version) for version in withdrawal.versions]
    )
    # rlhf's rows, through their reverse relation: annotation's code knows nothing of them.
    return [
        (
            snapshot,
            withdrawal.versions[str(snapshot.version)],
            list(snapshot.checkpoints.all()),
        )
        for snapshot in versions.prefetch_related("checkpoints").order_by("version")
    ]


def _exclude_all(project: Project, person: User) -> int:
    """Exclude each judgment, and reopen the cases that rest on a ruling of this person."""
    own = Judgment.objects.of_project(project).filter(assignment__annotator=person)
    ruled = Comparison.objects.filter(
        assignments__annotator=person, assignments__is_ruling=True, batch__project=project
    )
    ruled_pks = list(ruled.values_list("pk", flat=True))
    Comparison.objects.filter(pk__in=ruled_pks).update(is_ruled=False)
    ReviewCase.objects.filter(comparison__in=ruled_pks).update(state=ReviewCase.State.OPEN)
    pks = list(own.filter(excluded_at__isnull=True).values_list("pk", flat=True))
    current = own.filter(pk__in=pks, current_for__isnull=False).count()
    Judgment.objects.filter(pk__in=pks).update(excluded_at=timezone.now(), excluded_reason=REASON)
    # A reason that an admin gave does not protect a judgment from being included again; this one does.
    own.exclude(pk__in=pks).filter(excluded_at__isnull=False).update(excluded_reason=REASON)
    return current


def _stop_working(project: Project, person: User) -> None:
    for assignment in Assignment.objects.open_for(person).filter(
        comparison__batch__project=project
    ):
        release(assignment)
    Membership.objects.filter(project=project, user=person, paused_at__isnull=True).update(
        paused_at=timezone.now(), paused_reason="You withdrew your judgments."
    )


def _freeze_without(last: Snapshot | None, by: Any) -> tuple[Snapshot | Freezing | None, str]:
    """A version as the last one that holds such judgments was asked for; why there is none."""
    if last is None:
        return None, "No version holds judgments of this person."
    project, query = last.project, last.query
    batches = query.get("asked_batches")
    if batches is None and not query.get("all_batches", True):
        batches = [batch["id"] for batch in query["batches"]]
    rounds = query.get("rounds")
    options = SnapshotOptions.of_query(query)
    try:
        made = freeze(
            project,
            by=by,
            batches=None if batches is None else list(Batch.objects.filter(pk__in=batches)),
            note=f"Version {last.version} without the judgments of a person who withdrew",
            rounds=None if rounds is None else {int(pk): n for pk, n in rounds.items()},
            options=options,
            quality=reliability_of(project) if options.votes == "consensus" else None,
        )
    except SnapshotError as error:
        return None, str(error)
    return made, ""


def _deprecate(
    snapshot: Snapshot, by: Any, withdrawal: Withdrawal, made: Snapshot | Freezing | None
) -> None:
    n = withdrawal.versions[str(snapshot.version)]
    rows = "1 of its rows rests" if n == 1 else f"{n} of its rows rest"
    instead = (
        f" Use version {made.version} instead."
        if isinstance(made, Snapshot)
        else " Use a later version instead."
        if made is not None
        else ""
    )
    if not snapshot.is_deprecated:
        deprecate(snapshot, by, f"{rows} on judgments that were withdrawn.{instead}")
