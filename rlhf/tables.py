"""Tables behind pictures: cells, what a CSV gets of them, and figures out of a stage's result."""

import csv
import io
import math
from dataclasses import dataclass
from typing import Any

from rlhf import charts
from rlhf.charts import Figure


@dataclass(frozen=True)
class Cell:
    """What a table shows; `value` is what the CSV gets, `href` the rows behind the number."""

    value: str | float | int | None
    text: str
    href: str = ""
    is_number: bool = False


@dataclass(frozen=True)
class Table:
    columns: list[str]
    rows: list[list[Cell]]

    @property
    def body(self) -> list[list[tuple[str, Cell]]]:
        """Rows of (column, cell): on a phone each cell names its column."""
        return [list(zip(self.columns, row, strict=True)) for row in self.rows]


def to_csv(table: Table) -> str:
    """The table for a spreadsheet. Text that a spreadsheet would run as a formula is quoted."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([harmless(name) for name in table.columns])
    for row in table.rows:
        writer.writerow([_csv_value(cell.value) for cell in row])
    return out.getvalue()


def _csv_value(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return harmless(value) if isinstance(value, str) else value


def harmless(text: str) -> str:
    """Text that no spreadsheet takes for a formula (OWASP, CSV injection)."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def figure_in(told: Any, value: str, interval: str, n: str) -> Figure | None:
    """The figure that a result's fields of these names tell; None where there is no such number.

    An interval of no width (a single prompt) says nothing and is left out.
    """
    if not isinstance(told, dict) or not is_number(told.get(value)):
        return None
    bounds = told.get(interval)
    count = int(told[n]) if is_number(told.get(n)) else 0
    if not isinstance(bounds, list | tuple) or len(bounds) != 2 or not all(map(is_number, bounds)):
        return Figure(float(told[value]), None, None, count)
    return with_interval(float(told[value]), float(bounds[0]), float(bounds[1]), count)


def with_interval(value: float, low: float | None, high: float | None, n: int) -> Figure:
    """A figure; an interval of no width (a single prompt, a bare mean) is none at all."""
    return Figure(value, None, None, n) if low == high else Figure(value, low, high, n)


def estimate(figure: Figure, *, percent: bool = False, href: str = "") -> list[Cell]:
    """Four cells: the value, from, to, n."""
    return [
        plain(figure.value, percent=percent, href=href),
        plain(figure.low, percent=percent),
        plain(figure.high, percent=percent),
        Cell(figure.n, f"{figure.n:,}", "", is_number=True),
    ]


def plain(value: Any, *, percent: bool = False, href: str = "") -> Cell:
    """One number; a dash for whatever is none."""
    if not is_number(value):
        return Cell(None, "–", "", is_number=True)
    return Cell(float(value), charts.number(value, percent=percent), href, is_number=True)


def is_number(value: Any) -> bool:
    """Whether a value is a finite number (JSON's true is none)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
