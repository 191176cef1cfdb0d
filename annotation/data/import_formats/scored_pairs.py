"""Two responses with a preference or a score for each: SHP, WebGPT, summaries, AlpacaFarm, A and B."""

from collections.abc import Iterable, Sequence
from typing import Any

from annotation.data.import_formats.fields import checked_text, parse_json
from annotation.data.import_formats.messages import checked_messages, prompt_of_texts
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
from annotation.data.import_formats.votes import ANNOTATOR_KEYS

FIRST, TIE, SECOND = (1, 2), (1, 1), (2, 1)
# How the answers of an A/B form are spelled in files.
WINNERS: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("a", "response_a", "model_a", "first", "left", "1", "a>b", "a>>b"), FIRST),
    **dict.fromkeys(("b", "response_b", "model_b", "second", "right", "2", "b>a", "b>>a"), SECOND),
    **dict.fromkeys(("tie", "0", "both", "equal", "same", "a=b", "draw", "tie (bothbad)"), TIE),
    **dict.fromkeys(("both_bad", "bothbad", "neither"), TIE),
}
WINNER_KEYS = ("preference", "winner", "label", "preferred", "choice", "better")
# Names of the two responses' columns, first and second.
PAIRS = (
    ("response_a", "response_b"),
    ("response_1", "response_2"),
    ("response1", "response2"),
    ("answer_a", "answer_b"),
    ("output_1", "output_2"),
    ("completion_a", "completion_b"),
)


def winner_of(value: Any, what: str) -> tuple[int, int]:
    """The two ranks; 1 or A is the first, 2 or B the second, 0 or tie neither."""
    name = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    if isinstance(value, bool) or name.strip().lower() not in WINNERS:
        raise RowError(f"{what} is A, B or tie (or 1, 2 or 0), not {name[:30]!r}.")
    return WINNERS[name.strip().lower()]


def _ab_columns(row: Row) -> tuple[str, str, str] | None:
    pair = next((pair for pair in PAIRS if pair[0] in row and pair[1] in row), None)
    winner = next((key for key in WINNER_KEYS if key in row), None)
    return (*pair, winner) if pair and winner else None


def ab_comparison(rows: Sequence[Row], context: Context) -> Iterable[ComparisonItem]:
    """A prompt, two responses and which is better."""
    [row] = rows
    columns = _ab_columns(row)
    if columns is None:
        raise RowError("the row has no two responses with a preference.")
    first, second, winner = columns
    if row.get(winner) in (None, ""):
        raise SkipRow("nobody preferred either")
    if "prompt" in row:
        messages = messages_of(row["prompt"], "prompt")
    else:
        text = next((row[key] for key in ("instruction", "question", "input") if row.get(key)), "")
        rest = {key: row.get(key) for key in ("input", "system") if row.get(key) != text}
        messages = prompt_of_texts(rest, checked_text(text, "instruction"))
    models = [named(row.get(key)) for key in ("model_a", "model_b")]
    rater = next((named(row[key]) for key in ANNOTATOR_KEYS if row.get(key)), "")
    yield compared(
        row,
        messages,
        [
            (response_text(row[first], first), models[0]),
            (response_text(row[second], second), models[1]),
        ],
        {context.axis: winner_of(row[winner], winner)},
        context,
        vote=VoteDetails(annotator=rater),
    )


def shp(rows: Sequence[Row], context: Context) -> Iterable[ComparisonItem]:
    """Stanford Human Preferences: `labels` is 1 where comment A has the higher score."""
    [row] = rows
    if row["labels"] not in (0, 1):
        raise RowError("labels is 1 for A or 0 for B.")
    responses = [
        (checked_text(row[f"human_ref_{letter}"], f"human_ref_{letter}"), "") for letter in "AB"
    ]
    ranks = FIRST if row["labels"] == 1 else SECOND
    messages = messages_of(row["history"], "history")
    yield compared({"id": row.get("post_id")}, messages, responses, {context.axis: ranks}, context)


def webgpt(rows: Sequence[Row], context: Context) -> Iterable[ComparisonItem]:
    """WebGPT comparisons: scores from -1 to 1 that add up to 0; equal scores are a tie."""
    [row] = rows
    question = row["question"]
    text = question.get("full_text") if isinstance(question, dict) else question
    scores = [number_of(row[f"score_{n}"], f"score_{n}") for n in (0, 1)]
    responses = [(checked_text(row[f"answer_{n}"], f"answer_{n}"), "") for n in (0, 1)]
    identity = {"id": question.get("id")} if isinstance(question, dict) else {}
    ranks = {context.axis: [-score for score in scores]}
    yield compared(identity, messages_of(text, "question"), responses, ranks, context)


