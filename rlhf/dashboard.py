"""The dashboard's numbers: one query function per panel, each with the sentence it supports.

A panel's title is computed from its numbers and claims a change only where the interval of the
difference excludes none; everything else is "no clear change".
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from django.urls import reverse

from annotation.models import Project
from rlhf import charts, reading, tables
from rlhf.charts import DASHES, SHAPES, Drawing, Figure, Mark, Series
from rlhf.models import Job, Round, Score
from rlhf.tables import Cell, Table

JUDGES = {
    "gold": "rubric (simulated)",
    "model": "reward model",
    "human": "human",
}
RATES = {"violation_rate", "over_refusal_rate", "win_rate_vs_base", "win_rate_vs_previous"}
RATES |= {"entity_accuracy", "correct_rate"}


@dataclass(frozen=True)
class Panel:
    """A finding, its picture, the table behind it."""

    key: str
    finding: str
    about: str
    drawings: list[Drawing]
    table: Table
    is_simulated: bool = False
    empty: str = ""
    note: str = ""
    wide: bool = False

    @property
    def is_empty(self) -> bool:
        return not self.drawings


@dataclass(frozen=True)
class Measured:
    """One round's policy as one judge saw it at one temperature."""

    round: Round
    figures: dict[str, Figure]
    categories: dict[str, dict[str, Figure]] = field(default_factory=dict)
    start: dict[str, Figure] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return f"R{self.round.number}" if self.round.number else "base"

    @property
    def name(self) -> str:
        return f"round {self.round.number}" if self.round.number else "the base policy"


@dataclass(frozen=True)
class Evidence:
    """What all panels are computed from, fetched once."""

    project: Project
    judge: str
    temperature: float
    judges: list[str]
    temperatures: list[float]
    rounds: list[Measured]
    jobs: dict[tuple[int, str], Job]
    every_round: list[Round]

    @property
    def is_simulated(self) -> bool:
        return self.judge == "gold"

    def samples_url(self, round: Round, **query: str) -> str:
        """The answers that a round's numbers were computed from."""
        address = reverse("samples", args=[self.project.slug, round.number])
        return f"{address}?{urlencode({'temperature': self.temperature, **query})}"


def evidence(
    project: Project, judge: str = "", temperature: str = "", *, metrics: Sequence[str] = ()
) -> Evidence:
    """Scores, rounds and finished jobs of a project in three queries.

    With `metrics` only those are fetched, over all categories together. An unknown judge or temperature falls back to what there is, so an old link still opens.
    """
    rounds = list(
        Round.objects.filter(project=project)
        .select_related("policy", "snapshot", "start_policy")
        .order_by("number")
    )
    for one in rounds:
        one.project = project
    asked = Score.objects.filter(round__project=project).order_by("id")
    scores = list(asked.filter(metric__in=metrics, category="") if metrics else asked)
    judges = [name for name in JUDGES if any(s.judge == name for s in scores)]
    judge = judge if judge in judges else (judges or ["model"])[0]
    temperatures = sorted({s.temperature for s in scores if s.judge == judge}, reverse=True)
    try:
        wanted = float(temperature)
    except ValueError:
        wanted = math.nan
    chosen = wanted if wanted in temperatures else (temperatures or [1.0])[0]
    jobs: dict[tuple[int, str], Job] = {}
    done = Job.objects.filter(project=project, state=Job.State.DONE).order_by("created_at", "id")
    for job in done:
        jobs[job.round_id, job.stage] = job
    by_round: dict[int, list[Score]] = {}
    for score in scores:
        if score.judge == judge and score.temperature == chosen:
            by_round.setdefault(score.round_id, []).append(score)
    measured = []
    for one in rounds:
        figures: dict[str, Figure] = {}
        start: dict[str, Figure] = {}
        categories: dict[str, dict[str, Figure]] = {}
        for score in by_round.get(one.pk, []):
            figure = figure_of(score)
            if one.policy_id is not None and score.checkpoint_id != one.policy_id:
                # The same judge on the policy that the round began with: the fair comparison.
                if score.checkpoint_id == one.start_policy_id and not score.category:
                    start[score.metric] = figure
            elif score.category:
                categories.setdefault(score.category, {})[score.metric] = figure
            else:
                figures[score.metric] = figure
        if figures:
            measured.append(Measured(one, figures, categories, start))
    return Evidence(project, judge, chosen, judges, temperatures, measured, jobs, rounds)


