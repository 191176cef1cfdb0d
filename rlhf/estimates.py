"""Numbers with their intervals: read from results, compared, and formatted."""

import math
from dataclasses import dataclass
from typing import Any, TypeGuard


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval and sample size n, as far as they are known."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int = 0

    @property
    def has_interval(self) -> bool:
        return self.low is not None and self.high is not None

    @property
    def known_values(self) -> list[float]:
        """The value and its known bounds: the range that a chart's axis has to include."""
        return [v for v in (self.value, self.low, self.high) if v is not None]


def with_interval(value: float, low: float | None, high: float | None, n: int) -> Estimate:
    """An estimate; an interval of width 0 (a single prompt) is left out."""
    return Estimate(value, None, None, n) if low == high else Estimate(value, low, high, n)


def estimate_from(fields: Any, value: str, interval: str, n: str) -> Estimate | None:
    """The estimate in a result's fields of these names; None if the value is not a number."""
    if not isinstance(fields, dict) or not is_number(fields.get(value)):
        return None
    bounds = fields.get(interval)
    count = int(fields[n]) if is_number(fields.get(n)) else 0
    if not isinstance(bounds, list | tuple) or len(bounds) != 2 or not all(map(is_number, bounds)):
        return Estimate(float(fields[value]), None, None, count)
    return with_interval(float(fields[value]), float(bounds[0]), float(bounds[1]), count)


def is_number(value: Any) -> TypeGuard[float]:
    """True for a finite number; False for JSON's true and false."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# --- Formatting ------------------------------------------------------------------------------


def number(value: float, *, percent: bool = False, signed: bool = False) -> str:
    """A short number: `0.62`, `42.5`, `62 %`; with the minus sign U+2212; never `-0`."""
    scaled = value * 100 if percent else value
    size = abs(scaled)
    if percent:
        digits = 0 if size >= 10 or abs(scaled - round(scaled)) < 1e-9 else 1
    else:
        digits = 0 if size >= 100 or abs(scaled - round(scaled)) < 1e-9 else 1 if size >= 10 else 2
    text = f"{size:,.{digits}f}"
    if not percent and 0 < size < 0.005:
        text = f"{size:.1e}"
    negative = value < 0 and text.strip("0.,") != ""
    sign = "−" if negative else "+" if signed and text.strip("0.,") else ""
    return sign + text + (" %" if percent else "")


def in_words(estimate: Estimate, *, percent: bool = False, unit: str = "") -> str:
    """The estimate with its interval and n: `0.62 [0.51, 0.73], n = 150`."""
    text = number(estimate.value, percent=percent) + (f" {unit}" if unit else "")
    if estimate.low is not None and estimate.high is not None:
        low = number(estimate.low, percent=percent).removesuffix(" %")
        high = number(estimate.high, percent=percent)
        text += f" [{low}, {high}]"
    if estimate.n:
        text += f", n = {estimate.n:,}"
    return text


# --- Intervals and differences ---------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """The difference of two estimates, with a 95 % interval where both had one."""

    value: float
    low: float | None
    high: float | None

    @property
    def direction(self) -> int:
        """1 or -1 when the interval excludes no change, otherwise 0."""
        if self.low is None or self.high is None:
            return 0
        return 1 if self.low > 0 else -1 if self.high < 0 else 0


def change(before: Estimate, after: Estimate) -> Change:
    """after - before, with the interval of MOVER (Zou & Donner 2008).

    MOVER treats the estimates as independent. Both are measured on the same prompts, so that the
    interval is too wide rather than too narrow.
    """
    value = after.value - before.value
    if None in (before.low, before.high, after.low, after.high):
        return Change(value, None, None)
    assert before.low is not None
    assert before.high is not None
    assert after.low is not None
    assert after.high is not None
    down = math.hypot(after.value - after.low, before.high - before.value)
    up = math.hypot(after.high - after.value, before.value - before.low)
    return Change(value, value - down, value + up)
