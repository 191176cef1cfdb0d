"""The number of judgments of a person in a project, and of waiting comparisons."""

from typing import Any

from annotation.judge.assignment import WAITING_COUNTED
from annotation.lib.days import last_midnight
from annotation.models import Batch, Judgment, Project, User, hot_queries


def judged_by(user: Any, project: Any) -> Any:
    return Judgment.objects.current().filter(
        assignment__annotator=user, assignment__comparison__batch__project=project
    )


def judged_today(user: User, project: Project) -> int:
    midnight = last_midnight()
    return hot_queries.count_judged_since(midnight, user.pk, project.pk)


def capped(n: int) -> int | str:
    """A number of waiting comparisons as text: those beyond WAITING_COUNTED are not counted."""
    return n if n < WAITING_COUNTED else f"{n}+"


def has_open_dialogues(project: Project) -> bool:
    """Whether a dialogue campaign is open, in which people talk to a policy."""
    is_open: bool = project.batches.filter(
        state=Batch.State.OPEN, dialogue_campaign__isnull=False
    ).exists()
    return is_open
