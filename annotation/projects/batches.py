"""Batches: comparisons are added, handed out to people, and closed; and how far each batch is."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, TypedDict

from django.db import transaction
from django.db.models import Count, Max, Min, Q, QuerySet, Sum
from django.utils import timezone

from annotation.judge.gold_mixing import add_gold
from annotation.judge.leases import release, release_all
from annotation.lib.text import storable
from annotation.models import (
    Assignment,
    Batch,
    Comparison,
    Event,
    Interface,
    Judgment,
    Project,
    Prompt,
    Response,
    User,
)
from annotation.protocols import RESPONSES

ROWS_AT_ONCE = 500
HOUR, WEEK = timedelta(hours=1), timedelta(days=7)
MOST_PEOPLE = 20


class BatchError(Exception):
    """Why an action on a batch is not possible now, in one sentence."""


@dataclass(frozen=True)
class ResponseText:
    """One response to be judged: its text, and what annotators never see (who wrote it and how)."""

    text: str
    source: str
    sampling: dict[str, Any] = field(default_factory=dict)
    logprob: float | None = None
    n_tokens: int | None = None


class Progress(TypedDict):
    """How far a batch is; `needed` and `judged` count judgments, not comparisons."""

    comparisons: int
    needed: int
    judged: int
    leased: int
    skipped: int
    extra: int
    people: int
    percent: int
    is_complete: bool
    per_hour: float | None
    """Pace of the last hour."""
    eta_seconds: float | None
    """Until the last judgment, at the pace of the last hour, or of the last week if the last hour has
    fewer than two judgments; None without a pace, and for a dialogue, which an admin closes."""
    pace_n: int
    """How many judgments that pace is based on."""
    is_pace_of_week: bool


def too_many_people(overlap: int) -> str:
    """Why so many people can't judge each comparison, "" if they can."""
    if overlap <= MOST_PEOPLE:
        return ""
    return (
        f"At most {MOST_PEOPLE} people judge one comparison, not {overlap}: more comparisons narrow "
        "an interval faster than more people for each, and a batch ends only when all have judged."
    )


def create_batch(
    project: Project,
    name: str,
    *,
    overlap: int | None = None,
    by: User | None = None,
    is_imported: bool = False,
) -> Batch:
    """Create a draft batch, to which comparisons are added before anybody sees them.

    `overlap` is how many people judge each comparison; the project's own unless given.
    """
    overlap = project.overlap if overlap is None else overlap
    if overlap < 1:
        raise BatchError(f"Each comparison needs at least 1 judgment; the overlap was {overlap}.")
    if problem := too_many_people(overlap):
        raise BatchError(problem)
    with transaction.atomic():
        batch = Batch.objects.create(
            project=project,
            name=name,
            overlap=overlap,
            is_imported=is_imported,
            # The batch keeps what people are asked, also when the project changes later.
            interface=Interface.RANK if is_imported else project.interface,
            protocol={} if is_imported else project.protocol,
        )
        Event.record(project, by, "created batch", name, batch=batch.pk, overlap=overlap)
    return batch


def add_comparisons(batch: Batch, rows: Iterable[tuple[Prompt, list[ResponseText]]]) -> int:
    """Add one comparison per prompt with its responses, all or none; how many were added.

    Raises BatchError for too few or too many responses, a prompt of another project, a duplicate
    prompt, or a closed batch.
    """
    ready = list(_checked(batch, rows))  # Outside the transaction: `rows` may read files.
    with transaction.atomic():
        state = Batch.objects.select_for_update().values_list("state", flat=True).get(pk=batch.pk)
        if state == Batch.State.CLOSED:
            raise BatchError(f"The batch {batch.name} is closed; create a new one.")
        compared = set(batch.comparisons.values_list("prompt_id", flat=True))
        duplicate = next((prompt for prompt, _ in ready if prompt.pk in compared), None)
        if duplicate is not None:
            raise BatchError(f"The batch already compares responses to “{duplicate}”.")
        pending = iter(ready)
        while chunk := list(islice(pending, ROWS_AT_ONCE)):
            comparisons = Comparison.objects.bulk_create(
                Comparison(
                    batch=batch,
                    prompt=prompt,
                    needed=batch.overlap,
                    skill=prompt.skill,
                    priority=prompt.priority,
                    shuffle=random.random(),  # noqa: S311 - an order, not a secret
                )
                for prompt, _ in chunk
            )
            Response.objects.bulk_create(
                Response(
                    comparison=comparison,
                    text=storable(response.text, "\ufffd"),
                    source=response.source,
                    sampling=response.sampling,
                    logprob=response.logprob,
                    n_tokens=response.n_tokens,
                )
                for comparison, (_, responses) in zip(comparisons, chunk, strict=True)
                for response in responses
            )
    return len(ready)


