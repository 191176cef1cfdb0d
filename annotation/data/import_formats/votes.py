"""Who judged a row of a file, and what their vote says in addition to its ranks."""

from typing import Any

from annotation.data.import_formats.fields import checked_text, whole_number
from annotation.data.import_formats.report import Row, RowError, VoteDetails

ANNOTATOR_KEYS = ("annotator", "annotator_id", "worker_id", "rater_id", "rater")
VOTE_KEYS = {*ANNOTATOR_KEYS, "judgment_id", "strength", "margin", "all_bad", "reason"}


def vote_details(row: Row, axis: str) -> VoteDetails:
    """The vote of a row; a `strength` or `margin` that is a number belongs to `axis`."""
    annotator = next((row[key] for key in ANNOTATOR_KEYS if row.get(key) not in (None, "")), "")
    return VoteDetails(
        annotator=checked_text(str(annotator), "annotator", may_be_empty=True),
        judgment_id=checked_text(
            str(row.get("judgment_id") or ""), "judgment_id", may_be_empty=True
        ),
        strength=_strength(row, axis),
        all_bad=_all_bad(row),
        reason=checked_text(row.get("reason") or "", "reason", may_be_empty=True),
    )


def _strength(row: Row, axis: str) -> dict[str, dict[str, Any]]:
    """`{axis: {"level", "margin"}}` for each axis that has one of them."""
    levels = {
        name: _number(value, "strength", is_whole=True)
        for name, value in _by_axis(row, "strength", axis).items()
    }
    margins = {
        name: _number(value, "margin", is_whole=False)
        for name, value in _by_axis(row, "margin", axis).items()
    }
    # A pair without a strength has the margin 0, as TRL requires a number.
    axes = [name for name in {**levels, **margins} if name in levels or margins[name]]
    return {name: {"level": levels.get(name), "margin": margins.get(name)} for name in axes}


def _by_axis(row: Row, key: str, axis: str) -> dict[str, Any]:
    value = row.get(key)
    values = value if isinstance(value, dict) else {axis: value}
    return {str(name): number for name, number in values.items() if number not in (None, "")}


def _number(value: Any, what: str, *, is_whole: bool) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise RowError(f"{what} is not a number.") from None
    if not is_whole:
        return number
    level = whole_number(number)
    if isinstance(value, bool) or level is None or level < 0:
        raise RowError(f"{what} is not a whole number from 0.")
    return level


def _all_bad(row: Row) -> list[str]:
    axes = row.get("all_bad") or []
    if axes == "[]":  # a CSV cell
        return []
    if not isinstance(axes, list) or not all(isinstance(name, str) for name in axes):
        raise RowError("all_bad is not a list of axes.")
    return axes
