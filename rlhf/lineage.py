"""Every model of a project with where it came from, what it was measured at, and where it is."""

from collections.abc import Sequence
from dataclasses import dataclass

from annotation.models import Project
from rlhf import charts, dashboard, tables
from rlhf.models import Checkpoint

Kind = Checkpoint.Kind
STATE_BADGES = {"promoted": "go", "refused": "no-go", "candidate": "live"}
PARTS = {Kind.REWARD_MODEL: "train", Kind.TEST_REWARD_MODEL: "test"}


@dataclass(frozen=True)
class Model:
    """One version of a model for a page: `told` is what it was measured at, with intervals."""

    row: Checkpoint
    told: list[str]

    @property
    def badge(self) -> str:
        return STATE_BADGES.get(self.row.state, "")

    @property
    def is_promoted(self) -> bool:
        return self.is_policy and self.row.state == Checkpoint.State.PROMOTED

    @property
    def is_policy(self) -> bool:
        return self.row.kind == Kind.POLICY


def models(project: Project) -> list[Model]:
    """All of the project's models, the newest first, in a number of queries that does not grow."""
    rows = Checkpoint.objects.filter(project=project).order_by("-created_at", "-pk")
    rows = rows.select_related("parent", "round", "snapshot")
    wins = _win_rates(project)
    found = []
    for row in rows:
        if row.round is not None:
            row.round.project = project  # its address names the project
        told = wins.get(row.pk, []) if row.kind == Kind.POLICY else _accuracies(row)
        found.append(Model(row, told))
    return found


def _win_rates(project: Project) -> dict[int, list[str]]:
    """{policy: sentences} of what its own round measured."""
    names = {"win_rate_vs_base": "the base", "win_rate_vs_previous": "the round before"}
    e = dashboard.evidence(project, metrics=tuple(names))
    return {
        measured.round.policy_id: [
            f"preferred to {name} {charts.in_words(measured.figures[metric], percent=True)} "
            f"({dashboard.JUDGES[e.judge]}, temperature {e.temperature:g})"
            for metric, name in names.items()
            if metric in measured.figures
        ]
        for measured in e.rounds
        if measured.round.policy_id is not None
    }


def _accuracies(row: Checkpoint) -> list[str]:
    """How often a reward model agrees with people on pairs that it has not seen, by axis."""
    told = row.metrics.get(PARTS.get(Kind(row.kind), "")) if isinstance(row.metrics, dict) else None
    found: Sequence[tuple[str, object]] = list(told.items()) if isinstance(told, dict) else []
    figures = [(a, tables.figure_in(one, "accuracy", "accuracy_ci", "n")) for a, one in found]
    return [
        f"right on {charts.in_words(figure, percent=True)} held-out {axis} pairs"
        for axis, figure in figures
        if figure is not None
    ]
