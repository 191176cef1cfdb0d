"""Scoring by disagreement. Input: the comparisons that wait for judgments; output: a score for
each.

The stage is not in a round's plan: `rlhf/selection.py` decides when it runs.
"""

from pathlib import Path

from django.db.models import Q, QuerySet

from annotation.judge.selection import score_comparisons
from annotation.models import Batch, Comparison, Project
from annotation.protocols import COMPARING
from rlhf.errors import StageError
from rlhf.models import Checkpoint, Job
from rlhf.stages.stage import Row, Write, stage_config, written_config
from rlhf.training import configs, rundir
from rlhf.training.rundir.files import read_jsonl, write_jsonl
from rlhf.training.settings import save

MAX_SCORED = 20_000
"""The most comparisons that one job scores; of more, a random sample is scored, and the rest
later."""


def prepare_selection(job: Job, run_dir: Path) -> None:
    """Write the configuration with the newest ensemble, and the waiting comparisons."""
    model = newest_ensemble(job.project)
    if model is None:
        raise StageError("No reward model has several members.")
    waiting = waiting_comparisons(job.project).select_related("prompt")
    ages = policy_ages(job.project)
    rows = []
    for comparison in waiting.prefetch_related("responses").order_by("shuffle", "pk")[:MAX_SCORED]:
        responses = sorted(comparison.responses.all(), key=lambda response: response.pk)
        rows.append(
            {
                "comparison_id": str(comparison.pk),
                "messages": comparison.prompt.messages,
                "responses": [response.text for response in responses],
                "age": min((ages.get(response.source, 0) for response in responses), default=0),
            }
        )
    if not rows:
        raise StageError("No comparison waits for judgments any more.")
    config = stage_config(job.round, configs.SelectionConfig, "selection", reward_model=model.path)
    save(config, run_dir / rundir.CONFIG)
    write_jsonl(run_dir / rundir.DATA / "comparisons.jsonl", rows)


def collect_selection(job: Job, run_dir: Path, result: Row) -> Write:
    """Write the scores to the comparisons; `annotation` assigns high scores first."""
    rows = read_jsonl(run_dir / "scores.jsonl", required=("comparison_id", "score"))
    scores = {int(row["comparison_id"]): float(row["score"]) for row in rows}
    path = written_config(run_dir)["reward_model"]
    model = Checkpoint.objects.filter(project=job.project, path=path).first()
    by = str(model) if model else "reward model"

    def write() -> None:
        for batch in Batch.objects.filter(project=job.project, state=Batch.State.OPEN):
            free = set(batch.comparisons.filter(is_free=True).values_list("pk", flat=True))
            of_batch = {pk: score for pk, score in scores.items() if pk in free}
            if of_batch:
                score_comparisons(batch, of_batch, by=by)

    return write


def newest_ensemble(project: Project) -> Checkpoint | None:
    """The project's newest reward model with several members."""
    models = Checkpoint.objects.filter(project=project, kind=Checkpoint.Kind.REWARD_MODEL)
    return models.filter(config__members__gt=1).order_by("-created_at", "-pk").first()


def waiting_comparisons(project: Project) -> QuerySet[Comparison]:
    """The comparisons that may still be assigned and that ask which response is better."""
    return Comparison.objects.filter(
        Q(batch__interface__in=COMPARING)
        # A batch without its own interface has the project's.
        | Q(batch__interface="", batch__project__interface__in=COMPARING),
        batch__project=project,
        batch__state=Batch.State.OPEN,
        batch__qualification=None,
        is_free=True,
        is_live=False,
        gold=None,
    )


def policy_ages(project: Project) -> dict[str, int]:
    """The number of newer promoted policies, by the `Response.source` of a promoted policy."""
    promoted = Checkpoint.objects.promoted_policies(project)
    return {policy.response_source: age for age, policy in enumerate(promoted)}
