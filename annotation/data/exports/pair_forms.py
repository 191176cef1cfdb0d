"""Pairs of one axis for trainers of reward models and DPO: TRL, OpenRLHF, HH transcripts."""

from collections.abc import Iterator

import pyarrow as pa

from annotation.data.exports.frozen import Frozen
from annotation.data.exports.output import Output
from annotation.data.exports.schemas import MESSAGES
from annotation.data.exports.writers import Row

TURN = {"user": "\n\nHuman: ", "assistant": "\n\nAssistant: "}
TRANSCRIPT = pa.schema([("chosen", pa.string()), ("rejected", pa.string())])


def trl_preference(frozen: Frozen, pairs: str, output: Output) -> None:
    """`prompt`, `chosen` and `rejected` as messages, and `margin` where a strength was asked."""
    columns = ["prompt", "chosen", "rejected"]
    schema = pa.schema([(name, MESSAGES) for name in columns])
    if frozen.has_column(pairs, "margin"):
        columns.append("margin")
        schema = schema.append(pa.field("margin", pa.float64()))
    output.write_rows("train.parquet", schema, frozen.rows(pairs, columns))


def openrlhf_preference(frozen: Frozen, pairs: str, output: Output) -> None:
    """Whole conversations in `chosen` and `rejected`, which OpenRLHF renders by the chat template."""
    has_margin = frozen.has_column(pairs, "margin")
    schema = pa.schema([("chosen", MESSAGES), ("rejected", MESSAGES)])
    if has_margin:
        schema = schema.append(pa.field("margin", pa.float64()))

    def rows() -> Iterator[Row]:
        for row in frozen.rows(pairs):
            made = {name: [*row["prompt"], *row[name]] for name in ("chosen", "rejected")}
            yield made | {"margin": row["margin"]} if has_margin else made

    output.write_rows("train.jsonl", schema, rows())


def hh_transcripts(frozen: Frozen, pairs: str, output: Output) -> None:
    """`chosen` and `rejected` as transcripts with `Human:` and `Assistant:`, as in hh-rlhf.

    The form has no system messages, and a text that contains a turn's marker would read as two
    turns; such rows are left out.
    """

    def rows() -> Iterator[Row]:
        for row in frozen.rows(pairs, ["prompt", "chosen", "rejected"]):
            messages = [*row["prompt"], *row["chosen"], *row["rejected"]]
            if any(message["role"] not in TURN for message in messages):
                output.left_out["a system message"] += 1
            elif any(mark in f"\n\n{m['content']}" for m in messages for mark in TURN.values()):
                output.left_out["a text with “Human:” or “Assistant:” at the start of a line"] += 1
            else:
                yield {
                    name: "".join(
                        TURN[m["role"]] + m["content"] for m in [*row["prompt"], *row[name]]
                    )
                    for name in ("chosen", "rejected")
                }

    output.write_rows("train.jsonl", TRANSCRIPT, rows())
