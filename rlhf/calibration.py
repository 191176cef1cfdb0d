"""When a model is measured on the workers' device, and what is known of it."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from annotation.models import Event, Project, User
from rlhf import jobs
from rlhf.computing_cost import calibration_of
from rlhf.models import Calibration, Checkpoint, Job, Worker

RETRY_AFTER = timedelta(hours=1)
"""A measurement that failed is not begun again by itself before this."""


@dataclass(frozen=True)
class Measuring:
    """Where the measurement of a project's policy stands, for the page."""

    calibration: Calibration | None
    job: Job | None
    """The last measurement's job."""
    is_wanted: bool
    """Whether opening the page should begin one."""

    @property
    def is_running(self) -> bool:
        return self.job is not None and not self.job.has_ended

    @property
    def progress(self) -> dict[str, Any]:
        return self.job.progress if self.job else {}

    @property
    def has_failed(self) -> bool:
        return self.job is not None and self.job.state == Job.State.FAILED


def measuring(project: Project) -> Measuring:
    """Where the measurement of the current policy stands on the workers' device."""
    policy = Checkpoint.objects.current_policy(project)
    machine = Worker.objects.compute_machine()
    calibration = calibration_of(policy, machine) if policy else None
    job = measurements(project).first()
    # Where stages have another Python, the workers don't know its versions.
    installed = "" if settings.TRAINING_PYTHON else machine.get("versions", "")
    is_outdated = bool(calibration and installed and calibration.versions != installed)
    recently_failed = (
        job is not None
        and job.state in (Job.State.FAILED, Job.State.CANCELLED)
        and job.created_at > timezone.now() - RETRY_AFTER
    )
    is_wanted = (
        bool(machine)
        and policy is not None
        and (calibration is None or is_outdated)
        and (job is None or job.has_ended)
        and not recently_failed
        and project.rounds.exists()
    )
    return Measuring(calibration, job, is_wanted)


def measure(project: Project, by: User | None) -> Job | None:
    """Have a worker measure the current policy; None if it is measured, or being measured."""
    with transaction.atomic():
        Project.objects.lock(project.pk)
        if not measuring(project).is_wanted:
            return None
        policy = Checkpoint.objects.current_policy(project)
        assert policy is not None
        job = jobs.enqueue(policy.round or project.rounds.latest("number"), "calibrate")
        Event.record(project, by, "asked to measure", policy, job=str(job.uid))
    return job


def measurements(project: Project) -> QuerySet[Job]:
    """The project's measuring jobs, newest first."""
    return Job.objects.filter(project=project, stage="calibrate").order_by("-created_at", "-pk")