def figure_of(score: Score) -> Figure:
    """The score with its interval."""
    return tables.with_interval(score.value, score.low, score.high, score.n)


# --- Findings --------------------------------------------------------------------------------


def _changes(e: Evidence, metric: str) -> list[tuple[Measured, Measured, charts.Change]]:
    """What changed from round to round, oldest first.

    Each round's reward model has a scale of its own, so under that judge a round is compared with
    its start policy as the same reward model scored it, and not at all where it did not.
    """
    rounds = [m for m in e.rounds if metric in m.figures]
    if e.judge == "model":
        return [
            (m, m, charts.change(m.start[metric], m.figures[metric]))
            for m in rounds
            if metric in m.start
        ]
    return [
        (before, after, charts.change(before.figures[metric], after.figures[metric]))
        for before, after in itertools.pairwise(rounds)
    ]


def _moved(name: str, changes: Sequence[tuple[Measured, Measured, charts.Change]]) -> str:
    """`Safety rose in round 2`, of the latest change; "" where there is nothing to compare."""
    if not changes:
        return ""
    _, after, latest = changes[-1]
    word = {1: "rose", -1: "fell", 0: "shows no clear change"}[latest.direction]
    return f"{name} {word} in {after.name}"


def score_finding(e: Evidence) -> str:
    """The latest round's movement on both axes, as far as intervals support it."""
    if not e.rounds:
        return "Safety and helpfulness"
    latest = {axis: _changes(e, axis) for axis in ("safety", "helpfulness")}
    known = {axis: c[-1] for axis, c in latest.items() if c}
    if not known:
        if len(e.rounds) == 1:
            return f"So far only {e.rounds[0].name} is measured"
        return "These rounds can't be compared: each reward model has its own scale"
    newest = max(c[1].round.number for c in known.values())
    known = {axis: c for axis, c in known.items() if c[1].round.number == newest}
    after = next(iter(known.values()))[1]
    words = {axis: c[2].direction for axis, c in known.items()}
    rose = [axis for axis, d in words.items() if d > 0]
    fell = [axis for axis, d in words.items() if d < 0]
    level = [axis for axis, d in words.items() if d == 0]
    if not rose and not fell:
        return f"No clear change in {after.name}, neither in {' nor in '.join(level)}"
    parts = []
    if rose:
        parts.append(f"{' and '.join(rose)} rose")
    if fell:
        parts.append(f"{' and '.join(fell)} fell")
    sentence = ", ".join(parts) + f" in {after.name}"
    if level:
        sentence += f"; no clear change in {' and '.join(level)}"
    return sentence[0].upper() + sentence[1:]


# --- Panels ----------------------------------------------------------------------------------


def scores(e: Evidence) -> Panel:
    """Helpfulness and safety per round."""
    drawings = []
    for axis in ("helpfulness", "safety"):
        marks = _marks(e, axis, _risk(axis))
        if marks:
            series = [Series(axis, axis, marks, "circle" if axis == "helpfulness" else "square")]
            if starts := _start_marks(e, axis):
                # Beside each other, because one reward model scored both.
                series.insert(0, Series("its start policy", "ink-3", starts, "diamond"))
            chart = charts.points(
                series,
                label=f"{axis.capitalize()} per round: {_spoken(marks)}",
                height=220,
                connect=e.judge != "model",
            )
            drawings.append(Drawing(axis.capitalize(), chart))
    metrics = {"helpfulness": "Helpfulness", "safety": "Safety"}
    note = "A ring marks a promoted policy. "
    if e.judge == "model":
        note += (
            "The judge is each round's test reward model, which PPO never saw. It has its own scale (0 is the mean of the policy its round "
            "started from, 1 a standard deviation), so a round is compared with its start policy "
            "under one reward model, never with another round's number."
        )
    else:
        note += "Higher is better on both."
    return Panel(
        "scores",
        score_finding(e),
        f"Mean score per round on held-out prompts: helpfulness on prompts that are not harmful, "
        f"safety on those that are not harmless. {_conditions(e)}",
        drawings,
        _table(e, metrics),
        is_simulated=e.is_simulated,
        empty="Each round adds a point here once it is evaluated. Build the base policy to get the first.",
        note=note,
        wide=True,
    )


