"""Responses with marks, ranks or labels of safety: HelpSteer, UltraFeedback, Nectar, PKU-SafeRLHF, KTO."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from annotation.data.import_formats.fields import checked_text
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
    mark_of,
    messages_of,
    named,
    number_of,
    response_text,
)

HELPSTEER_MARKS = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
ULTRAFEEDBACK_MARKS = ("helpfulness", "honesty", "instruction_following", "truthfulness")
NO_NAMES = "raters have no names in the file and are numbered in the order of their votes"


def helpsteer_marks(rows: Sequence[Row], context: Context) -> Iterable[ComparisonItem]:
    """HelpSteer and HelpSteer2: rows in sequence with one prompt are its responses, each with marks."""
    ratings = [
        {
            name: mark
            for name in HELPSTEER_MARKS
            if (mark := mark_of(row.get(name), name, 0, 4, context.report)) is not None
        }
        for row in rows
    ]
    responses = [(checked_text(row.get("response"), "response"), "") for row in rows]
    yield compared(
        rows[0], messages_of(rows[0]["prompt"], "prompt"), responses, {}, context, ratings=ratings
    )


def _signed(
    row: Row,
    responses: list[tuple[str, str]],
    messages: Any,
    value: Any,
    context: Context,
    *,
    rater: str,
    reason: str = "",
) -> ComparisonItem:
    """A preference from -3 (the first is much better) to 3."""
    number = number_of(value, "a preference")
    if not -3 <= number <= 3 or not number.is_integer():
        raise RowError("a preference is a whole number from -3 to 3.")
    level = int(abs(number))
    strength = {context.axis: {"level": level, "margin": float(level)}}
    vote = VoteDetails(annotator=rater, strength=strength, reason=reason)
    return compared(row, messages, responses, {context.axis: [number, -number]}, context, vote=vote)


def helpsteer_preference(rows: Sequence[Row], context: Context) -> Iterable[ComparisonItem]:
    """HelpSteer2-Preference and HelpSteer3: every rater's number from -3 to 3, or the overall one."""
    [row] = rows
    first, second = (
        ("response1", "response2") if "response1" in row else ("response_1", "response_2")
    )
    messages = messages_of(row["context" if "context" in row else "prompt"], "prompt")
    responses = [(response_text(row[name], name), "") for name in (first, second)]
    votes = row.get("individual_preference") or row.get("all_preferences_unprocessed") or []
    overall = row.get("overall_preference", row.get("preference_strength"))
    if not isinstance(votes, list) or not all(isinstance(vote, dict) for vote in votes):
        raise RowError("the raters' preferences are not a list of objects.")
    if not votes:
        yield _signed(
            row,
            responses,
            messages,
            overall,
            context,
            rater="",
            reason=_text(row.get("preference_elaboration")),
        )
        return
    context.report.notes[NO_NAMES] += 1
    for number, vote in enumerate(votes, start=1):
        yield _signed(
            row,
            responses,
            messages,
            vote.get("score", vote.get("strength")),
            context,
            rater=f"rater {number}",
            reason=_text(vote.get("reasoning", vote.get("elaboration"))),
        )


def _text(value: Any) -> str:
    return checked_text(value, "reason", may_be_empty=True) if isinstance(value, str) else ""


def ultrafeedback(rows: Sequence[Row], context: Context) -> Iterable[ComparisonItem]:
    """UltraFeedback: completions with an overall score, which ranks them, and marks from 1 to 5."""
    [row] = rows
    completions = row["completions"]
    if not isinstance(completions, list) or not all(isinstance(part, dict) for part in completions):
        raise RowError("completions is not a list of objects.")
    if len(completions) < 2:
        raise SkipRow("fewer than two completions")
    ratings = []
    for part in completions:
        notes = part.get("annotations") or {}
        ratings.append(
            {
                name: mark
                for name in ULTRAFEEDBACK_MARKS
                if isinstance(notes.get(name), dict)
                and (mark := mark_of(notes[name].get("Rating"), name, 1, 5, context.report))
                is not None
            }
        )
    scores = [part.get("overall_score", part.get("fine-grained_score")) for part in completions]
    ranks = [None if score is None else -number_of(score, "overall_score") for score in scores]
    yield compared(
        {},
        messages_of(row["instruction"], "instruction"),
        [
            (response_text(part.get("response"), "response"), named(part.get("model")))
            for part in completions
        ],
        {context.axis: ranks} if sum(rank is not None for rank in ranks) > 1 else {},
        context,
        ratings=ratings,
    )


def nectar(rows: Sequence[Row], context: Context) -> Iterable[ComparisonItem]:
    """Answers with a rank each, 1 being the best."""
    [row] = rows
    answers = row["answers"]
    if not isinstance(answers, list) or not all(isinstance(part, dict) for part in answers):
        raise RowError("answers is not a list of objects with answer and rank.")
    responses, ranks, texts = [], [], set()
    for part in sorted(answers, key=lambda part: number_of(part.get("rank"), "rank")):
        text = checked_text(part.get("answer"), "answer", may_be_empty=True)
        if text in texts:
            context.report.notes["a response with the same text as a better one was left out"] += 1
            continue
        texts.add(text)
        responses.append((text, named(part.get("model"))))
        ranks.append(number_of(part["rank"], "rank"))
    if len(responses) < 2:
        raise SkipRow("fewer than two different responses")
    messages = messages_of(row["prompt"], "prompt")
    yield compared({}, messages, responses, {context.axis: ranks}, context)


