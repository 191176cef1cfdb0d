"""Tables behind charts: their cells, as the page shows them and as a CSV has them."""

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from annotation.data.exports.spreadsheets import safe_cell
from rlhf.estimates import Estimate, is_number, number


@dataclass(frozen=True)
class Cell:
    """`text` is what the page shows, `value` what the CSV has, `href` the rows behind the number."""

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


def table_as_csv(table: Table) -> str:
    """The table for a spreadsheet, floats with six significant digits."""
    rows = ([_rounded(cell.value) for cell in row] for row in table.rows)
    return as_csv(table.columns, rows)


def as_csv(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """CSV text. Text that a spreadsheet would run as a formula gets a leading apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out)
    for row in (columns, *rows):
        writer.writerow([safe_cell(cell) for cell in row])
    return out.getvalue()


def _rounded(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def text_cell(value: Any, href: str = "") -> Cell:
    """A cell whose text is its value."""
    return Cell(str(value), str(value), href)


def number_cell(value: Any, *, percent: bool = False, href: str = "") -> Cell:
    """One number; a dash for anything else."""
    if not is_number(value):
        return Cell(None, "–", "", is_number=True)
    return Cell(float(value), number(value, percent=percent), href, is_number=True)


def estimate_cells(
    estimate: Estimate | None, *, percent: bool = False, href: str = ""
) -> list[Cell]:
    """Four cells: the value, from, to, n; four dashes where there is no estimate."""
    if estimate is None:
        return [number_cell(None)] * 4
    return [
        number_cell(estimate.value, percent=percent, href=href),
        number_cell(estimate.low, percent=percent),
        number_cell(estimate.high, percent=percent),
        Cell(estimate.n, f"{estimate.n:,}", "", is_number=True),
    ]
