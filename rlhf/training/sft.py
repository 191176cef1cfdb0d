"""Supervised fine-tuning on demonstrations and rewrites: `python -m rlhf.training.sft RUN_DIR`.

TRL's SFTTrainer, with the loss on the response only. Encoder-decoders, which SFTTrainer does not
support, use its base class, the Trainer of transformers.
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
from rlhf.training.rundir.reports import Progress, write_result
from rlhf.training.settings import load

Row = dict[str, list[int]]

IGNORED = -100
"""The label of a position without loss: torch's default `ignore_index` of cross-entropy."""


def main(run_dir: Path, stop: StopRequest) -> None:
    began = time.monotonic()

    # 1. Configuration, demonstrations, policy.
    config = load(SFTConfig, run_dir / CONFIG)
    Progress(run_dir).phase("loading the policy")
    demonstrations = read_demonstrations(run_dir)
    policy = tuning.load_trainable_policy(config)

    # 2. Token ids. Labels are the response's tokens alone, its end token included.
    held_out_prompts = tuning.held_out(
        [p.prompt_id for p, _ in demonstrations], config.heldout_share, config.seed
    )
    training: list[Row] = []
    held_out: list[Row] = []
    left_out = 0
    for prompt, text in demonstrations:
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
        (held_out if prompt.prompt_id in held_out_prompts else training).append(row)
    if not training:
        raise InputError("No demonstration fits the model's context; shorten them.")

    # 3. Training, between two evaluations on held-out demonstrations.
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(policy, config, training, held_out, folder)
        progress = tuning.ProgressCallback(
            run_dir,
            stop,
            {
                "loss": "loss",
                "learning_rate": "learning_rate",
                "grad_norm": "grad_norm",
                "mean_token_accuracy": "token_accuracy",
            },
        )
        before = trainer.evaluate()["eval_loss"] if held_out else None
        trainer.add_callback(progress)
        trainer.train()
        after = trainer.evaluate()["eval_loss"] if held_out and not stop.requested else None

    # 4. The policy, the result.
    tuning.finish(policy, trainer.model, progress)
    last = progress.losses[-20:]
    write_result(
        run_dir,
        {
            "n_demonstrations": len(training),
            "n_heldout": len(held_out),
            "n_left_out": left_out,
            "steps": trainer.state.global_step,
            "loss": sum(last) / len(last),
            "heldout_loss_before": before,
            "heldout_loss": after,
            "seconds": time.monotonic() - began,
        },
    )


def _trainer(
    policy: Policy, config: SFTConfig, training: list[Row], held_out: list[Row], folder: str
) -> Trainer:
    """A trainer on tokenized demonstrations."""
    sizes = [
        len(row["input_ids"]) + len(row["labels"]) * policy.encoder_decoder for row in training
    ]
    arguments = tuning.arguments(config, folder, sizes, policy)
    arguments["weight_decay"] = config.weight_decay
    common = {
        "model": policy.model,
        "train_dataset": Dataset.from_list(training),
        "eval_dataset": Dataset.from_list(held_out) if held_out else None,
        "processing_class": policy.tokenizer,
    }
    if policy.encoder_decoder:
        del arguments["max_length"]  # TRL's own
        return Trainer(
            args=TrainingArguments(**arguments),
            data_collator=functools.partial(_batch_apart, policy),
            compute_loss_func=_mean_loss,
            **common,
        )
    arguments["dataset_kwargs"] = {"skip_prepare_dataset": True}
    return SFTTrainer(args=TrainerConfig(**arguments), **common)


def _batch_apart(policy: Policy, rows: Sequence[dict[str, list[int]]]) -> dict[str, Tensor]:
    """A batch for an encoder-decoder, in the layout that PPO uses."""
    packed = policy.pack([row["input_ids"] for row in rows], [row["labels"] for row in rows])
    labels = torch.full((packed.count, packed.width), IGNORED, device=packed.tokens.device)
    labels[packed.rows, packed.columns] = packed.tokens
    return packed.inputs | {"labels": labels}


def _mean_loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | None = None) -> Tensor:
    """Mean over the tokens of the whole batch, of which this may be a microbatch. T5's own loss is
    the mean over the microbatch, which weights short microbatches too much."""
    loss = F.cross_entropy(
        outputs.logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    return loss / (labels.ne(IGNORED).sum() if num_items_in_batch is None else num_items_in_batch)


if __name__ == "__main__":
    run_stage(main)
