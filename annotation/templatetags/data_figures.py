"""Estimates as text: a figure with its interval."""

from collections.abc import Sequence

from django import template

register = template.Library()


@register.filter
def absolute(value: int) -> int:
    return abs(value)


@register.filter
def percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


@register.filter
def percent_range(interval: Sequence[float] | None) -> str:
    return f"[{interval[0]:.1%}, {interval[1]:.1%}]" if interval else ""


@register.filter
def decimal_range(interval: Sequence[float] | None) -> str:
    return f"[{interval[0]:.2f}, {interval[1]:.2f}]" if interval else ""
