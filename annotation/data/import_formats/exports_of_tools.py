"""What annotation tools and APIs export: Label Studio, Argilla, OpenAI's preference files."""

from collections.abc import Iterable, Sequence
from typing import Any

from annotation.data.import_formats.fields import checked_text
from annotation.data.import_formats.messages import checked_messages
from annotation.data.import_formats.report import (
    ComparisonItem,
    Row,
    RowError,
    SkipRow,
    VoteDetails,
)
from annotation.data.import_formats.shape import (
    Context,
    Shape,
    compared,
    has,
    messages_of,
    named,
    number_of,
    response_text,
)

PROMPT_KEYS = ("prompt", "question", "instruction", "input", "text", "messages")


def label_studio(rows: Sequence[Row], context: Context) -> Iterable[ComparisonItem]:
    """A task of Label Studio's JSON with every annotation by pairwise choice or by ranking."""
    [row] = rows
    data = row["data"]
    if not isinstance(data, dict) or not isinstance(row["annotations"], list):
        raise RowError("data is not an object, or annotations is not a list.")
    prompt = next((data[key] for key in PROMPT_KEYS if key in data), None)
    if prompt is None:
        raise RowError(f"the task's data has no {', '.join(PROMPT_KEYS)}.")
    n_votes = 0
    for annotation in row["annotations"]:
        if not isinstance(annotation, dict) or annotation.get("was_cancelled"):
            context.report.notes["a cancelled annotation was left out"] += 1
            continue
        rater = annotation.get("completed_by")
        rater = rater.get("id", "") if isinstance(rater, dict) else rater
        for result in annotation.get("result") or []:
            vote = _label_studio_vote(data, result)
            if vote is None:
                continue
            n_votes += 1
            responses, ranks = vote
            yield compared(
                {"id": row.get("id")},
                messages_of(prompt, "prompt"),
                responses,
                {context.axis: ranks},
                context,
                vote=VoteDetails(annotator=named(rater)),
            )
    if not n_votes:
        raise SkipRow("a task without a pairwise choice or a ranking")


def _label_studio_vote(
    data: dict[str, Any], result: Any
) -> tuple[list[tuple[str, str]], list[float]] | None:
    value = result.get("value") if isinstance(result, dict) else None
    if not isinstance(value, dict):
        return None
    if result.get("type") == "pairwise":
        responses = [(response_text(text, "a response"), "") for text in _pair_of(data, result)]
        winner = value.get("selected")
        ranks: list[float] = [1, 2] if winner == "left" else [2, 1] if winner == "right" else [1, 1]
        return responses, ranks
    if result.get("type") == "ranker":
        ranked = value.get("ranker")
        order = next(iter(ranked.values()), None) if isinstance(ranked, dict) else ranked
        texts = _items_of(data)
        if not isinstance(order, list) or len(order) < 2 or any(str(i) not in texts for i in order):
            raise RowError("a ranking names items that the task's data does not have.")
        responses = [(texts[str(item)], "") for item in order]
        return responses, [float(place) for place in range(len(order))]
    return None


def _pair_of(data: dict[str, Any], result: dict[str, Any]) -> list[Any]:
    """The two texts: those that `to_name` names, or the two columns that are no prompt."""
    names = str(result.get("to_name", "")).split(",")
    if len(names) == 2 and all(name in data for name in names):
        return [data[name] for name in names]
    others = [
        key for key, value in data.items() if isinstance(value, str) and key not in PROMPT_KEYS
    ]
    if len(others) != 2:
        raise RowError("the two responses of the task can't be told; its data needs two texts.")
    return [data[key] for key in others]


def _items_of(data: dict[str, Any]) -> dict[str, str]:
    items = next((value for value in data.values() if isinstance(value, list)), [])
    texts: dict[str, str] = {}
    for item in items:
        if isinstance(item, dict) and "id" in item:
            text = next(
                (item[key] for key in ("body", "html", "text", "content") if key in item), None
            )
            texts[str(item["id"])] = checked_text(text, "an item", may_be_empty=True)
    return texts


