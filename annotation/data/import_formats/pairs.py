"""Pairs of a better and a worse response: Human/Assistant transcripts, and TRL's columns."""

from collections.abc import Iterable
from typing import Any

from annotation.data.import_formats.fields import checked_text, look_the_same
from annotation.data.import_formats.messages import (
    checked_messages,
    prompt_item,
    prompt_of_texts,
    shared_beginning,
    transcript,
    until_last_user_turn,
    with_system,
)
from annotation.data.import_formats.report import (
    ComparisonItem,
    ImportReport,
    Row,
    RowError,
    SkipRow,
)
from annotation.data.import_formats.votes import vote_details
from annotation.models import Message

IDENTICAL = "both responses are identical"
# Where the prompt is, the first that is there: TRL, Orca, ShareGPT, Alpaca.
PROMPT_KEYS = ("prompt", "question", "conversations", "instruction", "input")
# Scores of a data set that made pairs of them: equal ones are a tie.
SCORES = (("score_chosen", "score_rejected"), ("chosen-rating", "rejected-rating"))
SAME_TO_THE_EYE = "the responses differ in white space or Unicode form only"


def transcript_pair(row: Row, axis: str, report: ImportReport) -> Iterable[ComparisonItem]:
    if isinstance(row.get("prompt"), str):
        prompt = until_last_user_turn(transcript(row["prompt"], "prompt"))
        chosen = checked_text(row.get("chosen"), "chosen", may_be_empty=True).strip()
        rejected = checked_text(row.get("rejected"), "rejected", may_be_empty=True).strip()
    else:
        prompt, chosen, rejected = _split_conversations(
            transcript(row.get("chosen"), "chosen"), transcript(row.get("rejected"), "rejected")
        )
    yield _comparison(row, with_system(row, prompt), chosen, rejected, axis, report)


def trl_pair(row: Row, axis: str, report: ImportReport) -> Iterable[ComparisonItem]:
    """`chosen` and `rejected` with a prompt: in the conversations, or in columns of other names."""
    prompt, chosen, rejected = _prompt(row), row.get("chosen"), row.get("rejected")
    if prompt is None and not any(isinstance(value, list) for value in (chosen, rejected)):
        raise RowError(_without_prompt(row))
    if prompt is None or _is_conversation(chosen) or _is_conversation(rejected):
        # TRL's implicit prompt: the turns that both conversations start with
        messages, chosen, rejected = _split_conversations(
            checked_messages(chosen, "chosen"), checked_messages(rejected, "rejected")
        )
        messages = with_system(row, messages)
        _check_is_part(prompt, messages)
    elif isinstance(prompt, str):
        rest = {key: value for key, value in row.items() if value != prompt}
        messages = prompt_of_texts(rest, checked_text(prompt, "prompt"))
    else:
        messages = with_system(row, checked_messages(prompt, "prompt"))
    yield _comparison(
        row, messages, _response(chosen, "chosen"), _response(rejected, "rejected"), axis, report
    )


def _prompt(row: Row) -> Any:
    return next((row[key] for key in PROMPT_KEYS if row.get(key) not in (None, "")), None)


def _without_prompt(row: Row) -> str:
    """What is wrong with a row of plain responses that says nothing to answer."""
    for key in PROMPT_KEYS:
        if row.get(key) == "":
            return f"{key} is empty."
    return "there is no prompt: chosen and rejected are responses without a conversation."


def _is_conversation(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 1


def _check_is_part(prompt: Any, messages: list[Message]) -> None:
    """RowError if the prompt's own column says something else than the conversations."""
    if isinstance(prompt, str):
        if not any(look_the_same(prompt, message["content"]) for message in messages):
            raise RowError(
                "the prompt is not a message of the conversations in chosen and rejected."
            )
    elif prompt is not None and checked_messages(prompt, "prompt") != messages:
        raise RowError("the prompt differs from the start of chosen and rejected.")


def _response(value: Any, what: str) -> str:
    if isinstance(value, str):
        return checked_text(value, what, may_be_empty=True)
    if isinstance(value, dict):
        value = [value]
    messages = checked_messages(value, what)
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        raise RowError(f"{what} is not one message of the assistant.")
    return messages[0]["content"]


def _split_conversations(
    chosen: list[Message], rejected: list[Message]
) -> tuple[list[Message], str, str]:
    """The shared conversation, and the last response of each."""
    if chosen == rejected:
        raise SkipRow(IDENTICAL)
    shared = shared_beginning(chosen, rejected)
    endings = (chosen[len(shared) :], rejected[len(shared) :])
    if not all(len(ending) == 1 and ending[0]["role"] == "assistant" for ending in endings):
        raise SkipRow("the two conversations differ before the last response")
    return shared, endings[0][0]["content"], endings[1][0]["content"]


def _comparison(
    row: Row, prompt: list[Message], chosen: str, rejected: str, axis: str, report: ImportReport
) -> ComparisonItem:
    if chosen == rejected:
        raise SkipRow(IDENTICAL)
    if look_the_same(chosen, rejected):
        raise SkipRow(SAME_TO_THE_EYE)
    if prompt and prompt[-1]["role"] != "user":
        raise RowError("the prompt does not end with the user's turn.")
    for text in (chosen, rejected):
        if not text.strip():
            report.notes["a response is empty; it was imported, as a model may say nothing"] += 1
    return ComparisonItem(
        prompt_item(row, prompt, report),
        [(chosen, ""), (rejected, "")],
        {axis: [1, 1] if _is_tie(row) else [1, 2]},
        vote=vote_details(row, axis),
    )


def _is_tie(row: Row) -> bool:
    return any(
        row.get(first) is not None and row.get(first) == row.get(second) for first, second in SCORES
    )
