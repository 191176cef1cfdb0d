"""The queue of jobs: enqueue, claim, stop, end.

The row is the truth. A claim is a conditional update that adds one to `epoch`, and every later write
asks for that epoch, so a worker that lost its lease can change nothing any more. What a job's end
means for its round is decided in `rlhf/rounds.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Case, F, Q, QuerySet, Value, When
from django.db.models.functions import Coalesce, Now
from django.utils import timezone

from annotation.models import Event, User
from rlhf.models import Job, JobQuerySet, Round
from rlhf.stages import STAGES

State = Job.State


class Lost(Exception):
    """This claim is over: the lease ran out and another worker may have the job."""


@dataclass(frozen=True)
class Outcome:
    """What came of one claim, to be recorded.

    - `DONE`: the stage left its result; `write` writes its outputs to the database.
    - `FAILED`: trying again won't help, or it was tried often enough.
    - `CANCELLED`: a person asked to stop, and its checkpoint is written.
    - `QUEUED`: another claim goes on from its checkpoint, after `wait_seconds`.
    """

    state: str
    reason: str = ""
    exit_code: int | None = None
    attempt: int | None = None
    """How many attempts have ended badly by now; None leaves the number as it is."""
    wait_seconds: float = 0.0
    result: dict[str, Any] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)
    write: Callable[[], None] = lambda: None


# --- Waiting ----------------------------------------------------------------------------------


def enqueue(round: Round, stage: str) -> Job:
    """Put a stage's work on the queue; call it inside the transaction that makes it due."""
    assert stage in STAGES, f"no worker does {stage!r}"
    return Job.objects.create(project=round.project, round=round, stage=stage)


def due(queue: str) -> QuerySet[Job]:
    """The jobs of a queue that could be claimed now, oldest first."""
    names = [name for name, stage in STAGES.items() if stage.queue == queue]
    last_attempt = Q(state=State.RUNNING, attempt__gte=settings.JOB_MAX_ATTEMPTS - 1)
    claimable = Job.objects.claimable().filter(stage__in=names, cancel_requested_at=None)
    return claimable.exclude(last_attempt).order_by("created_at", "id")


# --- Claiming ---------------------------------------------------------------------------------


def claim(queue: str, *, owner: str) -> Job | None:
    """Claim the oldest due job under a new epoch; None if there is none. Safe against other workers."""
    for pk in due(queue).values_list("pk", flat=True)[:20]:
        if _claim_row(pk, owner):
            return Job.objects.select_related("round", "project").get(pk=pk)
    return None


def _claim_row(pk: int, owner: str) -> bool:
    # The conditional update is atomic: of several workers only one gets the count 1.
    updated = (
        Job.objects.claimable()
        .filter(pk=pk, cancel_requested_at=None)
        .update(
            state=State.RUNNING,
            epoch=F("epoch") + 1,
            # Running means that the last claim was lost, which is an attempt that ended badly.
            attempt=F("attempt") + Case(When(state=State.RUNNING, then=Value(1)), default=Value(0)),
            owner=owner[:120],
            lease_until=_lease_end(),
            heartbeat_at=Now(),
            started_at=Coalesce(F("started_at"), Now()),
            ended_at=None,
            process_id=None,
            exit_code=None,
            progress={},
            reason="",
        )
    )
    return bool(updated)


def _lease_end() -> Any:
    """By the database's clock, which is the same for all workers."""
    return Now() + Value(timedelta(seconds=settings.JOB_LEASE_SECONDS))


def claimed(job: Job) -> JobQuerySet:
    """The row, as long as it is still under this claim."""
    return Job.objects.filter(pk=job.pk, epoch=job.epoch, state=State.RUNNING)


def renew_lease(job: Job) -> None:
    """Keep a claimed job for another lease."""
    claimed(job).update(lease_until=_lease_end(), heartbeat_at=Now())


