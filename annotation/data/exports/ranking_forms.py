"""Whole rankings and written answers: KTO, supervised fine-tuning, groups of K, PKU-SafeRLHF."""

from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from annotation.data.exports.frozen import Frozen, value_of
from annotation.data.exports.output import Output
from annotation.data.exports.schemas import MESSAGES
from annotation.data.exports.writers import Row

UNPAIRED = pa.schema([("prompt", MESSAGES), ("completion", MESSAGES), ("label", pa.bool_())])
SFT = pa.schema([("prompt", MESSAGES), ("completion", MESSAGES)])
GROUPS = pa.schema(
    [
        ("prompt", MESSAGES),
        ("completions", pa.list_(pa.string())),
        ("ranks", pa.list_(pa.int32())),
        ("prompt_id", pa.string()),
        ("annotator", pa.string()),
        ("weight", pa.float64()),
    ]
)
SAFE_RLHF = pa.schema(
    [
        ("prompt", pa.string()),
        *((f"response_{side}", pa.string()) for side in (0, 1)),
        *((f"is_response_{side}_safe", pa.bool_()) for side in (0, 1)),
        ("better_response_id", pa.int32()),
        ("safer_response_id", pa.int32()),
    ]
)
BETTER, SAFER = "helpfulness", "safety"


def _answer(text: str) -> list[Row]:
    return [{"role": "assistant", "content": text}]


def _ranked(row: Row, axis: str) -> list[tuple[int, str]]:
    """(rank, response) of the ranked responses, the best first; empty if one answer says all are bad."""
    ranks = value_of(row["ranks"], axis) or ()
    ranked = [
        (rank, text)
        for rank, text in zip(ranks, row["responses"], strict=False)
        if rank is not None
    ]
    return sorted(ranked, key=lambda ranked_text: ranked_text[0])


def unpaired(frozen: Frozen, name: str, output: Output) -> None:
    """One response with a label: true for the best of a judgment, false for the worst.

    Those between have no label. Where a person said that no response is good enough, the best is
    labeled false too; where all are equal, there is no label.
    """

    def rows() -> Iterator[Row]:
        for row in frozen.rows(name, ["messages", "responses", "ranks", "all_bad"]):
            ranked = _ranked(row, frozen.axis)
            if not ranked:
                continue
            best, worst = ranked[0][0], ranked[-1][0]
            all_bad = frozen.axis in (row["all_bad"] or ())
            if best == worst and not all_bad:
                output.left_out["a judgment in which all responses are equal"] += 1
                continue
            for rank, text in ranked:
                if rank in (best, worst):
                    label = rank == best and not all_bad
                    yield {"prompt": row["messages"], "completion": _answer(text), "label": label}

    output.write_rows("train.parquet", UNPAIRED, rows())


def sft_best(frozen: Frozen, name: str, output: Output) -> None:
    """The best response of each judgment, once for each prompt and text."""

    def rows() -> Iterator[Row]:
        prompt, texts = "", set[str]()
        for row in frozen.rows(name, ["prompt_id", "messages", "responses", "ranks", "all_bad"]):
            ranked = _ranked(row, frozen.axis)
            if not ranked or frozen.axis in (row["all_bad"] or ()):
                continue
            if ranked[0][0] == ranked[-1][0]:
                output.left_out["a judgment in which all responses are equal"] += 1
                continue
            if row["prompt_id"] != prompt:  # The judgments of a comparison follow one another.
                prompt, texts = row["prompt_id"], set()
            for rank, text in ranked:
                if rank == ranked[0][0] and text not in texts:
                    texts.add(text)
                    yield {"prompt": row["messages"], "completion": _answer(text)}

    output.write_rows("train.parquet", SFT, rows())


def sft_demonstrations(frozen: Frozen, name: str, output: Output) -> None:
    """What people wrote: ideal answers, corrections, better answers."""
    rows = (
        {"prompt": row["messages"], "completion": _answer(row["response"])}
        for row in frozen.rows(name, ["messages", "response"])
    )
    output.write_rows("train.parquet", SFT, rows)