def summaries(rows: Sequence[Row], context: Context) -> Iterable[ComparisonItem]:
    """Summarize from feedback: a post, two summaries and the choice of a worker."""
    [row] = rows
    info, both = row["info"], row["summaries"]
    if not isinstance(info, dict) or not isinstance(both, list) or len(both) != 2:
        raise RowError("summaries is not a list of two.")
    post = checked_text(info.get("post") or info.get("article"), "the post")
    title = str(info.get("title") or "").strip()
    text = f"Summarize this post:\n\n{title}\n\n{post}" if title else f"Summarize:\n\n{post}"
    if row["choice"] not in (0, 1):
        raise RowError("choice is 0 or 1.")
    responses = [
        (checked_text(part.get("text"), "a summary").strip(), named(part.get("policy")))
        for part in both
        if isinstance(part, dict)
    ]
    yield compared(
        {"id": info.get("id")},
        [{"role": "user", "content": text}],
        responses,
        {context.axis: FIRST if row["choice"] == 0 else SECOND},
        context,
        vote=VoteDetails(annotator=named(row.get("worker"))),
    )


def arena(rows: Sequence[Row], context: Context) -> Iterable[ComparisonItem]:
    """Two conversations with the same user, and which one won."""
    [row] = rows
    first, second = (
        checked_messages(row[f"conversation_{letter}"], f"conversation_{letter}") for letter in "ab"
    )
    if not first or first[-1]["role"] != "assistant" or second[-1]["role"] != "assistant":
        raise RowError("a conversation does not end with the assistant's turn.")
    # Later turns answer what each model itself had said: then only the last user turn is shared.
    if len(first) > 2 and first[:-1] != second[:-1]:
        raise SkipRow("the two conversations differ before the last response")
    models = [named(row.get("model_a")), named(row.get("model_b"))]
    winner = row.get("winner")
    ranks = winner_of(winner, "winner")
    all_bad = [context.axis] if "bad" in str(winner) or winner == "neither" else []
    rater = named(row.get("judge") or row.get("evaluation_session_id"))
    texts = [first[-1]["content"], second[-1]["content"]]
    yield compared(
        row,
        first[:-1],
        list(zip(texts, models, strict=True)),
        {context.axis: ranks},
        context,
        vote=VoteDetails(annotator=rater, all_bad=all_bad),
    )


def arena_texts(rows: Sequence[Row], context: Context) -> Iterable[ComparisonItem]:
    """Arena conversations whose turns are lists of texts, spelled in JSON, and a column per result."""
    [row] = rows
    prompts, *answers = (_texts(row[key], key) for key in ("prompt", "response_a", "response_b"))
    if len(prompts) != 1:
        raise SkipRow("a conversation of several turns, of which the votes are about the whole")
    results = [
        str(row[f"winner_{name}"]).lower() in ("1", "1.0", "true")
        for name in ("model_a", "model_b")
    ]
    ranks = TIE if results[0] == results[1] else FIRST if results[0] else SECOND
    models = [named(row.get("model_a")), named(row.get("model_b"))]
    responses = [(texts[0], model) for texts, model in zip(answers, models, strict=True) if texts]
    if len(responses) != 2:
        raise RowError("a response is missing.")
    messages = messages_of(prompts[0], "prompt")
    yield compared(row, messages, responses, {context.axis: ranks}, context)


def _texts(value: Any, what: str) -> list[str]:
    texts = parse_json(value) if isinstance(value, str) else value
    if not isinstance(texts, list):
        raise RowError(f"{what} is not a list of texts.")
    return [checked_text(text, what, may_be_empty=True) for text in texts]


AB_COLUMNS = frozenset(
    {*(name for pair in PAIRS for name in pair), *WINNER_KEYS, *ANNOTATOR_KEYS}
    | {"prompt", "instruction", "question", "input", "system", "model_a", "model_b"}
)

SCORED_PAIRS = {
    "shp": Shape(
        title="SHP: comments A and B with their scores",
        recognizes=has("history", "human_ref_A", "human_ref_B", "labels"),
        read=shp,
        columns=frozenset({"history", "human_ref_A", "human_ref_B", "labels", "post_id"}),
    ),
    "webgpt": Shape(
        title="WebGPT comparisons",
        recognizes=has("question", "answer_0", "answer_1", "score_0", "score_1"),
        read=webgpt,
        columns=frozenset({"question", "answer_0", "answer_1", "score_0", "score_1"}),
    ),
    "summaries": Shape(
        title="summarize-from-feedback comparisons",
        recognizes=has("info", "summaries", "choice"),
        read=summaries,
        columns=frozenset({"info", "summaries", "choice", "worker"}),
    ),
    "arena": Shape(
        title="Arena conversations and MT-Bench judgments",
        recognizes=has("conversation_a", "conversation_b", "winner"),
        read=arena,
        columns=frozenset(
            {"conversation_a", "conversation_b", "winner", "model_a", "model_b", "judge"}
            | {"evaluation_session_id", "question_id"}
        ),
    ),
    "arena texts": Shape(
        title="Arena battles with a column for each result",
        recognizes=has("prompt", "response_a", "response_b", "winner_model_a", "winner_model_b"),
        read=arena_texts,
        columns=frozenset(
            {"prompt", "response_a", "response_b", "winner_model_a", "winner_model_b"}
            | {"winner_tie", "model_a", "model_b", "id"}
        ),
    ),
    "a or b": Shape(
        title="two responses with a preference (A, B or tie)",
        recognizes=lambda row: _ab_columns(row) is not None,
        read=ab_comparison,
        columns=AB_COLUMNS,
    ),
}