def write(job: Job, **fields: Any) -> None:
    """Write fields of a claimed job; `Lost` if the claim is over."""
    if not claimed(job).update(**fields):
        raise Lost


# --- Ending -----------------------------------------------------------------------------------


def lock_round(job: Job) -> None:
    """Lock the job's round until the transaction ends, always before the job itself.

    `rounds.cancel_round` locks in this order too: in different orders two transactions would wait
    for each other, and the database would end one of them.
    """
    Round.objects.select_for_update().filter(pk=job.round_id).first()


def record(job: Job, outcome: Outcome) -> bool:
    """Write a claim's outcome and outputs; returns whether the job has ended. `Lost` if the claim is.

    If a person has requested a stop meanwhile, the job is cancelled instead of done or requeued. A
    result stays in the run folder for a retry.
    """
    not_stopped = claimed(job).filter(cancel_requested_at=None)
    if outcome.state == State.DONE:
        is_done = not_stopped.update(
            state=State.DONE,
            ended_at=Now(),
            metrics=outcome.result,
            progress=outcome.progress,
            exit_code=0,
            reason="",
            lease_until=None,
        )
        if is_done:
            outcome.write()
        else:
            _end(job, State.CANCELLED, "Stopped on request as it finished; its result is kept.", 0)
        return True
    if outcome.state == State.QUEUED:
        attempt = job.attempt if outcome.attempt is None else outcome.attempt
        is_queued = not_stopped.update(
            state=State.QUEUED,
            not_before=timezone.now() + timedelta(seconds=outcome.wait_seconds),
            reason=outcome.reason,
            exit_code=outcome.exit_code,
            attempt=attempt,
            lease_until=None,
        )
        if is_queued:
            return False
        _end(job, State.CANCELLED, f"Stopped on request. {outcome.reason}", outcome.exit_code)
        return True
    _end(job, outcome.state, outcome.reason, outcome.exit_code, outcome.attempt)
    return True


def _end(
    job: Job, state: str, reason: str, exit_code: int | None, attempt: int | None = None
) -> None:
    fields = {} if attempt is None else {"attempt": attempt}
    write(
        job,
        state=state,
        reason=reason,
        exit_code=exit_code,
        ended_at=Now(),
        lease_until=None,
        **fields,
    )


def request_cancel(job: Job, by: User | None) -> bool:
    """Stop a job: a waiting one at once, a running one after it has written its checkpoint.

    False if it has ended already. `job` is refreshed.
    """
    now = timezone.now()
    with transaction.atomic():
        is_stopped = Job.objects.filter(pk=job.pk, state=State.QUEUED).update(
            state=State.CANCELLED,
            cancel_requested_at=now,
            ended_at=now,
            reason="Cancelled before it began.",
        ) or Job.objects.filter(pk=job.pk, state=State.RUNNING, cancel_requested_at=None).update(
            cancel_requested_at=now
        )
        if is_stopped:
            Event.record(job.project, by, "asked to stop", job, job=str(job.uid))
    job.refresh_from_db()
    return bool(is_stopped)


def end_expired(job: Job) -> bool:
    """End an expired job that may not be claimed again; False if it may, or if it has ended already.

    `job` is refreshed if this call ended it.
    """
    if job.cancel_requested_at is not None:
        state, reason = State.CANCELLED, "Stopped on request; its worker had died."
    elif job.attempt + 1 >= settings.JOB_MAX_ATTEMPTS:
        state = State.FAILED
        reason = (
            f"Its worker died {job.attempt + 1} times while it ran (last {job.owner}); look at the "
            "machine's memory and at log.txt, then retry."
        )
    else:
        return False
    expired = Job.objects.expired().filter(pk=job.pk, epoch=job.epoch)
    is_ended = expired.update(
        state=state, attempt=F("attempt") + 1, reason=reason, ended_at=timezone.now()
    )
    if is_ended:
        job.refresh_from_db()
    return bool(is_ended)
