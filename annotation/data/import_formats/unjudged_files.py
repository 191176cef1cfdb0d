"""Prompts with responses that nobody judged yet: lists of responses, A and B, SFT, instruction data."""

from collections.abc import Iterable, Sequence
from typing import Any

from annotation.data.import_formats.fields import TEXT_KEYS, checked_text, label
from annotation.data.import_formats.messages import (
    checked_messages,
    prompt_item,
    prompt_of_texts,
    until_last_user_turn,
    with_system,
)
from annotation.data.import_formats.report import ComparisonItem, Row, RowError, SkipRow
from annotation.data.import_formats.scored_pairs import PAIRS
from annotation.data.import_formats.shape import Context, Shape, messages_of, named
from annotation.models import MAX_RESPONSES, Message

COLUMNS = frozenset(
    {*TEXT_KEYS, "messages", "system", "history", "input", "context", "category", "risk", "split"}
    | {"skill", "priority", "prompt_id", "question_id", "id"}
)
# Columns of one answer, as instruction data has them.
ANSWER_KEYS = ("completion", "output", "response", "answer")


def responses_of_row(rows: Sequence[Row], context: Context) -> Iterable[ComparisonItem]:
    """`responses`: texts, or objects with text and source; or two columns for A and B."""
    [row] = rows
    values = row.get("responses")
    if values is None:
        first, second = _pair(row) or ("", "")
        values = [row.get(first), row.get(second)]
    if not isinstance(values, list) or not values:
        raise RowError("responses is not a list of texts.")
    responses = list(
        dict(_response(value, number) for number, value in enumerate(values, 1)).items()
    )
    for start in range(0, len(responses), MAX_RESPONSES):
        yield _unjudged(row, _prompt(row), responses[start : start + MAX_RESPONSES], context)


def answered(rows: Sequence[Row], context: Context) -> Iterable[ComparisonItem]:
    """A prompt, or an instruction with an input, and one answer: supervised fine-tuning data."""
    [row] = rows
    key = next(key for key in ANSWER_KEYS if key in row)
    value = row[key]
    if isinstance(value, list):
        [message] = checked_messages(value[-1:], key)
        value = message["content"]
    if value in (None, ""):
        raise SkipRow("the answer is empty")
    yield _unjudged(row, _prompt(row), [(checked_text(value, key), "")], context)


def answered_conversation(rows: Sequence[Row], context: Context) -> Iterable[ComparisonItem]:
    """A conversation that ends with the assistant's turn: chat records and ShareGPT."""
    [row] = rows
    key = "messages" if "messages" in row else "conversations"
    messages = with_system(row, checked_messages(row[key], key))
    if messages[-1]["role"] != "assistant":
        raise RowError("the conversation does not end with the assistant's turn.")
    text = checked_text(messages[-1]["content"], "the last message", may_be_empty=True)
    yield _unjudged(row, messages[:-1], [(text, "")], context)


def _prompt(row: Row) -> list[Message]:
    if "messages" in row:
        return with_system(row, checked_messages(row["messages"], "messages"))
    key = next((key for key in TEXT_KEYS if row.get(key) not in (None, "")), "input")
    value = row.get(key)
    if isinstance(value, str):
        messages = messages_of(value, key)
        if len(messages) == 1:
            rest = {name: part for name, part in row.items() if name != key}
            return prompt_of_texts(rest, checked_text(value, key))
        return with_system(row, messages)
    return with_system(row, checked_messages(value, key))


def _unjudged(
    row: Row, messages: list[Message], responses: list[tuple[str, str]], context: Context
) -> ComparisonItem:
    item = prompt_item(row, until_last_user_turn(messages), context.report)
    return ComparisonItem(item, responses, {})


def _response(value: Any, number: int) -> tuple[str, str]:
    what = f"response {number}"
    if isinstance(value, dict):
        text = value.get("text", value.get("content", value.get("response")))
        source = named(value.get("source", value.get("model")))
        return checked_text(text, what, may_be_empty=True), label(source, "source", 200)
    return checked_text(value, what, may_be_empty=True), ""


def _pair(row: Row) -> tuple[str, str] | None:
    return next((pair for pair in PAIRS if pair[0] in row and pair[1] in row), None)


def _has_prompt(row: Row) -> bool:
    return any(row.get(key) not in (None, "") for key in (*TEXT_KEYS, "messages", "input"))


def _ends_with_the_assistant(row: Row) -> bool:
    value = row.get("messages", row.get("conversations"))
    last = value[-1] if isinstance(value, list) and value else None
    if not isinstance(last, dict):
        return False
    role = str(last.get("role", last.get("from"))).lower()
    return role in ("assistant", "gpt", "bot", "model", "chatgpt")


UNJUDGED = {
    "responses": Shape(
        title="prompts with responses to be judged",
        recognizes=lambda row: (
            _has_prompt(row) and (isinstance(row.get("responses"), list) or _pair(row) is not None)
        ),
        read=responses_of_row,
        columns=COLUMNS | {"responses"} | {name for pair in PAIRS for name in pair},
    ),
    "answered conversation": Shape(
        title="conversations that end with a response (chat records, ShareGPT)",
        recognizes=_ends_with_the_assistant,
        read=answered_conversation,
        columns=COLUMNS | {"conversations"},
    ),
    "answered": Shape(
        title="prompts with one answer (SFT, Alpaca)",
        recognizes=lambda row: (
            _has_prompt(row) and any(row.get(key) not in (None, "", []) for key in ANSWER_KEYS)
        ),
        read=answered,
        columns=COLUMNS | {*ANSWER_KEYS},
    ),
}
