"""Teach a policy by demonstrations and rewrites: `python -m rlhf.training.sft RUN_DIR`.

Supervised fine-tuning (TRL's SFTTrainer) with the loss on the response only: the policy learns to
answer, not to ask.
"""

import tempfile
import time
from pathlib import Path

from datasets import Dataset
from trl.trainer.sft_config import SFTConfig as TrainerConfig
from trl.trainer.sft_trainer import SFTTrainer

from rlhf.training import tuning
from rlhf.training.configs import SFTConfig, load
from rlhf.training.data import read_demonstrations
from rlhf.training.rundir import CONFIG, InputError, StopRequest, run_stage, write_result

IGNORED = -100
"""The label of a position without loss, as torch's cross-entropy knows it."""


def main(run_dir: Path, stop: StopRequest) -> None:
    began = time.monotonic()

    # 1. Configuration, demonstrations, policy.
    config = load(SFTConfig, run_dir / CONFIG)
    given = read_demonstrations(run_dir)
    policy = tuning.load_policy(config)

    # 2. Token ids. Labels are the response's tokens alone, its end among them.
    aside = tuning.held_out([p.prompt_id for p, _ in given], config.heldout_share, config.seed)
    rows: dict[bool, list[dict[str, list[int]]]] = {True: [], False: []}
    left_out = 0
    for prompt, text in given:
        response = tuning.encode_response(policy, text)
        ids = tuning.encode_prompt(
            policy, prompt, room=len(response), long_prompts=config.long_prompts
        )
        if ids is None:
            left_out += 1
            continue
        labels = [IGNORED] * len(ids) + response
        rows[prompt.prompt_id in aside].append({"input_ids": ids + response, "labels": labels})
    if not rows[False]:
        raise InputError("No demonstration fits the model's context; shorten them.")

    # 3. Training, between two looks at demonstrations that are not learnt.
    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=policy.model,
            args=TrainerConfig(
                **tuning.arguments(config, folder, len(rows[False]), policy.device),
                weight_decay=config.weight_decay,
                dataset_kwargs={"skip_prepare_dataset": True},
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


if __name__ == "__main__":
    run_stage(main)