def trade_off(e: Evidence) -> Panel:
    """Violations against over-refusals: a policy that refuses everything is not safe but useless."""
    pairs = []
    for m in e.rounds:
        across, up = m.figures.get("over_refusal_rate"), m.figures.get("violation_rate")
        if across is None or up is None:
            continue
        title = (
            f"{m.name}: violation {charts.in_words(up, percent=True)}; over-refusal "
            f"{charts.in_words(across, percent=True)}"
        )
        pairs.append(
            charts.Pair(
                m.label,
                across,
                up,
                e.samples_url(m.round, risk="harmful"),
                m.round.verdict == "promoted",
                title,
            )
        )
    finding = "Violations against over-refusals"
    if pairs:
        last = pairs[-1]
        where = next(m for m in reversed(e.rounds) if m.label == last.name)
        finding = (
            f"{where.name} violates on {charts.number(last.up.value, percent=True)} of harmful "
            f"prompts and refuses {charts.number(last.across.value, percent=True)} of harmless ones"
        )
        finding = finding[0].upper() + finding[1:]
        moved = _changes(e, "violation_rate")
        if moved and moved[-1][1] is where:
            direction = moved[-1][2].direction
            finding += {
                1: "; violations rose",
                -1: "; violations fell",
                0: "; no clear change in violations",
            }[direction]
    drawings = []
    if pairs:
        drawn = charts.scatter(
            pairs,
            label="Violation rate against over-refusal rate. "
            + "; ".join(pair.title for pair in pairs),
            x_title="over-refusal rate (harmless prompts)",
            y_title="violation rate (harmful prompts)",
            corner="the corner to be in",
        )
        drawings.append(Drawing("", drawn, "scatter"))
    metrics = {"violation_rate": "Violation rate", "over_refusal_rate": "Over-refusal rate"}
    return Panel(
        "trade_off",
        finding,
        f"Share of harmful prompts it complied with, and of harmless ones it refused. "
        f"{_conditions(e)}",
        drawings,
        _table(e, metrics),
        is_simulated=e.is_simulated,
        empty="This judge gives no opinion on violations and refusals. A reward model scores a text but "
        "can't say whether it complied; choose another judge above."
        if e.rounds
        else "Appears with the first evaluation by people or by the demo's rubric.",
    )


def win_rates(e: Evidence) -> Panel:
    """How often a round's answer is preferred to the base's and to the round before's."""
    metrics = {"win_rate_vs_base": "against base", "win_rate_vs_previous": "against previous"}
    series = []
    for (metric, name), token, shape in zip(
        metrics.items(), ("accent", "ink-2"), ("circle", "diamond"), strict=True
    ):
        against = metric.removeprefix("win_rate_vs_")
        marks = _marks(e, metric, {"vs": against})
        if marks:
            series.append(Series(name, token, marks, shape, "" if shape == "circle" else "6 4"))
    finding, drawings = "Win rates", []
    if series:
        newest = max(
            (m for m in e.rounds if metrics.keys() & m.figures.keys()),
            key=lambda m: m.round.number,
        )
        told = []
        for metric, words in (
            ("win_rate_vs_base", "the base"),
            ("win_rate_vs_previous", "the round before"),
        ):
            figure = newest.figures.get(metric)
            if figure is None:
                continue
            share = charts.number(figure.value, percent=True)
            if figure.low is not None and figure.low > 0.5:
                told.append(f"beats {words} ({share})")
            elif figure.high is not None and figure.high < 0.5:
                told.append(f"loses to {words} ({share})")
            else:
                told.append(f"is level with {words} ({share}, the interval holds 50 %)")
        finding = f"{newest.name} {' and '.join(told)}"
        finding = finding[0].upper() + finding[1:]
        chart = charts.points(
            series,
            label="Win rates per round with intervals; half is no better than a coin",
            height=260,
            percent=True,
            lines=[(0.5, "level: as good as the other")],
        )
        drawings.append(Drawing("", chart))
    return Panel(
        "win_rates",
        finding,
        f"How often an answer was preferred to the other policy's on the same prompt; ties count "
        f"one half. {_conditions(e)}",
        drawings,
        _table(e, {"win_rate_vs_base": "vs base", "win_rate_vs_previous": "vs previous"}),
        is_simulated=e.is_simulated,
        empty="Appears when a round has an opponent: the base policy, or the round before it.",
    )


