"""Teach a policy by demonstrations and rewrites: `python -m rlhf.training.sft RUN_DIR`.

Supervised fine-tuning with the loss on the response only: the policy learns to answer, not to ask.
By TRL's SFTTrainer; for an encoder-decoder, which that does not know, by the Trainer of transformers
that it is made of.
"""

import functools
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import Tensor
from transformers import Trainer, TrainingArguments
from trl.trainer.sft_config import SFTConfig as TrainerConfig
from trl.trainer.sft_trainer import SFTTrainer

from rlhf.training import tuning
from rlhf.training.configs import SFTConfig
from rlhf.training.data import read_demonstrations
from rlhf.training.language_models.policy import Policy
from rlhf.training.rundir import CONFIG
from rlhf.training.rundir.errors import InputError
from rlhf.training.rundir.process import StopRequest, run_stage
from rlhf.training.rundir.reports import write_result
from rlhf.training.settings import load

IGNORED = -100
"""The label of a position without loss, as torch's cross-entropy knows it."""


def main(run_dir: Path, stop: StopRequest) -> None:
    began = time.monotonic()

    # 1. Configuration, demonstrations, policy.
    config = load(SFTConfig, run_dir / CONFIG)
    given = read_demonstrations(run_dir)
    policy = tuning.load_trainable_policy(config)

    # 2. Token ids. Labels are the response's tokens alone, its end among them.
    aside = tuning.held_out([p.prompt_id for p, _ in given], config.heldout_share, config.seed)
    rows: dict[bool, list[dict[str, list[int]]]] = {True: [], False: []}
    left_out = 0
    for prompt, text in given:
        response = policy.encode_response(text)
        ids = policy.encode_unless_left_out(
            prompt, room=len(response), long_prompts=config.long_prompts
        )
        if ids is None:
            left_out += 1
            continue
        if policy.encoder_decoder:
            row = {"input_ids": ids, "labels": response}
        else:
            row = {"input_ids": ids + response, "labels": [IGNORED] * len(ids) + response}
        rows[prompt.prompt_id in aside].append(row)
    if not rows[False]:
        raise InputError("No demonstration fits the model's context; shorten them.")

    # 3. Training, between two looks at demonstrations that are not learnt.
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(policy, config, rows, folder)
        books = tuning.Books(
            run_dir,
            stop,
            {
                "loss": "loss",
                "learning_rate": "learning_rate",
                "grad_norm": "grad_norm",
                "mean_token_accuracy": "token_accuracy",
            },
        )
        before = trainer.evaluate()["eval_loss"] if rows[True] else None
        trainer.add_callback(books)
        trainer.train()
        after = trainer.evaluate()["eval_loss"] if rows[True] and not stop.requested else None

    # 4. The policy, the result.
    tuning.finish(policy, trainer.model, books)
    last = books.losses[-20:]
    write_result(
        run_dir,
        {
            "n_demonstrations": len(rows[False]),
            "n_heldout": len(rows[True]),
            "n_left_out": left_out,
            "steps": trainer.state.global_step,
            "loss": sum(last) / len(last),
            "heldout_loss_before": before,
            "heldout_loss": after,
            "seconds": time.monotonic() - began,
        },
    )


def _trainer(
    policy: Policy, config: SFTConfig, rows: dict[bool, list[dict[str, list[int]]]], folder: str
) -> Trainer:
    """`rows` are those to learn (False) and those to measure on (True)."""
    arguments = tuning.arguments(config, folder, len(rows[False]), policy.device)
    arguments["weight_decay"] = config.weight_decay
    given = {
        "model": policy.model,
        "train_dataset": Dataset.from_list(rows[False]),
        "eval_dataset": Dataset.from_list(rows[True]) if rows[True] else None,
        "processing_class": policy.tokenizer,
    }
    if policy.encoder_decoder:
        del arguments["max_length"]  # TRL's own
        return Trainer(
            args=TrainingArguments(**arguments),
            data_collator=functools.partial(_batch_apart, policy),
            compute_loss_func=_mean_loss,
            **given,
        )
    arguments["dataset_kwargs"] = {"skip_prepare_dataset": True}
    return SFTTrainer(args=TrainerConfig(**arguments), **given)


def _batch_apart(policy: Policy, rows: Sequence[dict[str, list[int]]]) -> dict[str, Tensor]:
    """A batch for an encoder-decoder, laid out as PPO reads it."""
    packed = policy.pack([row["input_ids"] for row in rows], [row["labels"] for row in rows])
    labels = torch.full((packed.count, packed.width), IGNORED, device=packed.tokens.device)
    labels[packed.rows, packed.columns] = packed.tokens
    return packed.inputs | {"labels": labels}


def _mean_loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | None = None) -> Tensor:
    """Mean over the tokens of the whole batch, of which this may be a part. T5 would take the mean
    over the part and leave its weight to nobody."""
    loss = F.cross_entropy(
        outputs.logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    return loss / (labels.ne(IGNORED).sum() if num_items_in_batch is None else num_items_in_batch)


if __name__ == "__main__":
    run_stage(main)
