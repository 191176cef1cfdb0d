"""Estimates as text, in the reader's language.

With a real minus sign, never a negative zero, and no line break before a percent sign.
"""

from decimal import Decimal

from django.utils.formats import number_format


def decimal(value: float, places: int = 2) -> str:
    rounded = Decimal(f"{abs(value):.{places}f}")
    return ("−" if value < 0 and rounded else "") + number_format(rounded, places)


def interval(low: float, high: float, places: int = 0) -> str:
    """Two shares, as the dashboard writes them: `[49, 69 %]`."""
    return f"[{decimal(100 * low, places)}, {share(high, places)}]"


def share(value: float, places: int = 0) -> str:
    return f"{decimal(100 * value, places)}\N{NO-BREAK SPACE}%"