def reward_against_kl(e: Evidence) -> Panel:
    """What the reward rose by for the distance that the policy moved (Gao et al. 2022)."""
    # Colours have meanings; the newest round has the accent, the others differ by shape and dash.
    newest = max((pk for pk, stage in e.jobs if stage == "ppo"), default=None)
    lines: list[tuple[Series, list[float]]] = []
    rows = []
    ends: list[tuple[Round, dict[str, Any]]] = []
    for index, one in enumerate(e.every_round):
        job = e.jobs.get((one.pk, "ppo"))
        if job is None:
            continue
        steps = [
            row
            for row in reading.metrics_since(job, epoch=job.epoch, after=-1)["rows"]
            if tables.is_number(row.get("kl")) and tables.is_number(row.get("reward"))
        ]
        if not steps:
            continue
        address = f"{one.get_absolute_url()}?stage=ppo"
        marks = [
            Mark(
                f"step {row['step']}",
                Figure(float(row["reward"])),
                f"{one}, step {row['step']}: reward {charts.number(row['reward'], signed=True)}, "
                f"KL {charts.number(row['kl'])} nats per response",
                address,
            )
            for row in steps
        ]
        style = index % len(SHAPES)
        series = Series(
            str(one), "accent" if one.pk == newest else "ink-2", marks, SHAPES[style], DASHES[style]
        )
        lines.append((series, [math.sqrt(max(0.0, row["kl"])) for row in steps]))
        ends.append((one, steps[-1]))
        for row in steps:
            rows.append(
                [
                    Cell(str(one), str(one), address),
                    Cell(row["step"], str(row["step"]), "", is_number=True),
                    tables.plain(row["kl"]),
                    tables.plain(row["reward"]),
                    tables.plain(row.get("test_reward")),
                ]
            )
    finding, drawings = "Reward against the distance moved", []
    if ends:
        one, end = ends[-1]
        finding = (
            f"{one} moved {charts.number(end['kl'])} nats per response and ended at a training "
            f"reward of {charts.number(end['reward'], signed=True)}"
        )
        chart = charts.plane(
            lines,
            label="Training reward against the square root of KL, one line per round",
            x_title="√KL (nats per response)",
            y_title="reward",
        )
        drawings.append(Drawing("", chart, "plane"))
    return Panel(
        "kl",
        finding,
        "Each point is a PPO step: mean reward of its rollout (train-RM) over √KL to the "
        "reference. Flattening means the reward is used up; compare with the held-out judge.",
        drawings,
        Table(["Round", "Step", "KL (nats)", "Reward", "test-RM reward"], rows),
        empty="Appears when a round has been through PPO.",
        note="A rollout's mean has no interval here; its scale is the round's own reward model.",
    )


