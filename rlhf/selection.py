"""Starts the scoring of waiting comparisons by an ensemble; people judge those with the highest
disagreement first."""

from django.db import transaction
from django.db.models import QuerySet

from annotation.models import Event, Project, User
from rlhf import computing_cost, jobs
from rlhf.errors import RoundError
from rlhf.models import Job, Round
from rlhf.stages.selection import MAX_SCORED, newest_ensemble, waiting_comparisons


def select(round: Round) -> Job | None:
    """Let the newest ensemble score the waiting comparisons; None if there is nothing to score.

    The job belongs to the round but not to its plan: the round does not wait for the job.
    """
    project = round.project
    if newest_ensemble(project) is None or not waiting_comparisons(project).exists():
        return None
    if selections(project).filter(state=Job.State.QUEUED).exists():
        return None
    return jobs.enqueue(round, "selection")


def select_now(project: Project, by: User | None) -> Job:
    """`select` by an admin, also for batches without a round. RoundError if it is not possible."""
    with transaction.atomic():
        Project.objects.lock(project.pk)
        if reason := why_not_select(project):
            raise RoundError(reason)
        model = newest_ensemble(project)
        assert model is not None
        # The job belongs to the round that the model came from: it uses that round's settings.
        job = jobs.enqueue(model.round or project.rounds.latest("number"), "selection")
        Event.record(project, by, "asked to score comparisons with", model, job=str(job.uid))
    return job


def why_not_select(project: Project) -> str:
    """Why the waiting comparisons can't be scored now, in a sentence; "" if they can."""
    if newest_ensemble(project) is None:
        return (
            "No reward model has several members. Launch a round, or train reward models, with "
            "members of 2 or more."
        )
    if not project.rounds.exists():
        return "No round yet: build the base policy first."
    if not waiting_comparisons(project).exists():
        return "No comparison waits for judgments: open a batch first."
    if selections(project).filter(state__in=[Job.State.QUEUED, Job.State.RUNNING]).exists():
        return "Scoring is already running."
    return ""


def selections(project: Project) -> QuerySet[Job]:
    """The project's scoring jobs, newest first."""
    return Job.objects.filter(project=project, stage="selection").order_by("-created_at", "-pk")


def selection_cost(project: Project, n: int) -> str:
    """The estimated time of scoring `n` comparisons, in a sentence."""
    last = selections(project).filter(state=Job.State.DONE).first()
    return computing_cost.selection_cost(last, min(n, MAX_SCORED))
