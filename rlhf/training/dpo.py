"""Refine a policy on preferences without a reward model or sampling: `python -m rlhf.training.dpo RUN_DIR`.

Direct preference optimization (Rafailov et al. 2023, "Direct preference optimization: your language
model is secretly a reward model"), by TRL's DPOTrainer, on the frozen preferences that the reward
models learn from: the baseline that a PPO run is compared with.
"""

import copy
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl.trainer.dpo_config import DPOConfig as TrainerConfig
from trl.trainer.dpo_trainer import DPOTrainer

from rlhf.training import reward_math, tuning
from rlhf.training.configs import DPOConfig
from rlhf.training.data import Judgment, read_judgments
from rlhf.training.language_models.policy import Policy
from rlhf.training.rundir import CONFIG
from rlhf.training.rundir.errors import InputError
from rlhf.training.rundir.process import StopRequest, run_stage
from rlhf.training.rundir.reports import Progress, write_result
from rlhf.training.settings import load


class Trainer(DPOTrainer):  # type: ignore[misc,unused-ignore]
    """TRL's trainer, on a dataset that is tokenized already."""

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset


def main(run_dir: Path, stop: StopRequest) -> None:
    began = time.monotonic()

    # 1. Configuration, preferences, policy.
    config = load(DPOConfig, run_dir / CONFIG)
    Progress(run_dir).phase("loading the policy")
    judgments = read_judgments(run_dir, [config.axis])
    policy = tuning.load_trainable_policy(config)
    policy.refuse_encoder_decoder("TRL's DPOTrainer")

    # 2. Pairs of which one response was ranked above the other. A tie prefers neither.
    training, held_out, left_out = encode_pairs(policy, judgments, config)
    if not training:
        raise InputError(
            f"data/preferences.jsonl has no pair on {config.axis} to learn from that counts and "
            "fits the model's context; rank more responses, or set long_prompts."
        )

    # 3. Training, and how often the preferred response of a held-out pair became the likelier one.
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=policy.model,
            ref_model=copy.deepcopy(policy.model).requires_grad_(requires_grad=False),
            args=TrainerConfig(
                **tuning.arguments(config, folder, [tokens_of(row) for row in training], policy),
                **losses(config),
                beta=config.beta,
            ),
            train_dataset=Dataset.from_list(training),
            eval_dataset=Dataset.from_list(held_out) if held_out else None,
            processing_class=policy.tokenizer,
        )
        progress = tuning.ProgressCallback(
            run_dir,
            stop,
            {
                "loss": "loss",
                "learning_rate": "learning_rate",
                "grad_norm": "grad_norm",
                "rewards/accuracies": "accuracy",
                "rewards/margins": "margin",
            },
        )
        trainer.add_callback(progress)
        trainer.train()
        measured = trainer.evaluate() if held_out and not stop.requested else {}

    # 4. The policy, the result.
    tuning.finish(policy, trainer.model, progress)
    last = progress.losses[-20:]
    write_result(
        run_dir,
        {
            "n_pairs": len(training),
            "n_heldout": len(held_out),
            "n_left_out": left_out,
            "steps": trainer.state.global_step,
            "loss": sum(last) / len(last),
            "heldout_loss": measured.get("eval_loss"),
            "heldout_accuracy": measured.get("eval_rewards/accuracies"),
            "seconds": time.monotonic() - began,
        },
    )


Row = dict[str, list[int]]


def encode_pairs(
    policy: Policy, judgments: Sequence[Judgment], config: DPOConfig
) -> tuple[list[Row], list[Row], int]:
    """Decided pairs as token ids: those to train on, those of held-out prompts, and how many pairs
    were left out because they do not fit the model's context."""
    held_out_prompts = tuning.held_out(
        [j.prompt.prompt_id for j in judgments], config.heldout_share, config.seed
    )
    training: list[Row] = []
    held_out: list[Row] = []
    left_out = 0
    for judgment in judgments:
        ranks = judgment.ranks.get(config.axis)
        if ranks is None or judgment.weight == 0:
            continue
        encoded = [policy.encode_response(text) for text in judgment.responses]
        for pair in reward_math.pairs_of(ranks, judgment.responses):
            if pair.tie:
                continue
            chosen, rejected = encoded[pair.better], encoded[pair.worse]
            prompt_ids = policy.encode_unless_left_out(
                judgment.prompt,
                room=max(len(chosen), len(rejected)),
                long_prompts=config.long_prompts,
            )
            if prompt_ids is None:
                left_out += 1
                continue
            rows = held_out if judgment.prompt.prompt_id in held_out_prompts else training
            rows.append({"prompt_ids": prompt_ids, "chosen_ids": chosen, "rejected_ids": rejected})
    return training, held_out, left_out


def tokens_of(row: Row) -> int:
    """Tokens of a pair in a forward pass: both sides with the prompt, as long as the longer one."""
    longer = max(len(row["chosen_ids"]), len(row["rejected_ids"]))
    return 2 * (len(row["prompt_ids"]) + longer)


def losses(config: DPOConfig) -> dict[str, Any]:
    """TRL's arguments for conservative DPO (Mitchell 2023): with a share e of wrong labels,
    (1 - e) S + e F, where S is the loss of a pair as labeled and F that of the swapped pair.

    TRL's `label_smoothing` has no effect on its `sigmoid`, S; it changes `robust`, which is
    ((1 - e) S - e F) / (1 - 2e) (Chowdhury et al. 2024). A weighted sum of the two is that loss.
    """
    share = config.label_smoothing
    if not share:
        return {}
    return {
        "loss_type": ["sigmoid", "robust"],
        "loss_weights": [2 * (1 - share), 2 * share - 1],
        "label_smoothing": share,
    }


if __name__ == "__main__":
    run_stage(main)
