"""Running one claimed job: write the run folder → launch → watch → collect.

No transaction here holds a file operation or a subprocess; what came of it is returned as an
`Outcome`, which `rounds.settle` records.
"""

import shutil
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from subprocess import Popen
from typing import Any, Literal

from django.conf import settings
from django.db import DatabaseError, connection

from annotation.lib.code_version import code_version
from annotation.lib.heartbeat import Heartbeat
from rlhf import jobs
from rlhf.errors import StageError
from rlhf.jobs import Lost, Outcome
from rlhf.launchers import local, processes
from rlhf.launchers.limits import Limits, Watch
from rlhf.models import Job
from rlhf.run_folders import earlier_claims, input_hash, resume_from_earlier
from rlhf.stages import STAGES
from rlhf.training import machine, rundir
from rlhf.training.rundir import log
from rlhf.training.rundir.errors import DISK_FULL, InputError, is_disk_full
from rlhf.training.rundir.process import EXIT_DONE, EXIT_INPUT
from rlhf.training.rundir.reports import read_error, read_progress, read_result

State = Job.State
StopReason = Literal["", "person", "worker", "limit"]

POLL_SECONDS = 0.2
PROGRESS_SECONDS = 1.0
RETRY_SECONDS = 2.0
MEMORY_ATTEMPTS = 2
FULL_DISK_BYTES = 2**20
"""With less free space than this, a missing error file means that the disk was full."""


def run(
    job: Job,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    command: local.Command = local.training_command,
) -> Outcome:
    """Do a claimed job and say what came of it; `Lost` if the claim is over.

    `should_stop` is asked while a process runs: when it says yes, the process writes its checkpoint
    and the job goes back to the queue.
    """
    with Heartbeat(
        lambda: jobs.renew_lease(job),
        every=settings.JOB_LEASE_SECONDS / 6,
        name=f"lease of job {job.pk}",
    ) as lease:
        try:
            outcome = _Run(job, lease, should_stop, command).outcome()
        except Lost:
            raise
        except Exception as error:  # noqa: BLE001 - the row must name every failure
            outcome = outcome_of_error(job, error)
        _log_outcome(job, outcome)
        return outcome


def outcome_of_error(job: Job, error: Exception) -> Outcome:
    """What an exception on this side means for the job: its input is refused, or another attempt."""
    if isinstance(error, StageError | InputError):
        return Outcome(State.FAILED, str(error))
    _write_traceback(job, error)
    is_full = is_disk_full(error)
    return _retry_or_fail(job, DISK_FULL if is_full else f"{type(error).__name__}: {error}")


class _Run:
    """One run of a claimed job, in its own run folder."""

    def __init__(
        self,
        job: Job,
        lease: Heartbeat,
        should_stop: Callable[[], bool],
        command: local.Command,
    ) -> None:
        self.job, self.lease = job, lease
        self.should_stop, self.command = should_stop, command
        self.stage = STAGES[job.stage]
        self.run_dir = job.run_dir
        self.progress: dict[str, Any] | None = None
        self.limit_reached = ""

    def outcome(self) -> Outcome:
        if self.stage.work is not None:
            _log(self.job, f"{self.job}: started by {_worker(self.job)}")
            done = self.stage.work(self.job)
            _log(self.job, f"result: {log.numbers_in_words(done)}")
            return self._collect(done)
        prepare_run_folder(self.job)
        exit_code: int | None = None
        stopped_by: StopReason = ""
        if read_result(self.run_dir) is None:
            exit_code, stopped_by = self._run_program()
        if stopped_by == "person":
            reason = "Stopped on request; its checkpoint is kept."
            return Outcome(State.CANCELLED, reason, exit_code)
        if stopped_by == "limit":
            return Outcome(State.FAILED, self.limit_reached, exit_code)
        result = read_result(self.run_dir)
        if exit_code in (None, EXIT_DONE) and result is not None:
            return self._collect(result)
        if stopped_by == "worker":
            reason = "Its worker was stopped; the next one resumes from its checkpoint."
            return Outcome(State.QUEUED, reason, exit_code)
        return outcome_of_exit(self.job, exit_code)

    def _collect(self, result: dict[str, Any]) -> Outcome:
        write = self.stage.collect(self.job, self.run_dir, result)
        progress = read_progress(self.run_dir) or {}
        if self.stage.prepare is not None:  # for estimates of later rounds on the same device
            result = result | {"device": machine.describe(settings.DATA_DIR).device}
        return Outcome(State.DONE, result=result, progress=progress, write=write)

    def _run_program(self) -> tuple[int, StopReason]:
        """Run the program to its end; its exit code and who asked it to stop."""
        process = local.launch(self.job, self.run_dir, self.command)
        stopped_by: StopReason = ""
        try:
            jobs.write(self.job, process_id=process.pid)
            stopped_by = self._watch(process)
        finally:
            grace = settings.JOB_STOP_GRACE_SECONDS if stopped_by else 0.0
            exit_code = processes.stop(process, grace=grace)
        return exit_code, stopped_by

    def _watch(self, process: "Popen[bytes]") -> StopReason:
        """Wait for the program's end, and report its progress; who asked it to stop."""
        checked_at = 0.0
        watch = Watch(Limits.configured(), process.pid, self.run_dir)
        lease_seconds = float(settings.JOB_LEASE_SECONDS)
        while processes.wait(process, POLL_SECONDS) is None:
            if self.should_stop():
                return "worker"
            if time.monotonic() - checked_at < min(PROGRESS_SECONDS, lease_seconds / 6):
                continue
            checked_at = time.monotonic()
            if reached := watch.exceeded():
                self.limit_reached = reached
                return "limit"
            try:
                if self._report_progress():
                    return "person"
            except DatabaseError:
                # The lease is still ours; if it runs out while the database can't be reached,
                # another worker may hold the job by now.
                if self.lease.seconds_since_renewal() > lease_seconds:
                    raise Lost from None
                # A connection that a restart has cut stays dead: the next check needs a new one.
                connection.close_if_unusable_or_obsolete()
        return ""

    def _report_progress(self) -> bool:
        """Write how far the program is; True if a person asked to stop. `Lost` if the claim is over."""
        progress = read_progress(self.run_dir)
        if progress is not None and progress != self.progress:
            jobs.write(self.job, progress=progress)
            self.progress = progress
        row = jobs.claimed(self.job).values_list("cancel_requested_at").first()
        if row is None:
            raise Lost
        return row[0] is not None