def agreement(e: Evidence) -> Panel:
    """People with one another, and the reward model with people."""
    series, rows = [], []
    plans = (
        ("people, helpfulness", "helpfulness", "people", "circle", ""),
        ("people, safety", "safety", "people", "square", ""),
        ("reward model, helpfulness", "helpfulness", "model", "diamond", "6 4"),
        ("reward model, safety", "safety", "model", "triangle", "6 4"),
    )
    results = {
        one.pk: reading.result(job)
        for one in e.every_round
        if (job := e.jobs.get((one.pk, "reward_model")))
    }
    newest: dict[tuple[str, str], tuple[Round, Figure]] = {}
    for name, axis, who, shape, dash in plans:
        marks = []
        for one in e.every_round:
            if who == "people":
                figures = (one.snapshot.agreement or {}).get(axis) if one.snapshot else None
                figure = tables.figure_in(figures, "pairwise", "pairwise_ci", "n_pairs")
                address = (
                    reverse("snapshot", args=[e.project.slug, one.snapshot.version])
                    if one.snapshot
                    else ""
                )
            else:
                told = (results.get(one.pk, {}).get("train") or {}).get(axis)
                figure = tables.figure_in(told, "accuracy", "accuracy_ci", "n")
                address = f"{one.get_absolute_url()}?stage=reward_model"
            if figure is None:
                continue
            newest[who, axis] = (one, figure)
            words = charts.in_words(figure, percent=True)
            marks.append(Mark(f"R{one.number}", figure, f"{one}, {name}: {words}", address))
            rows.append(
                [
                    Cell(str(one), str(one)),
                    Cell(name, name),
                    *tables.estimate(figure, percent=True, href=address),
                ]
            )
        if marks:
            series.append(Series(name, axis, marks, shape, dash))
    finding, drawings = "Agreement", []
    if series:
        said = []
        for axis in ("helpfulness", "safety"):
            model, people = newest.get(("model", axis)), newest.get(("people", axis))
            if model is None:
                continue
            text = f"{charts.number(model[1].value, percent=True)} of held-out {axis} pairs"
            if people is not None and model[0] == people[0]:
                difference = charts.change(people[1], model[1]).direction
                text += {1: " (more than", -1: " (less than", 0: " (level with"}[difference]
                text += f" people with one another, {charts.number(people[1].value, percent=True)})"
            said.append(text)
        if said:
            finding = f"the reward model agrees with people on {' and '.join(said)}"
        else:
            (who, axis), (_, figure) = next(iter(newest.items()))
            finding = f"{who} agree on {charts.number(figure.value, percent=True)} of {axis} pairs"
        finding = finding[0].upper() + finding[1:]
        chart = charts.points(
            series, label=f"Agreement per round. {finding}", height=260, percent=True
        )
        drawings.append(Drawing("", chart))
    return Panel(
        "agreement",
        finding,
        "Share of pairs on which two people agree, and on which the train-RM agrees with people "
        "on prompts that it has not seen. People's agreement is the ceiling to expect.",
        drawings,
        Table(["Round", "Who", "Agreement", "from", "to", "n (pairs)"], rows),
        is_simulated=any(has_simulated(one) for one in e.every_round),
        empty="Appears with the first reward model, and with comparisons that two people judged.",
    )


def has_simulated(round: Round) -> bool:
    """Whether some of the judgments that the round learnt from were made by programs."""
    return bool(round.snapshot and round.snapshot.counts.get("simulated_annotators"))


def length(e: Evidence) -> Panel:
    """Mean length of the answers: the first thing that a reward model is fooled by."""
    measured = [m for m in e.rounds if "mean_length" in m.figures]
    marks = _marks(e, "mean_length", {})
    finding, drawings = "Length", []
    if marks:
        first, last = marks[0].figure, marks[-1].figure
        finding = f"Answers are {charts.number(last.value)} tokens long on average"
        if len(marks) > 1 and first.value and first.has_interval and last.has_interval:
            share = charts.number(last.value / first.value - 1, percent=True, signed=True)
            told = share if charts.change(first, last).direction else "no clear change"
            finding += f", {told} against {measured[0].name}"
        chart = charts.points(
            [Series("length", "ink-2", marks)],
            label=f"Mean length per round in tokens: {_spoken(marks)}",
            include=[0.0],
        )
        drawings.append(Drawing("", chart))
    return Panel(
        "length",
        finding,
        f"Mean tokens per answer on held-out prompts. {_conditions(e)}",
        drawings,
        _table(e, {"mean_length": "Tokens"}),
        empty="Appears with the first evaluation.",
    )


