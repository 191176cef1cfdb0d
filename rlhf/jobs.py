"""One job from claim to outcome: claim → write the run folder → launch → watch → collect.

The row is the truth. A claim is a conditional update that adds one to `epoch`, and every later write
asks for that epoch, so a worker that lost its lease can change nothing any more. No transaction here
holds a file operation or a subprocess.
"""

import hashlib
import json
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from subprocess import Popen
from typing import Any

from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.db.models import Case, F, Q, Value, When
from django.db.models.functions import Coalesce, Now
from django.utils import timezone

from annotation.models import Event, User
from rlhf import processes
from rlhf.models import Job, Round, Worker
from rlhf.stages import STAGES, StageError
from rlhf.training import rundir
from rlhf.training.rundir.checkpoints import find_checkpoint
from rlhf.training.rundir.errors import DISK_FULL, InputError, is_disk_full
from rlhf.training.rundir.files import link_tree, read_json
from rlhf.training.rundir.process import EXIT_DONE, EXIT_INPUT
from rlhf.training.rundir.reports import read_error, read_progress, read_result
from rlhf.training.settings import FROZEN

State = Job.State

POLL_SECONDS = 0.2
PROGRESS_SECONDS = 1.0
RETRY_SECONDS = 2.0
ROOM = 2**20
"""Bytes: a process that ended without a word on a disk with less room than this had none."""

Then = Callable[[Job], Any]
Command = Callable[[Job, Path], Sequence[str]]


class JobError(Exception):
    """What can't be done with a job now, in one sentence for a person."""


class Lost(Exception):
    """This claim is over: the lease ran out and somebody else may have the job."""


# --- Acts of people and of rounds -------------------------------------------------------------


def enqueue(round: Round, stage: str) -> Job:
    """Put a stage's work on the queue; call it inside the transaction that makes it due."""
    if stage not in STAGES:
        raise JobError(f"There is no stage {stage!r} that a worker could do.")
    return Job.objects.create(project=round.project, round=round, stage=stage)


def request_cancel(job: Job, by: User | None, *, then: Then) -> bool:
    """Stop a job: a waiting one at once, a running one after it has written its checkpoint.

    False if it has ended already. `then` is told when the job ended here (see `run_next`).
    """
    now = timezone.now()
    with transaction.atomic():
        _hold_round(job)
        waiting = Job.objects.filter(pk=job.pk, state=State.QUEUED).update(
            state=State.CANCELLED,
            cancel_requested_at=now,
            ended_at=now,
            reason="Cancelled before it began.",
        )
        running = 0
        if not waiting:
            running = Job.objects.filter(
                pk=job.pk, state=State.RUNNING, cancel_requested_at=None
            ).update(cancel_requested_at=now)
        if waiting or running:
            Event.record(job.project, by, "asked to stop", job, job=str(job.uid))
        if waiting:
            job.refresh_from_db()
            then(job)
    return bool(waiting or running)


def due(queue: str) -> int:
    """How many jobs of a queue could be claimed now."""
    return int(_claimable(queue).count())


# --- The worker's side ------------------------------------------------------------------------


def training_command(job: Job, run_dir: Path) -> Sequence[str]:
    """The program that does a stage in its run folder."""
    python = settings.TRAINING_PYTHON or sys.executable
    return [python, "-m", f"rlhf.training.{job.stage}", str(run_dir)]


def environment(job: Job) -> dict[str, str]:
    """What the program gets to see of ours: that its settings are frozen; and PPO alone is told of
    the server for its rollouts."""
    known: dict[str, str] = settings.TRAINING_ENVIRONMENT | {FROZEN: "1"}
    return known | (settings.ROLLOUT_ENVIRONMENT if job.stage == "ppo" else {})


