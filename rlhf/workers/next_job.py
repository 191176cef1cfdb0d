"""One step of a worker: claim a job, run it, record what came of it."""

from collections.abc import Callable

from rlhf import job_run, jobs, rounds
from rlhf.launchers import local
from rlhf.models import Job
from rlhf.run_folders import remove_checkpoints
from rlhf.workers.presence import set_job


def run_next_job(
    queue: str,
    *,
    owner: str,
    should_stop: Callable[[], bool] = lambda: False,
    command: local.Command = local.training_command,
) -> Job | None:
    """Take the oldest job that is due, run it, record its outcome; None if no job is due.

    What becomes of the job (`state` of the row that is returned):

    - done: its outputs and the round's next job are written in the same transaction.
    - failed: its input was refused, or it broke JOB_MAX_ATTEMPTS times; the round fails with it.
    - cancelled: a person asked to stop; the round can be retried from its checkpoint.
    - queued: it broke, or this worker stops; another claim resumes from its checkpoint.
    - running: this claim was lost, and nothing was written.
    """
    job = jobs.claim(queue, owner=owner)
    if job is None:
        return None
    set_job(owner, job)
    try:
        _settle(job, job_run.run(job, should_stop=should_stop, command=command))
    except jobs.Lost:
        pass
    finally:
        set_job(owner, None)
    job.refresh_from_db()
    if job.state == Job.State.DONE:
        remove_checkpoints(job)
    return job


def _settle(job: Job, outcome: jobs.Outcome) -> None:
    try:
        rounds.settle(job, outcome)
    except jobs.Lost:
        raise
    except Exception as error:  # noqa: BLE001 - the outputs can't be written: record it in the row
        rounds.settle(job, job_run.outcome_of_error(job, error))
