"""Every model of a project with its parent, its measurements and its files."""

from dataclasses import dataclass

from annotation.models import Project
from rlhf.dashboard.evidence import load_evidence
from rlhf.estimates import estimate_from, in_words
from rlhf.models import Checkpoint

Kind = Checkpoint.Kind
STATE_BADGES = {"promoted": "go", "refused": "no-go", "candidate": "live"}
PARTS = {Kind.REWARD_MODEL: "train", Kind.TEST_REWARD_MODEL: "test"}
"""Which part of the reward_model stage's metrics is about which kind of model."""


@dataclass(frozen=True)
class Model:
    """One version of a model for a page; `measurements` are sentences with intervals."""

    row: Checkpoint
    measurements: list[str]

    @property
    def badge(self) -> str:
        return STATE_BADGES.get(self.row.state, "")

    @property
    def is_promoted(self) -> bool:
        return self.is_policy and self.row.state == Checkpoint.State.PROMOTED

    @property
    def is_policy(self) -> bool:
        return self.row.kind == Kind.POLICY


def project_models(project: Project) -> list[Model]:
    """All of the project's models, newest first, in a constant number of queries."""
    rows = Checkpoint.objects.filter(project=project).order_by("-created_at", "-pk")
    win_rates = _win_rates(project)
    models = []
    for row in rows.select_related("parent", "round", "snapshot"):
        if row.round is not None:
            row.round.project = project  # its address names the project
        measurements = win_rates.get(row.pk, []) if row.kind == Kind.POLICY else _accuracies(row)
        models.append(Model(row, measurements))
    return models


def _win_rates(project: Project) -> dict[int, list[str]]:
    """`{policy id: sentences}` of each policy's own round."""
    opponents = {"win_rate_vs_base": "base", "win_rate_vs_previous": "previous round"}
    evidence = load_evidence(project, metrics=tuple(opponents))
    conditions = f"{evidence.judge_name}, temperature {evidence.temperature:g}"
    return {
        measured.round.policy_id: [
            f"Win rate against {opponent} "
            f"{in_words(measured.estimates[metric], percent=True)} ({conditions})"
            for metric, opponent in opponents.items()
            if metric in measured.estimates
        ]
        for measured in evidence.measured
        if measured.round.policy_id is not None
    }


def _accuracies(row: Checkpoint) -> list[str]:
    """A reward model's accuracy on held-out pairs, by axis."""
    part = row.metrics.get(PARTS.get(Kind(row.kind), "")) if isinstance(row.metrics, dict) else None
    axes = part.items() if isinstance(part, dict) else ()
    estimates = [(a, estimate_from(v, "accuracy", "accuracy_ci", "n")) for a, v in axes]
    return [
        f"Accuracy {in_words(estimate, percent=True)} held-out {axis} pairs"
        for axis, estimate in estimates
        if estimate is not None
    ]
