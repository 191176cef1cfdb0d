"""Rows of an upload over the API: a prompt with responses that people have not judged yet."""

import json
from dataclasses import dataclass, field
from typing import Any

from annotation.data.import_formats.conversations import conversation_prompt
from annotation.data.import_formats.fields import ID_KEYS, checked_text, label
from annotation.data.import_formats.plain_prompts import plain_prompt
from annotation.data.import_formats.report import ImportReport, PromptItem, Row, RowError

UNJUDGED_KEYS = {
    "prompt",
    "messages",
    "responses",
    "category",
    "risk",
    "split",
    "skill",
    "priority",
}
MAX_SAMPLING = 2_000


@dataclass(frozen=True)
class UnjudgedResponse:
    """A response to be judged; annotators never see `source` and `sampling`."""

    text: str
    source: str = ""
    sampling: dict[str, Any] = field(default_factory=dict)


def read_unjudged(
    row: Row, report: ImportReport, *, fewest: int, most: int
) -> tuple[PromptItem, list[UnjudgedResponse]]:
    """A prompt with `fewest` to `most` responses; RowError says what is wrong."""
    if unknown := sorted(set(row) - UNJUDGED_KEYS - set(ID_KEYS)):
        raise RowError(f"there is no field “{str(unknown[0])[:40]}”.")
    if ("messages" in row) == ("prompt" in row):
        raise RowError("give a prompt or messages, one of them.")
    read = plain_prompt if isinstance(row.get("prompt"), str) else conversation_prompt
    values = row.get("responses", [])
    if not isinstance(values, list) or not fewest <= len(values) <= most:
        wanted = f"{fewest} to {most}" if fewest < most else f"exactly {most}" if most else "no"
        raise RowError(f"responses must be a list of {wanted} texts.")
    responses = [_response(value, number) for number, value in enumerate(values, start=1)]
    if len(responses) > 1 and len({response.text for response in responses}) == 1:
        raise RowError("all responses are the same text, so there is nothing to judge.")
    return read(row, report), responses


def _response(value: Any, number: int) -> UnjudgedResponse:
    what = f"response {number}"
    if isinstance(value, str):
        return UnjudgedResponse(checked_text(value, what, may_be_empty=True))
    if not isinstance(value, dict) or set(value) - {"text", "source", "sampling"}:
        raise RowError(f"{what} is a text, or an object with text, source and sampling.")
    sampling = value.get("sampling", {})
    if not isinstance(sampling, dict) or len(json.dumps(sampling)) > MAX_SAMPLING:
        raise RowError(f"sampling of {what} is an object of at most {MAX_SAMPLING:,} characters.")
    return UnjudgedResponse(
        checked_text(value.get("text"), what, may_be_empty=True),
        label(value.get("source"), f"source of {what}", 200),
        sampling,
    )