def prepare_run_folder(job: Job) -> None:
    """Write what the stage is given; resume from earlier work where the input is the same."""
    prepare = STAGES[job.stage].prepare
    assert prepare is not None
    shutil.rmtree(job.run_dir, ignore_errors=True)
    (job.run_dir / rundir.DATA).mkdir(parents=True)
    _log(job, f"{job}: claimed by {_worker(job)}, claim {job.epoch}, code {code_version()}")
    prepare(job, job.run_dir)
    _log(job, f"input written: {_sizes(job.run_dir)}")
    if earlier := resume_from_earlier(job.run_dir, earlier_claims(job)):
        _log(job, f"resumes from what claim {earlier.name} left")
    jobs.write(job, input_sha256=input_hash(job.run_dir))


def outcome_of_exit(job: Job, exit_code: int | None) -> Outcome:
    """The outcome of a job whose program ended without a result: retry or failure."""
    error = read_error(job.run_dir) or {}
    kind, message = error.get("kind", ""), str(error.get("message", ""))
    if kind == "input" or exit_code == EXIT_INPUT:
        reason = message or "The stage refused its input; see log.txt."
        return Outcome(State.FAILED, reason, exit_code)
    if kind == "memory":
        return _retry_or_fail(job, message, exit_code, max_attempts=MEMORY_ATTEMPTS)
    if exit_code is not None and exit_code < 0:
        message = f"The process was killed by signal {-exit_code}."
    elif not message and shutil.disk_usage(job.run_dir).free < FULL_DISK_BYTES:
        message = DISK_FULL
    elif not message:
        message = f"The process ended with exit code {exit_code} and without a result; see log.txt."
    return _retry_or_fail(job, message, exit_code)


def _retry_or_fail(
    job: Job, reason: str, exit_code: int | None = None, *, max_attempts: int | None = None
) -> Outcome:
    attempt = job.attempt + 1
    limit = settings.JOB_MAX_ATTEMPTS
    if attempt >= (limit if max_attempts is None else min(max_attempts, limit)):
        return Outcome(State.FAILED, reason, exit_code, attempt)
    return Outcome(State.QUEUED, reason, exit_code, attempt, wait_seconds=RETRY_SECONDS * attempt)


def _write_traceback(job: Job, error: Exception) -> None:
    """Append the traceback to the log; the job's row has one sentence only."""
    _log(job, "".join(traceback.format_exception(error)), "ERROR")


def _log(job: Job, message: str, level: str = "INFO") -> None:
    """Append to the log of the job's claim."""
    with suppress(OSError):  # the disk is full: the row's reason names it
        log.append(job.run_dir, message, level)


def _log_outcome(job: Job, outcome: Outcome) -> None:
    code = "" if outcome.exit_code is None else f", exit code {outcome.exit_code}"
    reason = f": {outcome.reason}" if outcome.reason else ""
    level = "INFO" if outcome.state == State.DONE else "WARNING"
    _log(job, f"{job}: {State(outcome.state).value}{code}{reason}", level)


def _worker(job: Job) -> str:
    return job.owner or "a worker"


def _sizes(run_dir: Path) -> str:
    """`config.json 2.1 kB, prompts.jsonl 80.2 kB`."""
    files = [run_dir / rundir.CONFIG, *sorted((run_dir / rundir.DATA).rglob("*"))]
    return ", ".join(f"{p.name} {p.stat().st_size / 1e3:,.1f} kB" for p in files if p.is_file())