def facts(e: Evidence) -> Panel:
    """Names and facts right: better style alone is no progress.

    Two shares, because an answer that names nothing is not wrong, but not right either.
    """
    marks, stated = _marks(e, "correct_rate", {}), _marks(e, "entity_accuracy", {})
    finding, drawings = "Facts and names", []
    if marks:
        share = charts.number(marks[-1].figure.value, percent=True)
        moved = _moved("the share", _changes(e, "correct_rate"))
        finding = f"{share} of answers to harmless prompts have their facts and names right"
        finding += f": {moved}" if moved else ""
        chart = charts.points(
            [
                Series("answers all right", "accent", marks, "diamond"),
                Series("of what is stated", "ink-2", stated),
            ],
            label=f"Share of answers that state facts or names, all right: {_spoken(marks)}. "
            f"Share of the facts and names stated that are right: {_spoken(stated)}",
            percent=True,
        )
        drawings.append(Drawing("", chart))
    return Panel(
        "facts",
        finding,
        "Answers all right: the share of answers to harmless prompts that state at least one fact or "
        f"name and none wrong. Of what is stated: the share that is right. {_conditions(e)}",
        drawings,
        _table(e, {"correct_rate": "Answers all right", "entity_accuracy": "Of what is stated"}),
        is_simulated=e.is_simulated,
        empty="This judge doesn't check facts."
        if e.rounds
        else "Appears with the first evaluation.",
    )


def by_category(e: Evidence) -> Panel:
    """The same score for each kind of prompt: a mean can hide a kind that got worse."""
    names = sorted({name for m in e.rounds for name in m.categories})
    metric, percent = "win_rate_vs_base", True
    if not any(metric in figures for m in e.rounds for figures in m.categories.values()):
        metric, percent = "score", False
    has_scores = any("score" in f for m in e.rounds for f in m.categories.values())
    if has_scores and e.judge != "model":
        metric, percent = "score", False
    every = [
        f
        for m in e.rounds
        for figures in m.categories.values()
        if (f := figures.get(metric)) is not None
    ]
    span = [v for f in every for v in (f.low, f.high, f.value) if v is not None]
    drawings, rows = [], []
    fell: list[str] = []
    rose: list[str] = []
    for name in names:
        marks = []
        for m in e.rounds:
            figure = m.categories.get(name, {}).get(metric)
            if figure is None:
                continue
            address = e.samples_url(m.round, category=name)
            words = charts.in_words(figure, percent=percent)
            marks.append(
                Mark(
                    m.label,
                    figure,
                    f"{m.name}, {name}: {words}",
                    address,
                    m.round.verdict == "promoted",
                )
            )
            rows.append(
                [
                    Cell(m.label, m.label),
                    Cell(name, name),
                    *tables.estimate(figure, percent=percent, href=address),
                ]
            )
        if not marks:
            continue
        is_latest = marks[-1].label == e.rounds[-1].label
        if len(marks) > 1 and is_latest and e.judge != "model":
            direction = charts.change(marks[-2].figure, marks[-1].figure).direction
            (rose if direction > 0 else fell if direction < 0 else []).append(name)
        chart = charts.points(
            [Series(name, "accent", marks)],
            label=f"{name}, per round: {_spoken(marks)}",
            height=130,
            percent=percent,
            include=span,
            connect=percent or e.judge != "model",
            lines=[(0.5, "")] if percent else (),
        )
        drawings.append(Drawing(name or "no category", chart))
    finding = "By category"
    if drawings and e.judge != "model" and len(e.rounds) > 1:
        parts = []
        if rose:
            parts.append(f"{_listed(rose)} rose")
        if fell:
            parts.append(f"{_listed(fell)} fell")
        finding = "; ".join(parts) or "No category shows a clear change"
        finding = f"{finding[0].upper()}{finding[1:]} in {e.rounds[-1].name}"
    elif drawings:
        finding = f"{len(drawings)} categories, measured apart"
    measure = "Win rate against the base" if percent else "Mean preference score"
    return Panel(
        "categories",
        finding,
        f"{measure} per category, all on one scale. {_conditions(e)}",
        drawings,
        Table(["Round", "Category", measure, "from", "to", "n (prompts)"], rows),
        is_simulated=e.is_simulated,
        empty="Appears when the evaluated prompts have categories.",
        wide=True,
    )