def open_batch(batch: Batch, by: User | None) -> Batch:
    """Hand it out to people. Opening an open batch changes nothing; a closed one may be reopened."""
    with transaction.atomic():
        batch = Batch.objects.select_for_update().get(pk=batch.pk)
        if batch.state == Batch.State.OPEN:
            return batch
        if not batch.comparisons.exists():
            raise BatchError(f"The batch {batch.name} has no comparisons yet.")
        batch.state, batch.closed_at = Batch.State.OPEN, None
        batch.opened_at = batch.opened_at or timezone.now()
        batch.save(update_fields=["state", "opened_at", "closed_at"])
        if batch.project.gold_every:
            add_gold(batch)
        Event.record(batch.project, by, "opened batch", batch.name, batch=batch.pk)
    return batch


def close_batch(batch: Batch, by: User | None) -> Batch:
    """Stop handing it out. Leases end; a judgment that arrives later is kept as an extra."""
    with transaction.atomic():
        batch = Batch.objects.select_for_update().get(pk=batch.pk)
        if batch.state == Batch.State.CLOSED:
            return batch
        batch.state, batch.closed_at = Batch.State.CLOSED, timezone.now()
        batch.save(update_fields=["state", "closed_at"])
        released = release_all(batch)
        Event.record(
            batch.project, by, "closed batch", batch.name, batch=batch.pk, released=released
        )
    return batch


def take_back(batch: Batch, annotator: User, by: User | None) -> int:
    """Free what a person holds in a batch, so that it can be handed to others; how many comparisons.

    What the person has entered stays as a draft. An answer that they send later is kept: it counts
    if its place is still free, and is an extra otherwise.
    """
    leased = Assignment.objects.open_for(annotator).filter(
        comparison__batch=batch, comparison__gold__isnull=True, is_ruling=False
    )
    # In one order everywhere, so that two such transactions can't wait for each other.
    assignments = list(leased.order_by("comparison_id"))
    for assignment in assignments:
        release(assignment)
    if assignments:
        Event.record(
            batch.project,
            by,
            "took back comparisons from",
            annotator.username,
            batch=batch.pk,
            n=len(assignments),
        )
    return len(assignments)


def batch_progress(batch: Batch) -> Progress:
    """How far the batch is, and when it will be done at the pace of its last hour or week."""
    totals = batch.comparisons.filter(gold__isnull=True).aggregate(
        comparisons=Count("pk"), places=Sum("needed"), done=Sum("judged")
    )
    needed, judged = totals["places"] or 0, totals["done"] or 0
    work = Assignment.objects.filter(comparison__batch=batch, comparison__gold__isnull=True)
    states = _states(work.filter(is_ruling=False))
    per_hour, n = _pace(batch, HOUR)
    pace, is_of_week = per_hour, False
    if pace is None:
        pace, n = _pace(batch, WEEK)
        is_of_week = pace is not None
    is_endless = batch.interface == Interface.DIALOGUE
    eta_seconds = None
    if pace is not None and not is_endless:
        eta_seconds = max(0, needed - judged) / pace * 3600
    return {
        "comparisons": totals["comparisons"],
        "needed": needed,
        "judged": judged,
        **states,  # type: ignore[typeddict-item]
        "percent": int(100 * judged / needed) if needed else 0,
        # A dialogue campaign has no last comparison: an admin closes it.
        "is_complete": needed > 0 and judged >= needed and not is_endless,
        "per_hour": per_hour,
        "eta_seconds": eta_seconds,
        "pace_n": n,
        "is_pace_of_week": is_of_week,
    }


