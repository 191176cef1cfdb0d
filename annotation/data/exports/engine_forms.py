"""The prompts of a version for PPO in other engines: OpenRLHF and verl.

A round's own export (`rlhf.training.export_job`) writes the same columns with the reward model.
"""

import json
from collections.abc import Iterator

import pyarrow as pa

from annotation.data.exports.frozen import Frozen
from annotation.data.exports.output import Output
from annotation.data.exports.schemas import MESSAGES
from annotation.data.exports.writers import Row

OPENRLHF = pa.schema([("input", MESSAGES), ("label", pa.string())])
VERL = pa.schema(
    [
        ("data_source", pa.string()),
        ("prompt", MESSAGES),
        ("ability", pa.string()),
        ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
        ("extra_info", pa.struct([("index", pa.int64()), ("prompt_id", pa.string())])),
    ]
)


def _prompts(frozen: Frozen, name: str) -> Iterator[Row]:
    """Each prompt once."""
    seen: set[str] = set()
    for row in frozen.rows(name, ["prompt_id", "messages", "category", "risk"]):
        if row["prompt_id"] not in seen:
            seen.add(row["prompt_id"])
            yield row


def _label(row: Row) -> str:
    """A prompt's data for a reward function, as one JSON text that the engines pass through."""
    return json.dumps({"messages": row["messages"], "risk": row["risk"]}, ensure_ascii=False)


def openrlhf_prompts(frozen: Frozen, name: str, output: Output) -> None:
    """`input` as messages and `label` as text, with `--data.apply_chat_template`."""
    rows = ({"input": row["messages"], "label": _label(row)} for row in _prompts(frozen, name))
    output.write_rows("prompts.jsonl", OPENRLHF, rows)


def verl_prompts(frozen: Frozen, name: str, output: Output) -> None:
    """verl's columns for `data.train_files`."""
    rows = (
        {
            "data_source": "ground-control",
            "prompt": row["messages"],
            "ability": row["category"],
            "reward_model": {"style": "model", "ground_truth": _label(row)},
            "extra_info": {"index": index, "prompt_id": row["prompt_id"]},
        }
        for index, row in enumerate(_prompts(frozen, name))
    )
    output.write_rows("prompts.parquet", VERL, rows)