PANELS: dict[str, Callable[[Evidence], Panel]] = {
    "scores": scores,
    "trade_off": trade_off,
    "win_rates": win_rates,
    "kl": reward_against_kl,
    "agreement": agreement,
    "length": length,
    "facts": facts,
    "categories": by_category,
}


def panels(e: Evidence) -> list[Panel]:
    """Every panel of the dashboard in its order, those without anything to show last."""
    made = [make(e) for make in PANELS.values()]
    return sorted(made, key=lambda panel: panel.is_empty)


def small_multiples(project: Project) -> list[Drawing]:
    """Helpfulness and safety over the rounds, small, for mission control."""
    e = evidence(project, metrics=("helpfulness", "safety"))
    drawings = []
    for axis in ("helpfulness", "safety"):
        marks = _marks(e, axis, _risk(axis))
        if marks:
            shape = "circle" if axis == "helpfulness" else "square"
            chart = charts.points(
                [Series(axis, axis, marks, shape)],
                label=f"{axis.capitalize()} per round ({JUDGES[e.judge]}): {_spoken(marks)}",
                height=120,
                connect=e.judge != "model",
            )
            drawings.append(Drawing(axis.capitalize(), chart))
    return drawings


# --- Tables ----------------------------------------------------------------------------------


def _table(e: Evidence, metrics: dict[str, str]) -> Table:
    columns = ["Round"]
    for name in metrics.values():
        columns += [name, f"{name}: from", f"{name}: to", f"{name}: n"]
    rows = []
    for m in e.rounds:
        if not metrics.keys() & m.figures.keys():
            continue
        cells = [Cell(m.label, str(m.round), m.round.get_absolute_url())]
        for metric in metrics:
            figure = m.figures.get(metric)
            query = (
                {"vs": metric.removeprefix("win_rate_vs_")}
                if metric.startswith("win_rate")
                else _risk(metric)
            )
            percent = metric in RATES
            if figure is None:
                cells += [Cell(None, "–", "", is_number=True)] * 4
                continue
            cells += [
                *tables.estimate(figure, percent=percent, href=e.samples_url(m.round, **query)),
            ]
        rows.append(cells)
    return Table(columns, rows)


def _risk(metric: str) -> dict[str, str]:
    """Which of the evaluated prompts a metric rests on, as a filter of the samples page."""
    if metric == "violation_rate":
        return {"risk": "harmful"}
    if metric == "over_refusal_rate":
        return {"risk": "harmless"}
    return {"axis": metric} if metric in ("helpfulness", "safety") else {}


def _marks(e: Evidence, metric: str, query: dict[str, str]) -> list[Mark]:
    percent = metric in RATES
    return [
        Mark(
            m.label,
            figure,
            f"{m.name}: {charts.in_words(figure, percent=percent)}",
            e.samples_url(m.round, **query),
            m.round.verdict == "promoted",
        )
        for m in e.rounds
        if (figure := m.figures.get(metric)) is not None
    ]


def _start_marks(e: Evidence, metric: str) -> list[Mark]:
    """What a round's reward model gave the policy that the round started from."""
    if e.judge != "model":
        return []
    return [
        Mark(
            m.label,
            figure,
            f"{m.name}'s start policy, same reward model: {charts.in_words(figure)}",
            e.samples_url(m.round, vs="previous"),
        )
        for m in e.rounds
        if (figure := m.start.get(metric)) is not None
    ]


def _conditions(e: Evidence) -> str:
    return (
        f"Judge: {JUDGES[e.judge]}; temperature {e.temperature:g}; 95 % intervals, bootstrapped "
        "by prompt; n counts prompts."
    )


def _spoken(marks: Iterable[Mark]) -> str:
    return "; ".join(mark.title for mark in marks)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + f" and {names[-1]}"
