"""Estimates of `annotation.statistics.reliability` as text and as places on a small picture."""

from django import template
from django.utils.translation import gettext

from annotation.lib import numbers as figures
from annotation.lib.numbers import share
from annotation.statistics.estimates import Estimate, Habit

register = template.Library()


@register.filter
def percent(value: float | None) -> str:
    return "–" if value is None else share(value)


@register.filter
def decimal(value: float, places: int = 2) -> str:
    return figures.decimal(value, places)


@register.filter
def along(value: float | None) -> str:
    """A share as a place between 2 and 102 of the picture."""
    return f"{2 + 100 * min(1.0, max(0.0, value or 0.0)):.1f}"


@register.filter
def spoken(estimate: Estimate) -> str:
    if estimate.value is None:
        return gettext("not measured")
    if estimate.low is None or estimate.high is None:
        sentence = gettext("%(share)s (%(n)s comparisons)")
        return sentence % {"share": share(estimate.value), "n": estimate.n}
    sentence = gettext("%(share)s, between %(low)s and %(high)s (%(n)s comparisons)")
    shares = {"share": estimate.value, "low": estimate.low, "high": estimate.high}
    words = {name: share(value) for name, value in shares.items()}
    return sentence % (words | {"n": estimate.n})


@register.filter
def range_of(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return figures.interval(estimate.low, estimate.high)


@register.filter
def chance(p: float | None) -> str:
    if p is None:
        return gettext("not tested")
    return "p < .001" if p < 0.001 else f"p = {p:.3f}".replace("0.", ".", 1)


@register.filter
def is_sure(habit: Habit) -> bool:
    """Whether a habit is more than chance would give, at 1 %."""
    return habit.p is not None and habit.p < 0.01


@register.filter
def as_estimate(habit: Habit) -> Estimate:
    return Estimate(habit.share, n=habit.n)


@register.filter
def money(value: float | None) -> str:
    return "–" if value is None else f"{value:,.2f}"


@register.filter
def duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5_400 else f"{seconds / 3600:.1f} h"


@register.filter
def bar(n: int, most: int) -> str:
    """Height of a day's bar, of 100; a day without work has none, any other is visible."""
    return f"{max(3.0, 100 * n / most):.1f}" if n and most else "0"


@register.filter
def from_top(n: int, most: int) -> str:
    return f"{100 - float(bar(n, most)):.1f}"
