"""Every model of a project: its state, its parent and descendants, its measurements."""

from collections.abc import Iterable
from dataclasses import dataclass

from annotation.models import Project
from rlhf.dashboard.evidence import load_evidence
from rlhf.estimates import estimate_from, in_words
from rlhf.models import Checkpoint, Round

Kind = Checkpoint.Kind
PARTS = {Kind.REWARD_MODEL: "train", Kind.TEST_REWARD_MODEL: "test"}
"""Which part of the reward_model stage's metrics is about which kind of model."""

STATES = {
    Checkpoint.State.CANDIDATE: ("experimental", "live"),
    Checkpoint.State.PROMOTED: ("replaced", ""),
    Checkpoint.State.REFUSED: ("rejected", "no-go"),
    Checkpoint.State.RETIRED: ("rolled back", ""),
}
"""{state: (what pages call it, badge)} of a policy that is not the current one."""


@dataclass(frozen=True)
class Model:
    """One version of a model for a page; `measurements` are sentences with intervals."""

    row: Checkpoint
    is_current: bool
    """Whether it is the policy that the next round starts from."""
    measurements: list[str]

    @property
    def state(self) -> str:
        """What pages call its state; "" for reward models, which nobody promotes."""
        if not self.is_policy:
            return ""
        return "current" if self.is_current else STATES[Checkpoint.State(self.row.state)][0]

    @property
    def badge(self) -> str:
        """The modifier of its badge in site.css."""
        return "go" if self.is_current else STATES[Checkpoint.State(self.row.state)][1]

    @property
    def is_promoted(self) -> bool:
        return self.is_policy and self.row.state == Checkpoint.State.PROMOTED

    @property
    def is_policy(self) -> bool:
        return self.row.kind == Kind.POLICY


def described(project: Project, rows: Iterable[Checkpoint]) -> list[Model]:
    """Models with their states, without measurements."""
    current = Checkpoint.objects.current_policy(project)
    models = []
    for row in rows:
        row.project = project  # their addresses name the project
        if row.round is not None:
            row.round.project = project
        models.append(Model(row, current is not None and row.pk == current.pk, []))
    return models


def project_models(project: Project) -> list[Model]:
    """All of the project's models, newest first, in a constant number of queries."""
    rows = Checkpoint.objects.filter(project=project).order_by("-created_at", "-pk")
    rows = rows.select_related("parent", "round", "snapshot")
    win_rates = _win_rates(project)
    models = []
    for model in described(project, rows):
        if model.row.parent is not None:
            model.row.parent.project = project
        measurements = win_rates.get(model.row.pk, []) if model.is_policy else accuracies(model.row)
        models.append(Model(model.row, model.is_current, measurements))
    return models


@dataclass(frozen=True)
class Step:
    """One generation of a model's lineage: the model and the reward models that it was trained with."""

    model: Model
    reward_models: list[Model]


def ancestry(model: Checkpoint) -> list[Step]:
    """From the base policy to the model itself."""
    project = model.project
    by_pk = {
        row.pk: row
        for row in Checkpoint.objects.filter(project=project).select_related("round", "snapshot")
    }
    chain: list[Checkpoint] = []
    row = by_pk.get(model.pk)
    while row is not None and row not in chain:
        chain.insert(0, row)
        row = by_pk.get(row.parent_id) if row.parent_id else None
    judges: dict[int, list[Checkpoint]] = {}
    for other in by_pk.values():
        if other.kind != Kind.POLICY and other.round_id is not None:
            judges.setdefault(other.round_id, []).append(other)
    return [
        Step(
            described(project, [row])[0],
            described(project, judges.get(row.round_id or 0, []) if _is_trained(row) else []),
        )
        for row in chain
    ]


def _is_trained(row: Checkpoint) -> bool:
    """Whether PPO made it, with reward models of the same round."""
    return row.kind == Kind.POLICY and row.parent_id is not None


def made_from(model: Checkpoint) -> list[Model]:
    """What was trained from the model, or (of a reward model) with it."""
    rows = Checkpoint.objects.filter(project=model.project).select_related("round", "snapshot")
    if model.kind == Kind.POLICY:
        return described(model.project, rows.filter(parent=model).order_by("created_at", "pk"))
    of_round = rows.filter(round=model.round, kind=Kind.POLICY) if model.round else rows.none()
    return described(model.project, of_round.order_by("created_at", "pk"))


def round_of(model: Checkpoint) -> Round | None:
    """The round whose result the policy is: its scores are the model's."""
    round = model.round
    return round if round is not None and round.policy_id == model.pk else None


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


def accuracies(row: Checkpoint) -> list[str]:
    """A reward model's accuracy on held-out pairs, by axis."""
    part = row.metrics.get(PARTS.get(Kind(row.kind), "")) if isinstance(row.metrics, dict) else None
    axes = part.items() if isinstance(part, dict) else ()
    estimates = [(a, estimate_from(v, "accuracy", "accuracy_ci", "n")) for a, v in axes]
    return [
        f"Accuracy {in_words(estimate, percent=True)} held-out {axis} pairs"
        for axis, estimate in estimates
        if estimate is not None
    ]
