"""A round's reward models on its page: accuracy, calibration, and both broken down."""

from dataclasses import dataclass
from typing import Any

from rlhf.dashboard import charts
from rlhf.dashboard.charts import DASHES, SHAPES, Drawing, Mark, Series
from rlhf.dashboard.tables import Table, estimate_cells, number_cell, text_cell
from rlhf.estimates import Estimate, estimate_from, in_words, is_number, number
from rlhf.training.intervals import wilson

SIDES = (
    ("train", "training reward model", "accent", "circle", ""),
    ("test", "test reward model", "ink-2", "diamond", "6 4"),
)
COUNTS = (("n_judgments", "judgments"), ("n_prompts", "prompts"), ("n_pairs", "pairs"))
BREAKDOWNS = ("strength", "category", "annotator", "round")


@dataclass(frozen=True)
class RewardReport:
    """The reward_model stage's result as charts and tables."""

    accuracy: Drawing
    calibration: Drawing | None
    table: Table
    calibration_table: Table
    warnings: list[str]
    counts: list[tuple[str, str]]
    breakdown: Table
    """Accuracy by strength, category, annotator and round, each with how far people agree."""


def reward_report(result: dict[str, Any]) -> RewardReport | None:
    """The report of the stage's `result.json`; None where nothing was measured."""
    accuracy, table = _accuracy(result)
    if accuracy is None:
        return None
    calibration, calibration_table = _calibration(result.get("calibration") or {})
    return RewardReport(
        accuracy,
        calibration,
        table,
        calibration_table,
        [str(text) for text in result.get("warnings") or []],
        [(name, f"{result[key]:,}") for key, name in COUNTS if is_number(result.get(key))],
        _breakdown(result.get("train") or {}),
    )


def _accuracy(result: dict[str, Any]) -> tuple[Drawing | None, Table]:
    """Both models on each axis, with how far people agree on the same pairs."""
    series, rows = [], []
    agreement: dict[str, Mark] = {}
    for side, name, token, shape, dash in SIDES:
        marks = []
        axes = result.get(side)
        for axis, fields in axes.items() if isinstance(axes, dict) else ():
            accuracy = estimate_from(fields, "accuracy", "accuracy_ci", "n")
            if accuracy is None:
                continue
            words = in_words(accuracy, percent=True)
            marks.append(Mark(axis, accuracy, f"{name}, {axis}: {words} held-out pairs"))
            agreed = estimate_from(fields, "human_agreement", "", "human_n")
            if agreed is not None:
                title = f"human agreement, {axis}: {in_words(agreed, percent=True)}"
                agreement.setdefault(axis, Mark(axis, agreed, title))
            rows.append(
                [
                    text_cell(name.capitalize()),
                    text_cell(axis),
                    *estimate_cells(accuracy, percent=True),
                    *(number_cell(fields.get(k)) for k in ("ece", "temperature", "ece_fitted")),
                    number_cell(fields.get("human_agreement"), percent=True),
                ]
            )
        if marks:
            series.append(Series(name, token, marks, shape, dash))
    columns = ["Model", "Axis", "Accuracy", "from", "to", "n (pairs)", "ECE", "Temperature"]
    table = Table([*columns, "ECE at temperature", "Human agreement"], rows)
    if not series:
        return None, table
    if agreement:
        series.append(Series("human agreement", "ink-3", list(agreement.values()), "square"))
    chart = charts.points(
        series,
        label="Accuracy on held-out pairs per axis, with intervals",
        height=260,
        percent=True,
        lines=[(0.5, "chance")],
        connect=False,
    )
    return Drawing("Accuracy on held-out prompts", chart), table


def _calibration(axes: dict[str, Any]) -> tuple[Drawing | None, Table]:
    """The reliability diagram: the training reward model's confidence against its accuracy."""
    curves, rows = [], []
    for index, (axis, bins) in enumerate(axes.items()):
        marks, confidences = [], []
        for fields in bins:
            accuracy = _bin_accuracy(fields)
            if accuracy is None or not is_number(fields.get("p")):
                continue
            confidence = float(fields["p"])
            title = (
                f"{axis}: confidence {number(confidence, percent=True)}, accuracy "
                f"{number(accuracy.value, percent=True)} on {accuracy.n:,} pairs"
            )
            marks.append(Mark(axis, accuracy, title))
            confidences.append(confidence)
            cells = estimate_cells(accuracy, percent=True)
            rows.append([text_cell(axis), number_cell(confidence, percent=True), *cells])
        if marks:
            token = axis if axis in ("helpfulness", "safety") else "accent"
            shape, dash = SHAPES[index % len(SHAPES)], DASHES[index % len(DASHES)]
            curves.append((Series(axis, token, marks, shape, dash), confidences))
    table = Table(["Axis", "Confidence", "Accuracy", "from", "to", "n (pairs)"], rows)
    if not curves:
        return None, table
    chart = charts.plane(
        curves,
        label="Reliability diagram: the reward model's confidence against its accuracy",
        x_title="confidence",
        y_title="accuracy",
        height=260,
        calibration=True,
    )
    return Drawing("Calibration", chart, "plane"), table


def _bin_accuracy(fields: Any) -> Estimate | None:
    """One bin's accuracy with the interval of a share of independent pairs."""
    accuracy = estimate_from(fields, "accuracy", "", "n")
    if accuracy is None:
        return None
    return Estimate(accuracy.value, *wilson(accuracy.value, accuracy.n), accuracy.n)


def _breakdown(axes: dict[str, Any]) -> Table:
    rows = []
    for axis, fields in axes.items():
        parts = fields.get("by") if isinstance(fields, dict) else None
        for part in BREAKDOWNS:
            for value, part_fields in ((parts or {}).get(part) or {}).items():
                accuracy = estimate_from(part_fields, "accuracy", "accuracy_ci", "n")
                if accuracy is None:
                    continue
                rows.append(
                    [
                        text_cell(axis),
                        text_cell(part),
                        text_cell(value),
                        *estimate_cells(accuracy, percent=True),
                        number_cell(part_fields.get("human_agreement"), percent=True),
                    ]
                )
    columns = ["Axis", "By", "Value", "Accuracy", "from", "to", "n (pairs)", "Human agreement"]
    return Table(columns, rows)
