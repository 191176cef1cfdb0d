"""Refine a policy by preferences without reward model or sampling: `python -m rlhf.training.dpo RUN_DIR`.

Direct preference optimisation (Rafailov et al. 2023, "Direct preference optimization: your language
model is secretly a reward model"), by TRL's DPOTrainer, on the frozen preferences that the reward
models learn from: the baseline that a PPO run is compared with.
"""

import copy
import tempfile
import time
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl.trainer.dpo_config import DPOConfig as TrainerConfig
from trl.trainer.dpo_trainer import DPOTrainer

from rlhf.training import reward_math, tuning
from rlhf.training.configs import DPOConfig
from rlhf.training.data import read_judgments
from rlhf.training.rundir import CONFIG
from rlhf.training.rundir.errors import InputError
from rlhf.training.rundir.process import StopRequest, run_stage
from rlhf.training.rundir.reports import write_result
from rlhf.training.settings import load


class Trainer(DPOTrainer):  # type: ignore[misc,unused-ignore]
    """TRL's, on token ids as they are."""

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset


def main(run_dir: Path, stop: StopRequest) -> None:
    began = time.monotonic()

    # 1. Configuration, preferences, policy.
    config = load(DPOConfig, run_dir / CONFIG)
    judgments = read_judgments(run_dir, [config.axis])
    policy = tuning.load_trainable_policy(config)
    policy.refuse_encoder_decoder("TRL's DPOTrainer")

    # 2. Pairs of which one was ranked above the other. A tie prefers nothing.
    aside = tuning.held_out(
        [j.prompt.prompt_id for j in judgments], config.heldout_share, config.seed
    )
    rows: dict[bool, list[dict[str, list[int]]]] = {True: [], False: []}
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
            ids = policy.encode_unless_left_out(
                judgment.prompt,
                room=max(len(chosen), len(rejected)),
                long_prompts=config.long_prompts,
            )
            if ids is None:
                left_out += 1
                continue
            rows[judgment.prompt.prompt_id in aside].append(
                {"prompt_ids": ids, "chosen_ids": chosen, "rejected_ids": rejected}
            )
    if not rows[False]:
        raise InputError(
            f"data/preferences.jsonl has no pair on {config.axis} to learn from that counts and "
            "fits the model's context; rank more responses, or set long_prompts."
        )

    # 3. Training, and how often the held-out preference is the likelier one relative to the start.
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=policy.model,
            ref_model=copy.deepcopy(policy.model).requires_grad_(requires_grad=False),
            args=TrainerConfig(
                **tuning.arguments(config, folder, len(rows[False]), policy.device),
                **losses(config),
                beta=config.beta,
            ),
            train_dataset=Dataset.from_list(rows[False]),
            eval_dataset=Dataset.from_list(rows[True]) if rows[True] else None,
            processing_class=policy.tokenizer,
        )
        books = tuning.Books(
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
        trainer.add_callback(books)
        trainer.train()
        measured = trainer.evaluate() if rows[True] and not stop.requested else {}

    # 4. The policy, the result.
    tuning.finish(policy, trainer.model, books)
    last = books.losses[-20:]
    write_result(
        run_dir,
        {
            "n_pairs": len(rows[False]),
            "n_heldout": len(rows[True]),
            "n_left_out": left_out,
            "steps": trainer.state.global_step,
            "loss": sum(last) / len(last),
            "heldout_loss": measured.get("eval_loss"),
            "heldout_accuracy": measured.get("eval_rewards/accuracies"),
            "seconds": time.monotonic() - began,
        },
    )


def losses(config: DPOConfig) -> dict[str, Any]:
    """TRL's arguments for conservative DPO (Mitchell 2023): with a share e of labels the wrong way
    round, (1 - e) S + e F, S being the loss of a pair as it is labelled and F of the pair turned.

    TRL's `label_smoothing` does nothing to its `sigmoid`, S; it is that of `robust`, which is
    ((1 - e) S - e F) / (1 - 2e) (Chowdhury et al. 2024). The two add up to the one that is meant.
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
