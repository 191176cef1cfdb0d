"""A panel of the dashboard, and what several panels build alike: marks, tables, sentences."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rlhf.dashboard.charts import Drawing, Mark
from rlhf.dashboard.evidence import RATES, Evidence, MetricChange
from rlhf.dashboard.tables import Cell, Table, estimate_cells
from rlhf.estimates import in_words


@dataclass(frozen=True)
class Panel:
    """A finding, its charts and the table behind them.

    The finding is computed from the numbers. It claims a change only where the interval of the
    difference excludes zero; everything else is "no clear change".
    """

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


def metric_marks(evidence: Evidence, metric: str, query: dict[str, str]) -> list[Mark]:
    """One mark a round; `query` filters the page of samples that a mark opens."""
    return [
        Mark(
            m.label,
            estimate,
            f"{m.name}: {evidence.in_words(estimate, metric)}",
            evidence.samples_url(m.round, **query),
            m.round.verdict == "promoted",
        )
        for m in evidence.measured
        if (estimate := m.estimates.get(metric)) is not None
    ]


def start_policy_marks(evidence: Evidence, metric: str) -> list[Mark]:
    """Each round's start policy, as the round's own reward model scored it."""
    if evidence.judge != "model":
        return []
    return [
        Mark(
            m.label,
            estimate,
            f"{m.name}'s start policy, same reward model: {in_words(estimate)}",
            evidence.samples_url(m.round, vs="previous"),
        )
        for m in evidence.measured
        if (estimate := m.start.get(metric)) is not None
    ]


def metric_table(evidence: Evidence, metrics: dict[str, str]) -> Table:
    """A row per round; `metrics` are `{metric: name of its column}`."""
    columns = ["Round"]
    for name in metrics.values():
        columns += [name, f"{name}: from", f"{name}: to", f"{name}: n"]
    rows = []
    for m in evidence.measured:
        if not metrics.keys() & m.estimates.keys():
            continue
        cells = [Cell(m.label, str(m.round), m.round.get_absolute_url())]
        for metric in metrics:
            cells += estimate_cells(
                m.estimates.get(metric),
                percent=metric in RATES,
                href=evidence.samples_url(m.round, **samples_filter(metric)),
            )
        rows.append(cells)
    return Table(columns, rows)


def samples_filter(metric: str) -> dict[str, str]:
    """The samples page's filter for the prompts from which a metric is computed."""
    if metric.startswith("win_rate_vs_"):
        return {"vs": metric.removeprefix("win_rate_vs_")}
    if metric == "violation_rate":
        return {"risk": "harmful"}
    if metric == "over_refusal_rate":
        return {"risk": "harmless"}
    if metric == "unfinished_rate":
        return {"ending": "cut"}
    return {"axis": metric} if metric in ("helpfulness", "safety") else {}


def latest_change(subject: str, changes: Sequence[MetricChange]) -> str:
    """`Safety rose in round 2`, of the latest change; "" where there is nothing to compare."""
    if not changes:
        return ""
    verb = {1: "rose", -1: "fell", 0: "shows no clear change"}[changes[-1].direction]
    return f"{subject} {verb} in {changes[-1].after.name}"


def spoken(marks: Iterable[Mark]) -> str:
    """The marks for a screen reader."""
    return "; ".join(mark.title for mark in marks)


def listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + f" and {names[-1]}"


def capitalized(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