def run_next(
    queue: str,
    *,
    owner: str,
    then: Then,
    should_stop: Callable[[], bool] = lambda: False,
    command: Command = training_command,
) -> Job | None:
    """Take the oldest job that is due, do it, and record what came of it; None if none is due.

    `then(job)` is called in the transaction that ends the job (done, failed or cancelled) and makes
    what follows. `should_stop` is asked while a process runs: when it says yes, the process writes
    its checkpoint and the job goes back to the queue.
    """
    job = claim(queue, owner=owner)
    if job is None:
        return None
    worker_at(owner, job)
    try:
        _Claim(job, then, should_stop, command).carry_out()
    finally:
        worker_at(owner, None)
    job.refresh_from_db()
    return job


def claim(queue: str, *, owner: str) -> Job | None:
    """Make the oldest due job ours, under a new epoch, or None. Others may try at the same moment."""
    for pk in _claimable(queue).order_by("created_at", "id").values_list("pk", flat=True)[:20]:
        if _claim(pk, owner):
            return Job.objects.select_related("round", "project").get(pk=pk)
    return None


def _claimable(queue: str) -> Any:
    names = [name for name, stage in STAGES.items() if stage.queue == queue]
    last_chance = Q(state=State.RUNNING, attempt__gte=settings.JOB_MAX_ATTEMPTS - 1)
    return (
        Job.objects.claimable()
        .filter(stage__in=names, cancel_requested_at=None)
        .exclude(last_chance)
    )


def _claim(pk: int, owner: str) -> bool:
    # The count is believed: of those who try at the same moment, one is told 1.
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


def bury_lost(then: Then) -> list[Job]:
    """End jobs whose lease ran out and that nobody may take again: cancelled, or lost too often."""
    ended = []
    lost = Job.objects.filter(state=State.RUNNING, lease_until__lt=timezone.now())
    for job in lost.select_related("round", "project"):
        if job.cancel_requested_at is not None:
            state, reason = State.CANCELLED, "Stopped on request; its worker had died."
        elif job.attempt + 1 >= settings.JOB_MAX_ATTEMPTS:
            state = State.FAILED
            reason = (
                f"Its worker died {job.attempt + 1} times while at it (last {job.owner}); look at "
                "the machine's memory and at log.txt, then retry."
            )
        else:
            continue
        with transaction.atomic():
            _hold_round(job)
            buried = Job.objects.filter(
                pk=job.pk, state=State.RUNNING, epoch=job.epoch, lease_until__lt=timezone.now()
            ).update(state=state, attempt=F("attempt") + 1, reason=reason, ended_at=timezone.now())
            if buried:
                job.refresh_from_db()
                then(job)
                ended.append(job)
    return ended


def _hold_round(job: Job) -> None:
    """Lock the job's round until the transaction ends, always before the job itself.

    Whoever cancels a round locks in this order too; in different orders two would wait for each
    other for ever, and the database would end one of them.
    """
    Round.objects.select_for_update().filter(pk=job.round_id).first()


