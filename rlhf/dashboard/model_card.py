"""The card of a model: what it is, what it was trained on and how it was measured, as Markdown.

The head is the YAML that model hubs read (`huggingface_hub.ModelCard`), with the scores as
evaluation results; JSON is YAML, so that no name can break it.
"""

import json
from typing import Any

from annotation.lib.numbers import share
from rlhf.dashboard.lineage import Model, accuracies, ancestry, round_of
from rlhf.dashboard.score_table import METRICS
from rlhf.dashboard.settings_table import by_key, shown_value
from rlhf.estimates import in_words
from rlhf.models import Checkpoint, Round, Score
from rlhf.round_config import SECTIONS
from rlhf.round_timeline import round_stages

RATES = {"violation_rate", "over_refusal_rate", "win_rate_vs_base", "win_rate_vs_previous"}
RATES |= {"entity_accuracy", "correct_rate", "unfinished_rate"}


def model_card(model: Model) -> str:
    """The whole card, as README.md of the model's folder."""
    row = model.row
    head = _head(row, _scores(row, round_of(row)))
    return f"{head}\n\n# {row.name}\n\n{card_body(model)}\n"


def card_body(model: Model) -> str:
    """The card without its head and title."""
    row = model.row
    round = round_of(row)
    scores = _scores(row, round)
    parts = [
        _summary(model),
        _data(row),
        _training(row),
        _evaluation(row, round, scores),
        _decision(round),
        _limits(round),
        _computing(row),
        _use(row),
    ]
    return "\n\n".join(part for part in parts if part)


def _head(row: Checkpoint, scores: list[Score]) -> str:
    fields: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation" if row.kind == "policy" else "text-classification",
        "tags": ["rlhf", row.kind.replace("_", "-")],
    }
    if scores:
        task, dataset = fields["pipeline_tag"], f"held-out prompts of {row.project.name}"
        metrics = [
            {"type": score.metric, "name": _metric_name(score), "value": score.value}
            for score in scores
        ]
        result = {
            "task": {"type": task},
            "dataset": {"name": dataset, "type": row.project.slug},
            "metrics": metrics,
        }
        fields["model-index"] = [{"name": row.name, "results": [result]}]
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items()]
    return "\n".join(["---", *lines, "---"])


def _summary(model: Model) -> str:
    row = model.row
    kind = row.get_kind_display().lower()
    state = f" Its state is *{model.state}*." if model.state else ""
    chain = " → ".join(step.model.row.name for step in ancestry(row))
    lineage = f" Lineage: {chain}." if row.parent_id else ""
    size = f"{row.n_parameters:,} parameters. " if row.n_parameters else ""
    return (
        f"A {kind} of the project {row.project.name}. {size}Made on "
        f"{row.created_at:%Y-%m-%d %H:%M} UTC.{lineage}{state}"
    )


def _data(row: Checkpoint) -> str:
    snapshot = row.snapshot
    if snapshot is None:
        return ""
    counts = snapshot.counts or {}
    lines = [
        "## Data",
        (
            f"Preferences of version {snapshot.version} (SHA-256 `{snapshot.sha256}`): "
            f"{counts.get('judgments', 0):,} judgments on {counts.get('prompts', 0):,} prompts."
        ),
    ]
    if simulated := counts.get("simulated_annotators"):
        people = counts.get("annotators", 0)
        lines.append(
            f"**{simulated} of the {simulated + people} annotators are programs**, not people."
        )
    for axis, agreement in sorted((snapshot.agreement or {}).items()):
        if isinstance(agreement, dict) and agreement.get("pairwise") is not None:
            bounds = [share(bound) for bound in agreement.get("pairwise_ci") or ()]
            interval = f" [{', '.join(bounds)}]" if bounds else ""
            n = f", n = {agreement.get('n_pairs', 0):,} pairs"
            lines.append(f"- Agreement on {axis}: {share(agreement['pairwise'])}{interval}{n}")
    return "\n\n".join(lines[:2]) + "".join(f"\n{line}" for line in lines[2:])


def _training(row: Checkpoint) -> str:
    stage = "ppo" if row.kind == "policy" and row.parent_id else row.kind
    section = {"test_reward_model": "reward_model"}.get(stage, stage)
    if section not in SECTIONS or not row.config:
        return ""
    known = SECTIONS[section].settings()
    values = by_key(section, row.config)
    changed = {
        name: value
        for name, value in values.items()
        if name in known and not known[name].is_required and value != known[name].default
    }
    # Paths of this installation say nothing to a reader of the card.
    changed = {n: v for n, v in changed.items() if not (isinstance(v, str) and "/" in v)}
    lines = [f"| `{name}` | {shown_value(value)} |" for name, value in sorted(changed.items())]
    head = f"## Training\n\nStage `{section}`"
    if row.code_version:
        head += f", code version {row.code_version}"
    if not lines:
        return head + ", every setting at its default."
    table = "\n".join(["| setting | value |", "|---|---|", *lines])
    return f"{head}. Settings that are not at their default:\n\n{table}"


def _scores(row: Checkpoint, round: Round | None) -> list[Score]:
    if round is None:
        return []
    own = round.scores.filter(checkpoint=row, category="")
    order = list(METRICS)
    known = [score for score in own if score.metric in order]
    return sorted(known, key=lambda s: (s.judge, -s.temperature, order.index(s.metric)))


def _metric_name(score: Score) -> str:
    judge = score.get_judge_display()
    return f"{METRICS[score.metric]} ({judge}, temperature {score.temperature:g})"


def _evaluation(row: Checkpoint, round: Round | None, scores: list[Score]) -> str:
    if row.kind != "policy":
        sentences = accuracies(row)
        return "## Evaluation\n\n" + "\n".join(f"- {s}" for s in sentences) if sentences else ""
    if round is None or not scores:
        return "## Evaluation\n\nNot measured."
    lines = [
        f"| {_metric_name(s)} | {in_words(s.estimate, percent=s.metric in RATES)} |" for s in scores
    ]
    table = "\n".join(["| metric | value [95 % interval], n prompts |", "|---|---|", *lines])
    return f"## Evaluation\n\nOn held-out prompts, by {round}.\n\n{table}"


def _decision(round: Round | None) -> str:
    if round is None or not round.verdict:
        return ""
    by = f" by {round.verdict_by}" if round.verdict_by else ""
    note = " ".join(round.verdict_note.split())
    return f"## Decision\n\n{round}: {round.verdict_name}{by}. {note}".rstrip()


def _limits(round: Round | None) -> str:
    lines = [
        "## Limits",
        "Measured on this project's held-out prompts only; it may fail elsewhere.",
    ]
    if round is not None and round.has_simulated_judgments:
        lines.append("Some judgments behind it were made by programs.")
    if round is not None and round.holds:
        lines.append("Its reward models were in doubt; a person let the round go on.")
    return "\n\n".join([*lines[:1], " ".join(lines[1:])])


def _computing(row: Checkpoint) -> str:
    round = row.round
    if round is None:
        return ""
    stages = [s for s in round_stages(round, list(round.jobs.all())) if s.energy]
    if not stages:
        return ""
    lines = [f"- {stage.name}: {stage.took}, {stage.energy}" for stage in stages]
    text = "Time and energy of the round's stages (time × power of the machine):"
    return f"## Computing\n\n{text}\n\n" + "\n".join(lines)


def _use(row: Checkpoint) -> str:
    if row.kind != "policy":
        return ""
    code = (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")\n'
        'model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")'
    )
    return f"## Use\n\n```python\n{code}\n```"
