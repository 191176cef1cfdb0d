"""Rankings of K responses: lines of our own `preferences.jsonl`."""

from collections.abc import Iterable, Sequence
from typing import Any

from annotation.data.import_formats.fields import checked_text, whole_number
from annotation.data.import_formats.messages import checked_messages, prompt_item, with_system
from annotation.data.import_formats.report import (
    ComparisonItem,
    ImportReport,
    Row,
    RowError,
    SkipRow,
)
from annotation.data.import_formats.votes import vote_details
from annotation.models import MAX_RESPONSES


def ranking(row: Row, axis: str, report: ImportReport) -> Iterable[ComparisonItem]:
    """A line of `preferences.jsonl` in docs/formats.md: K responses with ranks per axis."""
    responses = row.get("responses")
    rest_below = row.get("unranked") == "below"
    if not isinstance(responses, list) or not 2 <= len(responses) <= MAX_RESPONSES:
        raise RowError(f"responses is not a list of 2 to {MAX_RESPONSES} texts.")
    texts = [checked_text(text, "a response", may_be_empty=True) for text in responses]
    if len(set(texts)) == 1:
        raise SkipRow("all responses are identical")
    ranks = _checked_ranks(row.get("ranks"), axis, len(texts), rest_below=rest_below)
    if not ranks:
        raise SkipRow("nothing is ranked")
    messages = with_system(
        row, checked_messages(row.get("messages", row.get("prompt")), "messages")
    )
    item = prompt_item(row, messages, report)
    vote = vote_details(row, axis)
    yield ComparisonItem(item, [(text, "") for text in texts], ranks, rest_below, vote)


def _checked_ranks(
    value: Any, axis: str, n_responses: int, *, rest_below: bool
) -> dict[str, list[int | None]]:
    """Dense ranks of each axis that orders anything; a bare list of ranks belongs to `axis`."""
    if isinstance(value, list):
        value = {axis: value}
    if not isinstance(value, dict):
        raise RowError("ranks maps each axis to one rank per response.")
    checked = {}
    for name, ranks in value.items():
        if ranks is None:
            continue
        if not isinstance(ranks, list) or len(ranks) != n_responses:
            raise RowError(f"ranks.{name} does not have one rank for each response.")
        whole = [None if rank is None else whole_number(rank) or 0 for rank in ranks]
        if any(rank is not None and rank < 1 for rank in whole):
            raise RowError(f"ranks.{name} has a value that is not a whole number from 1 or null.")
        if sum(rank is not None for rank in whole) >= (1 if rest_below else 2):
            checked[str(name)] = dense_ranks(whole)
    return checked


def dense_ranks(ranks: Sequence[int | None]) -> list[int | None]:
    """1, 2, 2, 3 for any numbers in that order: as judging stores them."""
    places = sorted({rank for rank in ranks if rank is not None})
    return [None if rank is None else places.index(rank) + 1 for rank in ranks]
