"""What a round's page shows of its reward models: how right, how sure, where and with whom."""

from dataclasses import dataclass
from typing import Any

from rlhf import charts, tables
from rlhf.charts import DASHES, SHAPES, Drawing, Figure, Mark, Series
from rlhf.tables import Cell, Table


@dataclass(frozen=True)
class RewardReport:
    """What the reward_model stage found, drawn."""

    accuracy: Drawing
    calibration: Drawing | None
    table: Table
    calibration_table: Table
    warnings: list[str]
    facts: list[tuple[str, str]]
    breakdown: Table
    """Accuracy by strength, category, annotator and round, beside how far people agree there."""


SIDES = (("train", "accent", "circle", ""), ("test", "ink-2", "diamond", "6 4"))
FACTS = (("n_judgments", "judgments"), ("n_prompts", "prompts"), ("n_pairs", "pairs"))
BREAKDOWNS = ("strength", "category", "annotator", "round")


def reward_report(result: dict[str, Any]) -> RewardReport | None:
    """The stage's `result.json` as charts and tables; None where it measured nothing."""
    accuracy, table = _accuracy(result)
    if accuracy is None:
        return None
    calibration, points = _calibration(result.get("calibration") or {})
    return RewardReport(
        accuracy,
        calibration,
        table,
        points,
        [str(text) for text in result.get("warnings") or []],
        [(name, f"{result[key]:,}") for key, name in FACTS if tables.is_number(result.get(key))],
        _breakdown(result.get("train") or {}),
    )


def _accuracy(result: dict[str, Any]) -> tuple[Drawing | None, Table]:
    """Both models on each axis, beside how far people agree with one another on those pairs."""
    series, rows = [], []
    people: dict[str, Mark] = {}
    for side, token, shape, dash in SIDES:
        told, marks = result.get(side), []
        for axis, figures in told.items() if isinstance(told, dict) else ():
            figure = tables.figure_in(figures, "accuracy", "accuracy_ci", "n")
            if figure is None:
                continue
            words = charts.in_words(figure, percent=True)
            marks.append(Mark(axis, figure, f"{side}-RM, {axis}: {words} held-out pairs"))
            agreed = tables.figure_in(figures, "human_agreement", "", "human_n")
            if agreed is not None:
                share = charts.in_words(agreed, percent=True)
                people.setdefault(axis, Mark(axis, agreed, f"people, {axis}: {share}"))
            rows.append(
                [
                    Cell(f"{side}-RM", f"{side}-RM"),
                    Cell(axis, axis),
                    *tables.estimate(figure, percent=True),
                    *(tables.plain(figures.get(k)) for k in ("ece", "temperature", "ece_fitted")),
                    tables.plain(figures.get("human_agreement"), percent=True),
                ]
            )
        if marks:
            series.append(Series(f"{side}-RM", token, marks, shape, dash))
    columns = ["Model", "Axis", "Accuracy", "from", "to", "n (pairs)", "ECE", "Temperature"]
    table = Table([*columns, "ECE with it", "People agree"], rows)
    if not series:
        return None, table
    if people:
        series.append(Series("people with one another", "ink-3", list(people.values()), "square"))
    drawn = charts.points(
        series,
        label="Accuracy on held-out pairs per axis, with intervals",
        height=260,
        percent=True,
        lines=[(0.5, "chance")],
        connect=False,
    )
    return Drawing("Accuracy on held-out prompts", drawn), table


def _calibration(told: dict[str, Any]) -> tuple[Drawing | None, Table]:
    """The reliability diagram: how sure the train-RM is against how often it is right."""
    curves, rows = [], []
    for index, (axis, bins) in enumerate(told.items()):
        marks, places = [], []
        for point in bins:
            right = _right(point)
            if right is None or not tables.is_number(point.get("p")):
                continue
            sure = float(point["p"])
            words = (
                f"says {charts.number(sure, percent=True)}, is right on "
                f"{charts.number(right.value, percent=True)} of {right.n:,} pairs"
            )
            marks.append(Mark(axis, right, f"{axis}: {words}"))
            places.append(sure)
            rows.append(
                [
                    Cell(axis, axis),
                    tables.plain(sure, percent=True),
                    *tables.estimate(right, percent=True),
                ]
            )
        if marks:
            token = axis if axis in ("helpfulness", "safety") else "accent"
            shape, dash = SHAPES[index % len(SHAPES)], DASHES[index % len(DASHES)]
            curves.append((Series(axis, token, marks, shape, dash), places))
    table = Table(["Axis", "Probability given", "Right", "from", "to", "n (pairs)"], rows)
    if not curves:
        return None, table
    drawn = charts.plane(
        curves,
        label="Reliability diagram: how sure the reward model is against how often it is right",
        x_title="probability it gives",
        y_title="share it is right",
        height=260,
        calibration=True,
    )
    return Drawing("Calibration", drawn, "plane"), table


def _breakdown(told: dict[str, Any]) -> Table:
    rows = []
    for axis, about in told.items():
        parts = about.get("by") if isinstance(about, dict) else None
        for what in BREAKDOWNS:
            for value, figures in ((parts or {}).get(what) or {}).items():
                figure = tables.figure_in(figures, "accuracy", "accuracy_ci", "n")
                if figure is None:
                    continue
                rows.append(
                    [
                        Cell(axis, axis),
                        Cell(what, what),
                        Cell(value, str(value)),
                        *tables.estimate(figure, percent=True),
                        tables.plain(figures.get("human_agreement"), percent=True),
                    ]
                )
    columns = ["Axis", "By", "Which", "Accuracy", "from", "to", "n (pairs)", "People agree"]
    return Table(columns, rows)


def _right(point: Any) -> Figure | None:
    """How often it was right in one bin, with the interval of a share of independent pairs."""
    found = tables.figure_in(point, "accuracy", "", "n")
    if found is None:
        return None
    return Figure(found.value, *charts.wilson(found.value, found.n), found.n)
