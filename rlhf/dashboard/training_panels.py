"""Panels of what training reported: reward over KL, and agreement with people."""

import math
from dataclasses import dataclass
from typing import Any

from django.urls import reverse

from rlhf import run_reports
from rlhf.dashboard import charts
from rlhf.dashboard.charts import DASHES, SHAPES, Drawing, Mark, Series
from rlhf.dashboard.evidence import Evidence
from rlhf.dashboard.panel import Panel, capitalized
from rlhf.dashboard.tables import Cell, Table, estimate_cells, number_cell, text_cell
from rlhf.estimates import Estimate, change, estimate_from, in_words, is_number, number
from rlhf.models import Job, Round

# --- Reward over KL --------------------------------------------------------------------------


def reward_over_kl(evidence: Evidence) -> Panel:
    """The reward gained for the policy's distance from the reference (Gao et al. 2022)."""
    # Colors have meanings: the newest round has the accent, the others differ by shape and dash.
    newest = max((pk for pk, stage in evidence.jobs if stage == "ppo"), default=None)
    lines: list[tuple[Series, list[float]]] = []
    rows: list[list[Cell]] = []
    finding, drawings = "Reward over KL", []
    for index, round in enumerate(evidence.rounds):
        job = evidence.jobs.get((round.pk, "ppo"))
        steps = _ppo_steps(job) if job else []
        if not steps:
            continue
        url = f"{round.get_absolute_url()}?stage=ppo"
        token, style = "accent" if round.pk == newest else "ink-2", index % len(SHAPES)
        marks = [_step_mark(round, step, url) for step in steps]
        series = Series(str(round), token, marks, SHAPES[style], DASHES[style])
        lines.append((series, [math.sqrt(max(0.0, step["kl"])) for step in steps]))
        rows += [_step_row(round, step, url) for step in steps]
        finding = (
            f"{round} moved {number(steps[-1]['kl'])} nats per response and ended at a training "
            f"reward of {number(steps[-1]['reward'], signed=True)}"
        )
    if lines:
        chart = charts.plane(
            lines,
            label="Training reward over the square root of KL, one line per round",
            x_title="√KL (nats per response)",
            y_title="reward",
        )
        drawings.append(Drawing("", chart, "plane"))
    return Panel(
        "kl",
        finding,
        "Each point is a PPO step: mean reward of its rollout (training reward model) over √KL to "
        "the reference. A plateau may mean over-optimization; compare with the held-out judge.",
        drawings,
        Table(["Round", "Step", "KL (nats)", "Reward", "Test reward"], rows),
        empty="Appears when a round has finished PPO.",
        note="A rollout's mean has no interval. Its scale is that of the round's own reward model.",
    )


def _ppo_steps(job: Job) -> list[dict[str, Any]]:
    rows = run_reports.metrics_since(job, epoch=job.epoch, after=-1)["rows"]
    return [row for row in rows if is_number(row.get("kl")) and is_number(row.get("reward"))]


def _step_mark(round: Round, step: dict[str, Any], url: str) -> Mark:
    title = (
        f"{round}, step {step['step']}: reward {number(step['reward'], signed=True)}, "
        f"KL {number(step['kl'])} nats per response"
    )
    return Mark(f"step {step['step']}", Estimate(float(step["reward"])), title, url)


def _step_row(round: Round, step: dict[str, Any], url: str) -> list[Cell]:
    return [
        text_cell(round, url),
        Cell(step["step"], str(step["step"]), "", is_number=True),
        number_cell(step["kl"]),
        number_cell(step["reward"]),
        number_cell(step.get("test_reward")),
    ]


# --- Agreement -------------------------------------------------------------------------------

AXES = ("helpfulness", "safety")


@dataclass(frozen=True)
class _Curve:
    """One line of the chart: who agrees with people on which axis, and how it is drawn."""

    who: str
    axis: str
    shape: str
    dash: str

    @property
    def name(self) -> str:
        return f"{self.who}, {self.axis}"


PEOPLE, MODEL = "people", "reward model"
CURVES = (
    _Curve(PEOPLE, "helpfulness", "circle", ""),
    _Curve(PEOPLE, "safety", "square", ""),
    _Curve(MODEL, "helpfulness", "diamond", "6 4"),
    _Curve(MODEL, "safety", "triangle", "6 4"),
)


def agreement(evidence: Evidence) -> Panel:
    """How often people agree with one another, and the reward model with people."""
    series, rows = [], []
    results = {
        round.pk: run_reports.read_result(job)
        for round in evidence.rounds
        if (job := evidence.jobs.get((round.pk, "reward_model")))
    }
    newest: dict[tuple[str, str], tuple[Round, Estimate]] = {}
    for curve in CURVES:
        marks = []
        for round in evidence.rounds:
            if curve.who == PEOPLE:
                estimate, url = _agreement_of_people(evidence, round, curve.axis)
            else:
                fields = (results.get(round.pk, {}).get("train") or {}).get(curve.axis)
                estimate = estimate_from(fields, "accuracy", "accuracy_ci", "n")
                url = f"{round.get_absolute_url()}?stage=reward_model"
            if estimate is None:
                continue
            newest[curve.who, curve.axis] = (round, estimate)
            title = f"{round}, {curve.name}: {in_words(estimate, percent=True)}"
            marks.append(Mark(f"R{round.number}", estimate, title, url))
            cells = estimate_cells(estimate, percent=True, href=url)
            rows.append([text_cell(round), text_cell(curve.name), *cells])
        if marks:
            series.append(Series(curve.name, curve.axis, marks, curve.shape, curve.dash))
    finding, drawings = "Agreement", []
    if series:
        finding = _agreement_finding(newest)
        chart = charts.points(
            series, label=f"Agreement per round. {finding}", height=260, percent=True
        )
        drawings.append(Drawing("", chart))
    return Panel(
        "agreement",
        finding,
        "Share of pairs on which two people agree, and on which the training reward model agrees "
        "with people on unseen prompts. Agreement between people is the ceiling to expect.",
        drawings,
        Table(["Round", "Who", "Agreement", "from", "to", "n (pairs)"], rows),
        is_simulated=any(round.has_simulated_judgments for round in evidence.rounds),
        empty="Appears with the first reward model, and with comparisons judged by two people.",
    )


def _agreement_of_people(
    evidence: Evidence, round: Round, axis: str
) -> tuple[Estimate | None, str]:
    snapshot = round.snapshot
    if snapshot is None:
        return None, ""
    fields = (snapshot.agreement or {}).get(axis)
    url = reverse("snapshot", args=[evidence.project.slug, snapshot.version])
    return estimate_from(fields, "pairwise", "pairwise_ci", "n_pairs"), url


def _agreement_finding(newest: dict[tuple[str, str], tuple[Round, Estimate]]) -> str:
    parts = []
    for axis in AXES:
        model, people = newest.get((MODEL, axis)), newest.get((PEOPLE, axis))
        if model is None:
            continue
        text = f"{number(model[1].value, percent=True)} of held-out {axis} pairs"
        if people is not None and model[0] == people[0]:
            direction = change(people[1], model[1]).direction
            text += {1: " (more than", -1: " (less than", 0: " (level with"}[direction]
            text += f" people with one another, {number(people[1].value, percent=True)})"
        parts.append(text)
    if parts:
        return f"The reward model agrees with people on {' and '.join(parts)}"
    (who, axis), (_, estimate) = next(iter(newest.items()))
    return capitalized(f"{who} agree on {number(estimate.value, percent=True)} of {axis} pairs")
