"""Launching a stage on this machine: the program, its environment, its log."""

import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

from django.conf import settings

from rlhf.launchers import processes
from rlhf.launchers.limits import Limits
from rlhf.models import Job
from rlhf.training import rundir
from rlhf.training.settings import FROZEN

Command = Callable[[Job, Path], list[str]]


def training_command(job: Job, run_dir: Path) -> list[str]:
    """The program that runs a stage in its run folder."""
    python = settings.TRAINING_PYTHON or sys.executable
    return [python, "-m", f"rlhf.training.{job.stage}", str(run_dir)]


def environment(job: Job) -> dict[str, str]:
    """The program's environment, without secrets. FROZEN marks the settings as frozen; only PPO gets
    the address of the rollout server."""
    variables: dict[str, str] = settings.TRAINING_ENVIRONMENT | {FROZEN: "1"}
    return variables | (settings.ROLLOUT_ENVIRONMENT if job.stage == "ppo" else {})


def launch(job: Job, run_dir: Path, command: Command = training_command) -> "Popen[bytes]":
    """Start the program of a job's stage within its limits; its output goes to the run folder's log."""
    limits = Limits.configured()
    with (run_dir / rundir.LOG).open("ab") as log:
        limits.hand_over(run_dir)
        return processes.start(
            command(job, run_dir),
            cwd=settings.BASE_DIR,
            env=environment(job),
            output=log,
            user=limits.user,
            in_child=limits.in_child(),
        )