def argilla_ranking(rows: Sequence[Row], context: Context) -> Iterable[ComparisonItem]:
    """Argilla's records with ranking questions: every submitted answer is a vote."""
    [row] = rows
    answers = [answer for key in row for answer in _ranking_answers(row, key)]
    n_votes = 0
    for rater, ranks in answers:
        names = [name for name in ranks if isinstance(row.get(name), str)]
        if len(names) < 2:
            raise RowError("the ranking names columns that the record does not have.")
        n_votes += 1
        prompt = next((row[key] for key in PROMPT_KEYS if row.get(key)), None)
        yield compared(
            row,
            messages_of(prompt, "prompt"),
            [(checked_text(row[name], name, may_be_empty=True), "") for name in names],
            {context.axis: [number_of(ranks[name], "rank") for name in names]},
            context,
            vote=VoteDetails(annotator=rater),
        )
    if not n_votes:
        raise SkipRow("a record without a submitted ranking")


def _ranking_answers(row: Row, key: str) -> list[tuple[str, dict[str, Any]]]:
    """(rater, {column: rank}) for each submitted answer to the question `key`, if it is a ranking."""
    value = row[key]
    if not isinstance(value, list):
        return []
    answers = []
    entries: list[Any] = value
    if key.endswith(".responses"):  # records as `datasets`: columns for values, users and states
        users = row.get(f"{key}.users") or [""] * len(value)
        states = row.get(f"{key}.status") or ["submitted"] * len(value)
        entries = [
            {"value": ranks, "user_id": user, "status": state}
            for ranks, user, state in zip(value, users, states, strict=False)
        ]
    for entry in entries:
        ranks = entry.get("value") if isinstance(entry, dict) else None
        if not isinstance(ranks, list) or entry.get("status", "submitted") != "submitted":
            continue
        if all(isinstance(part, dict) and {"value", "rank"} <= set(part) for part in ranks):
            by_name = {str(part["value"]): part["rank"] for part in ranks}
        elif all(isinstance(part, str) for part in ranks):  # names, the best first
            by_name = {name: place for place, name in enumerate(ranks)}
        else:
            continue
        answers.append((named(entry.get("user_id")), by_name))
    return answers


def _is_argilla(row: Row) -> bool:
    return any(_ranking_answers(row, key) for key in row if isinstance(row[key], list))


def openai_preference(rows: Sequence[Row], context: Context) -> Iterable[ComparisonItem]:
    """OpenAI's preference fine-tuning: input.messages, preferred_output, non_preferred_output."""
    [row] = rows
    given = row["input"]
    if not isinstance(given, dict):
        raise RowError("input is not an object with messages.")
    if given.get("tools"):
        context.report.notes["tools were not read"] += 1
    responses = [
        (response_text(row[key], key), "") for key in ("preferred_output", "non_preferred_output")
    ]
    messages = checked_messages(given.get("messages"), "messages")
    yield compared({}, messages, responses, {context.axis: (1, 2)}, context)


TOOLS = {
    "label studio": Shape(
        title="Label Studio tasks with pairwise choices or rankings",
        recognizes=has("data", "annotations"),
        read=label_studio,
        columns=frozenset(
            {"id", "data", "annotations", "predictions", "project", "meta", "created_at"}
            | {"updated_at", "inner_id", "file_upload", "drafts"}
        ),
    ),
    "openai preference": Shape(
        title="OpenAI preference fine-tuning",
        recognizes=has("input", "preferred_output", "non_preferred_output"),
        read=openai_preference,
        columns=frozenset({"input", "preferred_output", "non_preferred_output"}),
    ),
    "argilla": Shape(
        title="Argilla records with rankings",
        recognizes=_is_argilla,
        read=argilla_ranking,
        columns=frozenset({*PROMPT_KEYS, "id", "status"}),
    ),
}
