"""Estimates as text: a figure with its interval."""

from collections.abc import Sequence
from typing import Any

from django import template
from django.contrib.humanize.templatetags.humanize import intcomma

from annotation.lib import numbers as figures
from annotation.lib.numbers import share

register = template.Library()


@register.filter
def absolute(value: int) -> int:
    return abs(value)


@register.filter
def unbroken(text: str) -> str:
    """The same without a line break before a percent sign."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


@register.filter
def percent(value: float | None) -> str:
    return "–" if value is None else share(value, 1)


@register.filter
def percent_range(interval: Sequence[float] | None) -> str:
    return figures.interval(interval[0], interval[1], 1) if interval else ""


@register.filter
def decimal(value: float | None, places: int = 2) -> str:
    return "–" if value is None else figures.decimal(value, places)


@register.filter
def decimal_range(interval: Sequence[float] | None) -> str:
    return f"[{figures.decimal(interval[0])}, {figures.decimal(interval[1])}]" if interval else ""


@register.filter
def as_written(value: Any) -> str:
    """A value of a frozen record as text: numbers with separators, lists with commas, – for none."""
    if value is None or value == "" or value == []:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(intcomma(value))
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(as_written(part) for part in value)
    return str(value)