class _Claim:
    """One claim of one job: everything that is written asks for its epoch."""

    def __init__(
        self, job: Job, then: Then, should_stop: Callable[[], bool], command: Command
    ) -> None:
        self.job, self.then, self.command = job, then, command
        self.should_stop = should_stop
        self.stage = STAGES[job.stage]
        self.run_dir = job.run_dir
        self.lease = float(settings.JOB_LEASE_SECONDS)
        self.beaten_at = time.monotonic()
        self.progress: dict[str, Any] | None = None

    def carry_out(self) -> None:
        try:
            self._carry_out()
        except Lost:
            return
        except StageError as error:
            self._end(State.FAILED, str(error))
        except InputError as error:
            self._end(State.FAILED, str(error))
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the row must say so
            self._note(error)
            told = DISK_FULL if is_disk_full(error) else f"{type(error).__name__}: {error}"
            self._again_or_fail(told)

    def _carry_out(self) -> None:
        if self.stage.work is not None:
            with self._beating():
                result = self.stage.work(self.job)
                write = self.stage.collect(self.job, self.run_dir, result)
            self._done(result, write)
            return
        with self._beating():
            self._prepare()
        code: int | None = None
        asked_by = ""
        if read_result(self.run_dir) is None:
            code, asked_by = self._launch()
        if asked_by == "person":
            self._end(State.CANCELLED, "Stopped on request; its checkpoint is kept.", code)
            return
        found = read_result(self.run_dir)
        if code in (None, EXIT_DONE) and found is not None:
            with self._beating():
                write = self.stage.collect(self.job, self.run_dir, found)
            self._done(found, write)
        elif asked_by == "worker":
            self._back_to_the_queue("Its worker was stopped; it goes on from its checkpoint.", code)
        else:
            self._failed(code)

    # --- The run folder -----------------------------------------------------------------------

    def _prepare(self) -> None:
        """Write what the stage is given; go on from earlier work where the input is the same."""
        shutil.rmtree(self.run_dir, ignore_errors=True)
        (self.run_dir / rundir.DATA).mkdir(parents=True)
        assert self.stage.prepare is not None
        self.stage.prepare(self.job, self.run_dir)
        resume_from_earlier(self.run_dir, earlier_claims(self.job))
        self._write(input_sha256=input_hash(self.run_dir))

    # --- The process --------------------------------------------------------------------------

    def _launch(self) -> tuple[int, str]:
        """Run the program; its exit code and who asked it to stop: "person", "worker" or ""."""
        with (self.run_dir / rundir.LOG).open("ab") as log:
            process = processes.start(
                self.command(self.job, self.run_dir),
                cwd=settings.BASE_DIR,
                env=environment(self.job),
                output=log,
            )
        asked_by = ""
        try:
            self._write(process_id=process.pid)
            asked_by = self._watch(process)
        finally:
            grace = settings.JOB_STOP_GRACE_SECONDS if asked_by else 0.0
            with self._beating() if asked_by else _nothing():
                code = processes.stop(process, grace=grace)
        return code, asked_by

    def _watch(self, process: "Popen[bytes]") -> str:
        looked_at = 0.0
        while processes.wait(process, POLL_SECONDS) is None:
            if self.should_stop():
                return "worker"
            if time.monotonic() - looked_at < min(PROGRESS_SECONDS, self.lease / 6):
                continue
            looked_at = time.monotonic()
            try:
                if self._beat():
                    return "person"
            except DatabaseError:
                # The lease is still ours; if it runs out while the database can't be reached,
                # somebody else may hold the job by now.
                if time.monotonic() - self.beaten_at > self.lease:
                    raise Lost from None
                # A connection that a restart has cut stays dead: the next beat needs a new one.
                connection.close_if_unusable_or_obsolete()
        return ""

    def _beat(self) -> bool:
        """Tell the row that we live and how far we are; True if a person asked to stop."""
        progress = read_progress(self.run_dir)
        news = progress is not None and progress != self.progress
        if news or time.monotonic() - self.beaten_at >= self.lease / 6:
            fields: dict[str, Any] = {"lease_until": _lease_end(), "heartbeat_at": Now()}
            if news:
                fields["progress"] = progress
            self._write(**fields)
            self.progress = progress if news else self.progress
            self.beaten_at = time.monotonic()
        row = self._mine().values_list("cancel_requested_at").first()
        if row is None:
            raise Lost
        return row[0] is not None

    @contextmanager
    def _beating(self) -> Iterator[None]:
        """Keep the lease while this thread is busy with something that can't beat by itself."""
        stop = threading.Event()

        def keep() -> None:
            try:
                while not stop.wait(self.lease / 6):
                    try:
                        self._mine().update(lease_until=_lease_end(), heartbeat_at=Now())
                    except DatabaseError:
                        connection.close_if_unusable_or_obsolete()
            finally:
                connection.close()

        thread = threading.Thread(target=keep, name=f"lease of job {self.job.pk}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            self.beaten_at = time.monotonic()

    # --- What is written ----------------------------------------------------------------------

    def _mine(self) -> Any:
        return Job.objects.filter(pk=self.job.pk, epoch=self.job.epoch, state=State.RUNNING)

    def _write(self, **fields: Any) -> None:
        if not self._mine().update(**fields):
            raise Lost

    def _done(self, result: dict[str, Any], write: Callable[[], None]) -> None:
        """Outputs, state and the next job in one transaction; nothing at all if the claim is lost.

        Nor if somebody has asked to stop meanwhile: the result waits in the folder for a retry.
        """
        with transaction.atomic():
            _hold_round(self.job)
            done = self._mine().filter(cancel_requested_at=None)
            is_done = done.update(
                state=State.DONE,
                ended_at=Now(),
                metrics=result,
                progress=self._last_progress(),
                exit_code=0,
                reason="",
                lease_until=None,
            )
            if is_done:
                write()
                self._then()
        if not is_done:
            self._end(State.CANCELLED, "Stopped on request as it finished; its result is kept.", 0)
            return
        # What a stopped run would go on from (optimiser, rollouts) is several times the model's size.
        for attempt in Job.objects.filter(round=self.job.round_id, stage=self.job.stage):
            for checkpoint in attempt.run_dir.parent.glob(f"*/{rundir.CHECKPOINT}*"):
                shutil.rmtree(checkpoint, ignore_errors=True)

    def _end(self, state: str, reason: str, code: int | None = None, **fields: Any) -> None:
        try:
            with transaction.atomic():
                _hold_round(self.job)
                self._write(
                    state=state,
                    reason=reason,
                    exit_code=code,
                    ended_at=Now(),
                    lease_until=None,
                    **fields,
                )
                self._then()
        except Lost:
            return

    def _then(self) -> None:
        job = Job.objects.select_related("round__project", "project").get(pk=self.job.pk)
        self.then(job)

    def _back_to_the_queue(
        self, reason: str, code: int | None = None, *, wait: float = 0.0, attempt: int = 0
    ) -> None:
        """Let another claim go on, unless a person has asked to stop: nobody claims such a job."""
        waits = self._mine().filter(cancel_requested_at=None)
        if not waits.update(
            state=State.QUEUED,
            not_before=timezone.now() + timedelta(seconds=wait),
            reason=reason,
            exit_code=code,
            attempt=attempt or self.job.attempt,
            lease_until=None,
        ):
            self._end(State.CANCELLED, f"Stopped on request. {reason}", code)

    def _failed(self, code: int | None) -> None:
        error = read_error(self.run_dir) or {}
        kind, message = error.get("kind", ""), str(error.get("message", ""))
        if kind == "input" or code == EXIT_INPUT:
            self._end(State.FAILED, message or "The stage refused its input; see log.txt.", code)
        elif kind == "memory":
            self._again_or_fail(message, code, most=2)
        elif code is not None and code < 0:
            self._again_or_fail(f"The process was killed by signal {-code}.", code)
        elif not message and shutil.disk_usage(self.run_dir).free < ROOM:
            self._again_or_fail(DISK_FULL, code)
        elif not message:
            self._again_or_fail(
                f"The process ended with exit code {code} and left no result; see log.txt.", code
            )
        else:
            self._again_or_fail(message, code)

    def _again_or_fail(self, reason: str, code: int | None = None, *, most: int = 99) -> None:
        attempt = self.job.attempt + 1
        if attempt >= min(most, settings.JOB_MAX_ATTEMPTS):
            self._end(State.FAILED, reason, code, attempt=attempt)
            return
        self._back_to_the_queue(reason, code, wait=RETRY_SECONDS * attempt, attempt=attempt)

    def _last_progress(self) -> dict[str, Any]:
        return read_progress(self.run_dir) or {}

    def _note(self, error: Exception) -> None:
        """A traceback where the rest of the log is; the row only has room for a sentence."""
        import traceback

        with suppress(OSError):  # a full disk is told all the same
            self.run_dir.mkdir(parents=True, exist_ok=True)
            with (self.run_dir / rundir.LOG).open("a", encoding="utf-8") as log:
                log.write("".join(traceback.format_exception(error)))


@contextmanager
def _nothing() -> Iterator[None]:
    yield


# --- Folders ----------------------------------------------------------------------------------


def input_hash(run_dir: Path) -> str:
    """SHA-256 of the configuration and of everything in `data/`: what the stage was given."""
    return _hash(run_dir, [run_dir / rundir.CONFIG, *_data(run_dir)])


def _data(run_dir: Path) -> list[Path]:
    return sorted((run_dir / rundir.DATA).rglob("*"))


def _hash(run_dir: Path, files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        if path.is_file():
            digest.update(f"\0{path.relative_to(run_dir).as_posix()}\0".encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def earlier_claims(job: Job) -> Iterator[Path]:
    """Run folders in which the same work was begun on the same input, newest first.

    This job's earlier claims, then those of the jobs that stopped before a person tried the stage
    again.
    """
    given = _given(job.stage, job.run_dir)
    same = Job.objects.filter(round=job.round_id, stage=job.stage)
    for one in same.filter(pk__lte=job.pk).order_by("-pk"):
        last = one.epoch - 1 if one.pk == job.pk else one.epoch
        for epoch in range(last, 0, -1):
            folder = one.run_dir.with_name(str(epoch))
            if given and _given(job.stage, folder) == given:
                yield folder


def _given(stage: str, run_dir: Path) -> tuple[str, str] | None:
    """What a stage was given, to be compared; None where that can't be read (any more).

    The settings are compared as they are read and not as they were written: a setting that came
    with a new version is at its default in a folder of before.
    """
    config = STAGES[stage].config
    try:
        values = read_json(run_dir / rundir.CONFIG)
        if config is not None:
            values = config.from_dict(values, stored=True).to_dict()
    except (InputError, ValueError, TypeError):
        return None
    return json.dumps(values, sort_keys=True), _hash(run_dir, _data(run_dir))


def resume_from_earlier(run_dir: Path, claims: Iterable[Path]) -> None:
    """Take the last whole checkpoint of an earlier claim, or its finished work, into a new folder."""
    for old in claims:
        if read_result(old) is not None:
            # It had finished; only the news of it was lost.
            link_tree(old, run_dir)
            return
        try:
            checkpoint = find_checkpoint(old)
        except InputError:
            continue  # damaged, or its process is just putting a newer one in place
        if checkpoint is not None:
            # Under its name once it is whole: half of one would be taken for damage.
            beside = run_dir / f".{rundir.CHECKPOINT}.linked"
            link_tree(checkpoint, beside)
            beside.rename(run_dir / rundir.CHECKPOINT)
            if (old / rundir.METRICS).exists():
                # A copy: the old process may still be appending to its own file.
                shutil.copyfile(old / rundir.METRICS, run_dir / rundir.METRICS)
            return


# --- Workers ----------------------------------------------------------------------------------

SEEN_WITHIN = timedelta(seconds=30)


def this_worker(queues: str) -> str:
    """A name for this process that no other process has."""
    return f"{queues}@{socket.gethostname()}:{os.getpid()}"


def worker_seen(name: str, *, queues: str, version: str = "") -> None:
    """Say that a worker lives; makes its row the first time."""
    now = timezone.now()
    if not Worker.objects.filter(name=name).update(seen_at=now):
        Worker.objects.update_or_create(
            name=name, defaults={"queues": queues, "version": version, "seen_at": now}
        )


def worker_gone(name: str) -> None:
    """Take a worker's row away when it stops."""
    Worker.objects.filter(name=name).delete()


def forget_dead_workers() -> int:
    """Take away the rows of workers that have not been heard of for ten minutes."""
    silent = Worker.objects.filter(seen_at__lt=timezone.now() - timedelta(minutes=10))
    return int(silent.delete()[0])


def workers_alive(queue: str, *, idle: bool = False) -> list[Worker]:
    """Workers of a queue that were heard of lately; only those without a job if `idle`."""
    alive = Worker.objects.filter(seen_at__gte=timezone.now() - SEEN_WITHIN)
    if idle:
        alive = alive.filter(job=None)
    return [worker for worker in alive if queue in worker.queues.split(",")]


def worker_at(name: str, job: Job | None) -> None:
    """Say what a worker is at; None: it waits."""
    Worker.objects.filter(name=name).update(job=job, seen_at=timezone.now())
