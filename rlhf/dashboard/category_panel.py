"""The panel with one chart per category, because a mean can hide a category that got worse."""

from rlhf.dashboard import charts
from rlhf.dashboard.charts import Drawing, Mark, Series
from rlhf.dashboard.evidence import Evidence
from rlhf.dashboard.panel import Panel, capitalized, listed, spoken
from rlhf.dashboard.tables import Table, estimate_cells, text_cell
from rlhf.estimates import change, in_words


def by_category(evidence: Evidence) -> Panel:
    """The same metric for each category of prompts, all on one scale."""
    names = sorted({name for m in evidence.measured for name in m.categories})
    metric = _metric(evidence)
    percent = metric != "score"
    include = [
        value
        for m in evidence.measured
        for estimates in m.categories.values()
        if (estimate := estimates.get(metric)) is not None
        for value in estimate.known_values
    ]
    marks = {name: points for name in names if (points := _marks(evidence, name, metric))}
    drawings = [
        Drawing(
            name or "no category",
            charts.points(
                [Series(name, "accent", of_category)],
                label=f"{name}, per round: {spoken(of_category)}",
                height=130,
                percent=percent,
                include=include,
                connect=percent or evidence.judge != "model",
                lines=[(0.5, "")] if percent else (),
            ),
        )
        for name, of_category in marks.items()
    ]
    rows = [
        [
            text_cell(mark.label),
            text_cell(name),
            *estimate_cells(mark.estimate, percent=percent, href=mark.href),
        ]
        for name, of_category in marks.items()
        for mark in of_category
    ]
    measure = "Win rate against the base" if percent else "Mean preference score"
    return Panel(
        "categories",
        _finding(evidence, marks),
        f"{measure} per category, all on one scale. {evidence.conditions}",
        drawings,
        Table(["Round", "Category", measure, "from", "to", "n (prompts)"], rows),
        is_simulated=evidence.is_simulated,
        empty="Appears when the evaluated prompts have categories.",
        wide=True,
    )


def _metric(evidence: Evidence) -> str:
    """The mean score if all rounds have the same scale; otherwise the win rate, if there is one."""
    by_name = [estimates for m in evidence.measured for estimates in m.categories.values()]
    has_scores = any("score" in estimates for estimates in by_name)
    has_win_rates = any("win_rate_vs_base" in estimates for estimates in by_name)
    if has_win_rates and not (has_scores and evidence.judge != "model"):
        return "win_rate_vs_base"
    return "score"


def _marks(evidence: Evidence, category: str, metric: str) -> list[Mark]:
    return [
        Mark(
            m.label,
            estimate,
            f"{m.name}, {category}: {in_words(estimate, percent=metric != 'score')}",
            evidence.samples_url(m.round, category=category),
            m.round.verdict == "promoted",
        )
        for m in evidence.measured
        if (estimate := m.categories.get(category, {}).get(metric)) is not None
    ]


def _finding(evidence: Evidence, marks: dict[str, list[Mark]]) -> str:
    if not marks:
        return "By category"
    if evidence.judge == "model" or len(evidence.measured) < 2:
        return f"{len(marks)} categories, measured separately"
    newest = evidence.measured[-1]
    directions = {
        name: change(of_category[-2].estimate, of_category[-1].estimate).direction
        for name, of_category in marks.items()
        if len(of_category) > 1 and of_category[-1].label == newest.label
    }
    rose = [name for name, direction in directions.items() if direction > 0]
    fell = [name for name, direction in directions.items() if direction < 0]
    parts = [f"{listed(names)} {verb}" for names, verb in ((rose, "rose"), (fell, "fell")) if names]
    return f"{capitalized('; '.join(parts) or 'No category shows a clear change')} in {newest.name}"
