"""Common parts of supervised fine-tuning and DPO: the policy, the split, TRL's arguments, progress.

Both trainers are TRL's. They get token ids that are made exactly as for sampling: trainers that render
conversations themselves may put the response after another prompt than `generate` does.
"""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from rlhf.training import microbatches
from rlhf.training.configs import DPOConfig, SFTConfig
from rlhf.training.language_models import devices
from rlhf.training.language_models.policy import Policy, load_policy
from rlhf.training.rundir import POLICY
from rlhf.training.rundir.errors import InputError, Stopped
from rlhf.training.rundir.files import replace_folder
from rlhf.training.rundir.process import StopRequest
from rlhf.training.rundir.reports import MetricsWriter, Progress


def load_trainable_policy(config: SFTConfig | DPOConfig) -> Policy:
    """The policy in float32, with the random seed set and a pad token, which no mask depends on."""
    device = devices.choose_device(config.device)
    devices.be_deterministic(config.seed, config.threads)
    policy = load_policy(config.policy, "policy", device=device)
    if policy.tokenizer.pad_token is None:
        policy.tokenizer.pad_token = policy.tokenizer.convert_ids_to_tokens(policy.pad_id)
    return policy


def held_out(prompt_ids: Sequence[str], share: float, seed: int) -> set[str]:
    """The held-out prompts, the same for the same ids and random seed; never all of them."""
    distinct = sorted(
        set(prompt_ids), key=lambda p: hashlib.sha256(f"{seed}:{p}".encode()).digest()
    )
    return set(distinct[: min(round(share * len(distinct)), len(distinct) - 1)])


def arguments(
    config: SFTConfig | DPOConfig, folder: str, sizes: Sequence[int], policy: Policy
) -> dict[str, Any]:
    """The arguments that both trainers take, for examples of these sizes in tokens."""
    device, rows = policy.device, len(sizes)
    micro = rows_per_pass(config, sizes, policy)
    accumulated = max(1, config.batch_size // micro)
    steps = config.epochs * max(1, -(-rows // (micro * accumulated)))
    return {
        "output_dir": folder,
        "per_device_train_batch_size": micro,
        "per_device_eval_batch_size": micro,
        "gradient_accumulation_steps": accumulated,
        "num_train_epochs": config.epochs,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": round(config.warmup_share * steps),
        "max_grad_norm": config.max_grad_norm,
        "seed": config.seed % 2**32,  # NumPy's seed has 32 bits
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": device.type == "cpu",
        "bf16": devices.choose_dtype(config.dtype, device) == torch.bfloat16,
        "gradient_checkpointing": False,
        "remove_unused_columns": False,
        "max_length": None,
    }


def rows_per_pass(config: SFTConfig | DPOConfig, sizes: Sequence[int], policy: Policy) -> int:
    """Examples per forward pass: as many as divide a batch and have at most `tokens_per_pass` tokens
    with the longest of them, which `sizes` has; at most `microbatch_size`."""
    tokens = config.tokens_per_pass or microbatches.default_tokens(
        policy.model, device=policy.device, trains=True
    )
    most = min(config.microbatch_size, config.batch_size, max(1, tokens // max(sizes)))
    return next(n for n in range(most, 0, -1) if config.batch_size % n == 0)


class ProgressCallback(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Writes metrics and progress while a trainer runs, and stops it on request.

    `names` maps the trainer's names of metrics to ours."""

    def __init__(self, run_dir: Path, stop: StopRequest, names: dict[str, str]) -> None:
        self.run_dir, self.stop, self.names = run_dir, stop, names
        self.metrics = MetricsWriter(run_dir)
        self.progress = Progress(run_dir)
        self._passes = self._evaluated = 0
        self.began = time.monotonic()
        self.losses: list[float] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        metrics = {ours: logs[theirs] for theirs, ours in self.names.items() if theirs in logs}
        if "loss" in metrics:
            self.losses.append(float(metrics["loss"]))
            self.metrics.write(state.global_step, **metrics)

    def on_substep_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """After a microbatch whose gradients are accumulated."""
        self._passes += 1
        self._on_pass(self._passes, args.gradient_accumulation_steps)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._passes = 0
        name = f"update {state.global_step + 1}"
        self._on_pass = self.progress.phase(name, args.gradient_accumulation_steps, "passes")

    def on_prediction_step(
        self, args: Any, state: Any, control: Any, eval_dataloader: Any = None, **_: Any
    ) -> None:
        """After a microbatch of the held-out examples."""
        total = len(eval_dataloader) if hasattr(eval_dataloader, "__len__") else 0
        if not self._evaluated:
            self._on_evaluated = self.progress.phase("evaluating", total, "passes")
        self._evaluated += 1
        self._on_evaluated(self._evaluated)
        if self._evaluated >= total:
            self._evaluated = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        done, total = state.global_step, state.max_steps
        eta = (time.monotonic() - self.began) / done * (total - done)
        self.progress.of_run(done, total, "updates", eta_seconds=eta)
        if self.stop.requested:
            control.should_training_stop = True


def finish(policy: Policy, model: Any, progress: ProgressCallback) -> None:
    """After training: stop on request, refuse a policy that diverged, else write it.

    A stopped run starts over: a trainer's checkpoint holds pickles, which are never read.
    """
    progress.metrics.close()
    if progress.stop.requested:
        raise Stopped
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise InputError(f"Training diverged: {name} holds NaN; lower learning_rate.")

    def write(new: Path) -> None:
        model.save_pretrained(new)
        policy.tokenizer.save_pretrained(new)

    replace_folder(progress.run_dir / POLICY, write)
