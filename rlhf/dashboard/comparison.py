"""Several rounds side by side: their figures, their curves on one axis, and where their settings differ."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf import run_reports
from rlhf.dashboard import charts
from rlhf.dashboard.charts import Drawing, Series
from rlhf.dashboard.curves import Curve, curves_of
from rlhf.dashboard.evidence import Evidence
from rlhf.dashboard.panel import metric_marks, samples_filter, spoken
from rlhf.dashboard.results import COLUMNS, METRICS, Column, Figure, Result
from rlhf.dashboard.settings_table import by_key, shown_value
from rlhf.models import Job, Round

LEAST, MOST = 2, 6

DASHES = ("", "6 4", "2 3", "", "6 4", "2 3")
"""Each round has a color of its own (`series-1` … in rounds.css) and a dash."""


def overlaid_curves(rounds: Sequence[Round], stage: str) -> list[Curve]:
    """The curves of a stage, one chart for each metric with a line for each round."""
    curves: dict[str, Curve] = {}
    for round in rounds:
        for curve in curves_of(stage, round.config):
            for metric, name, *_ in curve.lines:
                title = f"{curve.title}: {name}" if len(curve.lines) > 1 else curve.title
                lines = tuple(
                    (column_of(other, metric), str(other), f"series-{i + 1}", DASHES[i])
                    for i, other in enumerate(rounds)
                )
                curves.setdefault(metric, Curve(metric, title, curve.unit, lines))
    return list(curves.values())


def column_of(round: Round, metric: str) -> str:
    """The name of one round's metric among those of several rounds."""
    return f"{round.number}.{metric}"


def merged_metrics(rounds: Iterable[Round], stage: str) -> dict[str, Any]:
    """The metrics of several rounds' stage as one table by step, for static/js/charts.js."""
    rows: dict[int, dict[str, Any]] = {}
    is_running = False
    for round in rounds:
        job = round.newest_job(stage)
        if job is None:
            continue
        read = run_reports.metrics_since(job, epoch=-1, after=-1)
        is_running |= read["running"]
        for row in read["rows"]:
            merged = rows.setdefault(row["step"], {"step": row["step"]})
            for name, value in row.items():
                if name not in ("step", "time"):
                    merged[column_of(round, name)] = value
    ordered = [rows[step] for step in sorted(rows)]
    # Always whole: rows that were sent may gain another round's column.
    return {"epoch": 0, "reset": True, "running": is_running, "last": -1, "rows": ordered}


@dataclass(frozen=True)
class FigureRow:
    """One figure of every chosen round."""

    column: Column
    cells: list[tuple[Round, Figure]]


def figure_rows(results: Sequence[Result]) -> list[FigureRow]:
    """A row for each figure that one of the rounds has."""
    rows = [
        FigureRow(column, [(result.round, result.figure(column.key)) for result in results])
        for column in COLUMNS
    ]
    return [row for row in rows if any(figure.text for _, figure in row.cells)]


def score_drawings(evidence: Evidence, rounds: Sequence[Round]) -> list[Drawing]:
    """A chart with intervals for each score, a mark for each of the rounds."""
    chosen = {round.pk for round in rounds}
    of_these = [m for m in evidence.measured if m.round.pk in chosen]
    kept = Evidence(
        evidence.project,
        evidence.judge,
        evidence.temperature,
        evidence.judges,
        evidence.temperatures,
        of_these,
        evidence.jobs,
        list(rounds),
    )
    drawings = []
    for column in COLUMNS:
        marks = (
            metric_marks(kept, column.key, samples_filter(column.key))
            if column.key in METRICS
            else []
        )
        if len(marks) < LEAST:
            continue
        token = column.key if column.key in ("helpfulness", "safety") else "accent"
        shape = "square" if column.key == "safety" else "circle"
        chart = charts.points(
            [Series(column.name, token, marks, shape)],
            label=f"{column.name}: {spoken(marks)}",
            height=150,
            percent=column.percent,
            lines=[(0.5, "no preference")] if column.key.startswith("win_rate") else [],
            connect=False,
        )
        drawings.append(Drawing(column.name, chart))
    return drawings


@dataclass(frozen=True)
class SettingRow:
    """One setting whose value differs between the rounds; None where a round does not have it."""

    section: str
    name: str
    help: str
    values: list[tuple[Round, str]]


def differing_settings(
    rounds: Sequence[Round], explained: Mapping[str, Mapping[str, str]]
) -> list[SettingRow]:
    """The settings that are not the same in all of the rounds, in the order of the stages."""
    configs = [
        {section: by_key(section, values) for section, values in round.config.items()}
        for round in rounds
    ]
    sections = list(dict.fromkeys(section for config in configs for section in config))
    order = ["round", *Round.State.values]
    sections.sort(key=lambda name: order.index(name) if name in order else len(order))
    rows = []
    for section in sections:
        parts = [_as_mapping(config.get(section)) for config in configs]
        for name in dict.fromkeys(name for part in parts for name in part):
            texts = [shown_value(part[name]) if name in part else "–" for part in parts]
            # A round without the stage has none of its settings, which is no difference.
            if len({text for text, part in zip(texts, parts, strict=True) if part}) > 1:
                values = list(zip(rounds, texts, strict=True))
                help = explained.get(section, {}).get(name, "")
                rows.append(SettingRow(section, name, help, values))
    seeds = [str(round.seed) for round in rounds]
    if len(set(seeds)) > 1:
        rows.append(
            SettingRow("round", "seed", "The random seed.", list(zip(rounds, seeds, strict=True)))
        )
    return rows


def _as_mapping(values: Any) -> Mapping[str, Any]:
    if values is None:
        return {}
    return values if isinstance(values, Mapping) else {"value": values}


def has_curves(rounds: Iterable[Round], stage: str) -> bool:
    """Whether the stage has begun in one of the rounds."""
    return Job.objects.filter(round__in=list(rounds), stage=stage, epoch__gt=0).exists()