class PersonProgress(TypedDict):
    """What one person has done in a batch; gold items and rulings are left out."""

    annotator: int
    judged: int
    leased: int
    held_since: datetime | None
    skipped: int
    extra: int
    last_at: datetime | None


def progress_by_person(batch: Batch) -> list[PersonProgress]:
    """Everybody to whom something of the batch was handed out, those who judged most first."""
    judged = Q(state=Assignment.State.JUDGED)
    leased = Q(state=Assignment.State.LEASED, lease_until__gte=timezone.now())
    rows = (
        Assignment.objects.filter(
            comparison__batch=batch, comparison__gold__isnull=True, is_ruling=False
        )
        .order_by()
        .values("annotator")
        .annotate(
            judged=Count("pk", filter=judged),
            leased=Count("pk", filter=leased),
            held_since=Min("leased_at", filter=leased),
            skipped=Count("pk", filter=Q(state=Assignment.State.SKIPPED)),
            extra=Count("pk", filter=judged & Q(is_extra=True)),
            last_at=Max("judgment__created_at"),
        )
        .order_by("-judged", "annotator")
    )
    return list(rows)


def progress_for_annotators(batch: Batch) -> Progress:
    """As `batch_progress`, in numbers that a gold comparison moves exactly as work does.

    Nobody can tell gold by what they count before and after they hold or answer a comparison. How
    many judgments are needed is left out, as gold needs none; with it goes all that follows from it.
    """
    per_hour, n = _pace(batch, HOUR, counts_gold=True)
    places = Q(state=Assignment.State.JUDGED, is_extra=False)
    votes = Assignment.objects.filter(comparison__batch=batch, is_ruling=False)
    return {
        "comparisons": batch.comparisons.count(),
        "needed": 0,
        "judged": votes.filter(places).count(),
        **_states(votes),  # type: ignore[typeddict-item]
        "percent": 0,
        "is_complete": False,
        "per_hour": per_hour,
        "eta_seconds": None,
        "pace_n": n,
        "is_pace_of_week": False,
    }


def _states(assignments: QuerySet[Assignment]) -> dict[str, int]:
    judged = Q(state=Assignment.State.JUDGED)
    leased = Q(state=Assignment.State.LEASED, lease_until__gte=timezone.now())
    states: dict[str, int] = assignments.aggregate(
        leased=Count("pk", filter=leased),
        skipped=Count("pk", filter=Q(state=Assignment.State.SKIPPED)),
        extra=Count("pk", filter=judged & Q(is_extra=True)),
        people=Count("annotator", distinct=True, filter=judged),
    )
    return states


def _pace(
    batch: Batch, window: timedelta, *, counts_gold: bool = False
) -> tuple[float | None, int]:
    """Judgments per hour from the first one of this window until now, and how many there are.

    None with fewer than two: one judgment has no pace.
    """
    now = timezone.now()
    judgments = Judgment.objects.current().filter(
        assignment__comparison__batch=batch,
        assignment__is_extra=False,
        assignment__is_ruling=False,
        created_at__gte=now - window,
    )
    if not counts_gold:
        judgments = judgments.filter(assignment__comparison__gold__isnull=True)
    recent = judgments.aggregate(n=Count("pk"), first=Min("created_at"))
    if recent["n"] < 2:
        return None, 0
    return recent["n"] / max((now - recent["first"]).total_seconds(), 1.0) * 3600, recent["n"]


def _checked(
    batch: Batch, rows: Iterable[tuple[Prompt, list[ResponseText]]]
) -> Iterator[tuple[Prompt, list[ResponseText]]]:
    seen: set[int] = set()
    fewest, most = RESPONSES[batch.effective_interface]
    for prompt, responses in rows:
        if prompt.project_id != batch.project_id:
            raise BatchError(f"The prompt “{prompt}” belongs to another project.")
        if prompt.pk in seen:
            raise BatchError(f"The prompt “{prompt}” appears twice.")
        if not fewest <= len(responses) <= most:
            allowed = f"{fewest} to {most}" if fewest < most else f"exactly {most}"
            raise BatchError(
                f"A comparison has {allowed} responses; “{prompt}” has {len(responses)}."
            )
        seen.add(prompt.pk)
        yield prompt, responses
