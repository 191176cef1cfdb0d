"""A shape that rows may have, and what the readers of published shapes share."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from annotation.data.import_formats.fields import (
    ID_KEYS,
    SPLITS,
    checked_text,
    look_the_same,
    whole_number,
)
from annotation.data.import_formats.messages import (
    TURN,
    checked_messages,
    prompt_item,
    shared_beginning,
    transcript,
    until_last_user_turn,
)
from annotation.data.import_formats.report import (
    ComparisonItem,
    ImportReport,
    Row,
    RowError,
    SkipRow,
    VoteDetails,
)
from annotation.models import MAX_RESPONSES, Message

SAFETY_AXES = ("safety", "harmlessness")
MAX_CATEGORY = 60


@dataclass(frozen=True)
class Context:
    """What the person said about the file, and the report that grows with it."""

    axis: str
    """What a preference is about where the file does not say."""
    axes: Sequence[str]
    report: ImportReport

    @property
    def safety_axis(self) -> str:
        """The project's axis of harm; "" if it has none."""
        return next((axis for axis in self.axes if axis in SAFETY_AXES), "")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How rows of one data set or tool are recognized and read.

    `read` gets one row, or with `group` all rows in sequence that have the same group.
    """

    title: str
    recognizes: Callable[[Row], bool]
    read: Callable[[Sequence[Row], Context], Iterable[ComparisonItem]]
    columns: frozenset[str] = field(default_factory=frozenset)
    """What is read or has nothing to say; the report names any other column."""
    group: Callable[[Row], Any] | None = None
    group_size: int = MAX_RESPONSES
    """Most rows of a group; the next one begins another."""


def has(*names: str) -> Callable[[Row], bool]:
    """Recognizes rows with all of these columns."""
    return lambda row: all(name in row for name in names)


def messages_of(value: Any, what: str) -> list[Message]:
    """A prompt as a list of messages, a Human/Assistant transcript or a text."""
    if isinstance(value, str):
        text = checked_text(value, what)
        return transcript(text, what) if TURN.match(text) else [{"role": "user", "content": text}]
    return checked_messages(value, what)


def response_text(value: Any, what: str) -> str:
    """A response as a text, as one message, or as a list of one."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict):
        [message] = checked_messages([value], what)
        if message["role"] != "assistant":
            raise RowError(f"{what} is not a message of the assistant.")
        return message["content"]
    return checked_text(value, what, may_be_empty=True)


def ending_texts(first: list[Message], second: list[Message]) -> tuple[list[Message], list[str]]:
    """The prompt that two conversations share, and what the assistant said last in each."""
    shared = shared_beginning(first, second)
    if len(first) == len(second) == len(shared):
        raise SkipRow("both responses are identical")
    endings = (first[len(shared) :], second[len(shared) :])
    if not all(len(ending) == 1 and ending[0]["role"] == "assistant" for ending in endings):
        raise SkipRow("the two conversations differ before the last response")
    return shared, [ending[0]["content"] for ending in endings]


def own_labels(row: Row) -> Row:
    """The row's id, category and split, where they are ones that a prompt can have."""
    labels = {key: row[key] for key in ID_KEYS if isinstance(row.get(key), (str, int))}
    category, split = row.get("category", row.get("domain")), row.get("split")
    if isinstance(category, str) and len(category) <= MAX_CATEGORY:
        labels["category"] = category
    if isinstance(split, str) and split.lower() in SPLITS:
        labels["split"] = split
    return labels


def compared(
    row: Row,
    messages: list[Message],
    responses: Sequence[tuple[str, str]],
    ranks: Mapping[str, Sequence[float | None]],
    context: Context,
    *,
    vote: VoteDetails | None = None,
    ratings: Sequence[Mapping[str, int]] = (),
    safety: Sequence[Mapping[str, Any] | None] = (),
) -> ComparisonItem:
    """A vote: `ranks` are numbers per axis of which the lowest is best; at most nine responses."""
    best = range(len(responses))
    if len(responses) > MAX_RESPONSES:
        order: Sequence[Any] = next(iter(ranks.values()), [0] * len(responses))
        best = sorted(best, key=lambda i: (order[i] is None, order[i]))[:MAX_RESPONSES]  # type: ignore[assignment]
        context.report.notes[f"only the best {MAX_RESPONSES} responses were imported"] += 1
    chosen = [responses[index] for index in best]
    if len(chosen) > 1 and all(look_the_same(chosen[0][0], text) for text, _ in chosen[1:]):
        raise SkipRow("the responses are identical, or differ in white space only")
    prompt = until_last_user_turn(messages)
    return ComparisonItem(
        prompt_item(own_labels(row), prompt, context.report),
        [(text, source[:80]) for text, source in chosen],
        {axis: dense([numbers[index] for index in best]) for axis, numbers in ranks.items()},
        vote=vote or VoteDetails(),
        ratings=[dict(ratings[index]) for index in best] if any(ratings) else [],
        safety=[dict(marks) if marks else None for marks in (safety[i] for i in best)]
        if any(safety)
        else [],
    )


def dense(numbers: Sequence[float | None]) -> list[int | None]:
    """Ranks 1, 2, 2, 3 for numbers in that order."""
    places = sorted({number for number in numbers if number is not None})
    return [None if number is None else places.index(number) + 1 for number in numbers]


def number_of(value: Any, what: str) -> float:
    """A number, as JSON gives it or as a CSV file spells it."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise RowError(f"{what} is not a number.") from None
    if number != number or abs(number) == float("inf"):
        raise RowError(f"{what} is not a number.")
    return number


def mark_of(value: Any, name: str, low: int, high: int, report: ImportReport) -> int | None:
    """A whole mark within its scale, which the report remembers; None where there is none."""
    if value in (None, "", "N/A"):
        return None
    mark = whole_number(number_of(value, name))
    if mark is None or not low <= mark <= high:
        raise RowError(f"{name} is not a whole number from {low} to {high}.")
    report.attributes[name] = (low, high)
    return mark


def named(value: Any) -> str:
    """A rater's name, "" if there is none."""
    return "" if value is None else str(value)[:200]
