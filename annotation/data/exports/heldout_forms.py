"""The held-out prompts as a task of an evaluation harness: lm-eval and Inspect.

They are for measuring a model; training never sees them (the annotation rules keep them out of every
other form). A prompt has no reference answer: the tasks record what a model says, and its length.
"""

from collections.abc import Iterator

import pyarrow as pa

from annotation.data.exports.frozen import Frozen
from annotation.data.exports.output import Output
from annotation.data.exports.schemas import MESSAGES
from annotation.data.exports.writers import Row

LM_EVAL_ROWS = pa.schema(
    [(name, pa.string()) for name in ("prompt_id", "prompt", "category", "risk")]
)
LM_EVAL_TASK = """# lm_eval --include_path FOLDER --tasks {task} --model hf --model_args pretrained=MODEL \\
#   --apply_chat_template --log_samples --output_path RESULTS
task: {task}
custom_dataset: !function heldout.load
output_type: generate_until
test_split: test
doc_to_text: prompt
doc_to_target: ""
process_results: !function heldout.words
generation_kwargs:
  until: []
  do_sample: false
  max_gen_toks: 512
metric_list:
  - metric: words
    aggregation: mean
    higher_is_better: false
metadata:
  version: 1.0
"""
LM_EVAL_CODE = '''"""Reads the prompts in this folder, and counts the words of an answer."""

import json
from pathlib import Path

import datasets


def load(**kwargs):
    with Path(__file__).with_name("heldout.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return {"test": datasets.Dataset.from_list(rows)}


def words(doc, results):
    return {"words": len(results[0].split())}
'''
INSPECT_ROWS = pa.schema(
    [
        ("id", pa.string()),
        ("input", MESSAGES),
        ("target", pa.string()),
        ("metadata", pa.struct([("category", pa.string()), ("risk", pa.string())])),
    ]
)
INSPECT_CODE = '''"""inspect eval heldout.py --model PROVIDER/MODEL"""

from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import json_dataset
from inspect_ai.solver import generate


@task
def heldout():
    return Task(
        dataset=json_dataset(str(Path(__file__).with_name("heldout.jsonl"))), solver=generate()
    )
'''


def lm_eval(frozen: Frozen, name: str, output: Output) -> None:
    """A task folder for `lm_eval --include_path`. Its chat template wraps one text of a user, so
    prompts of several turns or with a system message are left out."""

    def rows() -> Iterator[Row]:
        for prompt in frozen.heldout:
            messages = prompt["messages"]
            if len(messages) != 1 or messages[0]["role"] != "user":
                output.left_out["a prompt of several turns or with a system message"] += 1
                continue
            yield {key: prompt[key] for key in ("prompt_id", "category", "risk")} | {
                "prompt": messages[0]["content"]
            }

    output.write_rows("heldout.jsonl", LM_EVAL_ROWS, rows())
    task = f"{frozen.title.replace('-', '_')}_heldout"
    output.write_text(f"{task}.yaml", LM_EVAL_TASK.format(task=task))
    output.write_text("heldout.py", LM_EVAL_CODE)


def inspect_task(frozen: Frozen, name: str, output: Output) -> None:
    """A task file for `inspect eval`, with the conversations as messages."""
    rows = (
        {
            "id": prompt["prompt_id"],
            "input": prompt["messages"],
            "target": "",
            "metadata": {"category": prompt["category"], "risk": prompt["risk"]},
        }
        for prompt in frozen.heldout
    )
    output.write_rows("heldout.jsonl", INSPECT_ROWS, rows)
    output.write_text("heldout.py", INSPECT_CODE)