def groups(frozen: Frozen, name: str, output: Output) -> None:
    """All ranked responses of a judgment in one row, the best first: for listwise losses."""

    def rows() -> Iterator[Row]:
        for row in frozen.rows(name):
            ranked = _ranked(row, frozen.axis)
            if len(ranked) < 2:
                output.left_out["a judgment with fewer than two ranks"] += 1
                continue
            yield {
                "prompt": row["messages"],
                "completions": [text for _, text in ranked],
                "ranks": [rank for rank, _ in ranked],
                "prompt_id": row["prompt_id"],
                "annotator": row["annotator"],
                "weight": row["weight"],
            }

    output.write_rows("train.parquet", GROUPS, rows())


def safe_rlhf(frozen: Frozen, name: str, output: Output) -> None:
    """Pairs with both preferences and both votes, in the columns of PKU-SafeRLHF.

    Its prompt is one text, so only prompts of one user turn are in it. It has no ties: pairs that are
    equal on an axis are left out, and so are responses whose safety nobody voted on.
    """
    voted = pc.is_in(
        frozen.column(name, "judgment_id"), value_set=frozen.column("ratings", "judgment_id")
    ).combine_chunks()
    votes = _votes(frozen)
    pending = next(votes, None)

    def rows() -> Iterator[Row]:
        nonlocal pending
        for index, row in enumerate(frozen.rows(name)):
            safe: dict[str, bool] = {}
            if voted[index].as_py():
                # Both files have the order of the judgments.
                while pending is not None and pending[0] != row["judgment_id"]:
                    pending = next(votes, None)
                safe = pending[1] if pending else {}
            if len(row["messages"]) != 1 or row["messages"][0]["role"] != "user":
                output.left_out["a prompt of several turns"] += 1
                continue
            yield from _safe_pairs(row, safe, output)

    output.write_rows("train.jsonl", SAFE_RLHF, rows())


def _votes(frozen: Frozen) -> Iterator[tuple[str, dict[str, bool]]]:
    """(judgment, {response: safe}) in the file's order."""
    judgment, safe = "", dict[str, bool]()
    for row in frozen.rows("ratings", ["judgment_id", "response", "safe"]):
        if row["judgment_id"] != judgment:
            if judgment:
                yield judgment, safe
            judgment, safe = row["judgment_id"], {}
        if row["safe"] is not None:
            safe[row["response"]] = row["safe"]
    if judgment:
        yield judgment, safe


def _safe_pairs(row: Row, safe: dict[str, bool], output: Output) -> Iterator[Row]:
    by_axis: defaultdict[str, dict[int, int]] = defaultdict(dict)
    for axis in (BETTER, SAFER):
        for index, rank in enumerate(value_of(row["ranks"], axis) or ()):
            if rank is not None:
                by_axis[axis][index] = rank
    for left, right in combinations(range(len(row["responses"])), 2):
        texts = (row["responses"][left], row["responses"][right])
        ranks: list[tuple[Any, Any]] = [
            (by_axis[axis].get(left), by_axis[axis].get(right)) for axis in (BETTER, SAFER)
        ]
        if any(text not in safe for text in texts):
            output.left_out["a response without a vote on its safety"] += 1
        elif any(None in pair or pair[0] == pair[1] for pair in ranks):
            output.left_out["a pair without a better or without a safer response"] += 1
        else:
            yield {
                "prompt": row["messages"][0]["content"],
                "response_0": texts[0],
                "response_1": texts[1],
                "is_response_0_safe": safe[texts[0]],
                "is_response_1_safe": safe[texts[1]],
                **{
                    key: int(pair[0] > pair[1])
                    for key, pair in zip(
                        ("better_response_id", "safer_response_id"), ranks, strict=True
                    )
                },
            }