def several_pairs(rows: Sequence[Row], context: Context) -> Iterable[ComparisonItem]:
    """RewardBench 2: lists of right and wrong responses."""
    [row] = rows
    responses = [
        (checked_text(text, key, may_be_empty=True), "")
        for key in ("chosen", "rejected")
        for text in row[key]
    ]
    ranks = [1] * len(row["chosen"]) + [2] * len(row["rejected"])
    messages = messages_of(row["prompt"], "prompt")
    yield compared(row, messages, responses, {context.axis: ranks}, context)


def safe_rlhf(rows: Sequence[Row], context: Context) -> Iterable[ComparisonItem]:
    """PKU-SafeRLHF: which of two is better, which is safer, and whether each is safe."""
    [row] = rows
    responses = [
        (
            checked_text(row[f"response_{n}"], f"response_{n}"),
            named(row.get(f"response_{n}_source")),
        )
        for n in (0, 1)
    ]
    helpful = next((axis for axis in context.axes if axis != context.safety_axis), context.axis)
    ranks = {helpful: _better(row, "better_response_id")}
    if context.safety_axis:
        ranks[context.safety_axis] = _better(row, "safer_response_id")
    else:
        context.report.notes[
            "the project has no axis for safety; safer_response_id was not read"
        ] += 1
    safety: list[dict[str, Any] | None] = []
    for n in (0, 1):
        is_safe = row.get(f"is_response_{n}_safe")
        harms = row.get(f"response_{n}_harm_category") or {}
        chosen = (
            [name for name, applies in harms.items() if applies] if isinstance(harms, dict) else []
        )
        for name in chosen:
            context.report.harms[_key(name)] = str(name)[:60]
        safety.append(
            {"safe": is_safe, "harms": [_key(name) for name in chosen]}
            if isinstance(is_safe, bool)
            else None
        )
    messages = messages_of(row["prompt"], "prompt")
    yield compared({}, messages, responses, ranks, context, safety=safety)


def _better(row: Row, key: str) -> tuple[int, int]:
    if row.get(key) not in (0, 1):
        raise RowError(f"{key} is 0 or 1.")
    return (1, 2) if row[key] == 0 else (2, 1)


def _key(name: str) -> str:
    return re.sub(r"\W+", "_", str(name).lower())[:40].strip("_")


def unpaired(rows: Sequence[Row], context: Context) -> Iterable[ComparisonItem]:
    """KTO: rows in sequence with one prompt are its responses, each desirable or not."""
    responses, ratings = [], []
    for row in rows:
        label = row["label"]
        if str(label).lower() not in ("true", "false", "1", "0"):
            raise RowError("label is true or false.")
        responses.append((response_text(row["completion"], "completion"), ""))
        ratings.append({"desirable": int(str(label).lower() in ("true", "1"))})
    context.report.attributes["desirable"] = (0, 1)
    messages = messages_of(rows[0]["prompt"], "prompt")
    yield compared(rows[0], messages, responses, {}, context, ratings=ratings)


def _is_signed(row: Row) -> bool:
    return ("overall_preference" in row and "response1" in row) or (
        "preference_strength" in row and "response_1" in row
    )


RATED = {
    "helpsteer preference": Shape(
        title="HelpSteer2 and HelpSteer3 preferences (-3 to 3)",
        recognizes=_is_signed,
        read=helpsteer_preference,
        columns=frozenset(
            {"prompt", "context", "response1", "response2", "response_1", "response_2", "domain"}
            | {"overall_preference", "preference_strength", "individual_preference", "split"}
            | {"all_preferences_unprocessed", "preference_elaboration", "preference_statement"}
            | {"three_most_similar_preferences"}
        ),
    ),
    "helpsteer": Shape(
        title="HelpSteer marks, one response a row",
        recognizes=has("prompt", "response", "helpfulness", "correctness"),
        read=helpsteer_marks,
        columns=frozenset({"prompt", "response", *HELPSTEER_MARKS}),
        group=lambda row: row["prompt"],
    ),
    "ultrafeedback": Shape(
        title="UltraFeedback completions with scores",
        recognizes=has("instruction", "completions"),
        read=ultrafeedback,
        columns=frozenset({"instruction", "completions", "models", "source"}),
    ),
    "ranked answers": Shape(
        title="ranked answers (Nectar)",
        recognizes=has("prompt", "answers"),
        read=nectar,
        columns=frozenset({"prompt", "answers", "turns", "num_responses"}),
    ),
    "right and wrong": Shape(
        title="lists of chosen and rejected responses (RewardBench 2)",
        recognizes=lambda row: (
            "prompt" in row
            and all(
                isinstance(row.get(key), list)
                and row[key]
                and all(isinstance(t, str) for t in row[key])
                for key in ("chosen", "rejected")
            )
        ),
        read=several_pairs,
        columns=frozenset(
            {"prompt", "chosen", "rejected", "id", "num_correct", "num_incorrect"}
            | {"total_completions"}
        ),
    ),
    "safe rlhf": Shape(
        title="PKU-SafeRLHF: better, safer, and each safe or not",
        recognizes=has("prompt", "response_0", "response_1", "better_response_id"),
        read=safe_rlhf,
        columns=frozenset(
            {"prompt", "response_0", "response_1", "better_response_id", "safer_response_id"}
            | {f"is_response_{n}_safe" for n in (0, 1)}
            | {
                f"response_{n}_{what}"
                for n in (0, 1)
                for what in ("source", "harm_category", "sha256")
            }
        ),
    ),
    "unpaired": Shape(
        title="unpaired responses, desirable or not (KTO)",
        recognizes=has("prompt", "completion", "label"),
        read=unpaired,
        columns=frozenset({"prompt", "completion", "label"}),
        group=lambda row: str(row["prompt"]),
    ),
}
