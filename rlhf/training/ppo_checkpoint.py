"""A PPO run's checkpoint: weights, the optimizer's moments, the state of the run."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rlhf.training import parallel
from rlhf.training.ppo_models import Models
from rlhf.training.rundir.checkpoints import settings_changed
from rlhf.training.rundir.files import read_json, write_json


@dataclass
class State:
    """The state that changes from step to step, except weights."""

    step: int = 0
    kl_weight: float = 0.0
    multiplier: float = 1.0
    skipped: int = 0
    skipped_in_a_row: int = 0
    seconds: float = 0.0
    samples: int = 0
    reward: float = 0.0
    kl: float = 0.0
    stop_reason: str = ""
    rollbacks: int = 0
    best_step: int = 0
    within_step: int = 0
    """The last step whose policy, as the next rollout measured it, was within the KL budget."""
    watched: list[tuple[int, float, float]] = dataclasses.field(default_factory=list)
    """(step, train-RM's mean, test-RM's mean) of each evaluation on the watch prompts."""
    before: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    """The first policy's answers to the watch prompts."""
    scales: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    """Mean, deviation and reference of each reward model, if the run has measured them."""


def trained_tensors(
    models: Models, optimizer: torch.optim.Optimizer
) -> dict[str, dict[str, Tensor]]:
    """Full weights and optimizer moments, by the name of their file in a checkpoint.

    All processes call together.
    """
    reference = {n: parallel.full_tensor(w) for n, w in models.moving_reference.items()}
    return ({"reference": reference} if reference else {}) | {
        "policy": {n: parallel.full_tensor(p.detach()) for n, p in models.trained()},
        "critic": {
            n: parallel.full_tensor(p.detach()) for n, p in models.critic.named_parameters()
        },
        "optimizer": parallel.optimizer_state(optimizer),
    }


def write_checkpoint(tensors: dict[str, dict[str, Tensor]], state: State, folder: Path) -> None:
    """Write the state from which a resumed run gives bitwise the same results."""
    for name, weights in tensors.items():
        on_cpu = {key: value.cpu().contiguous() for key, value in weights.items()}
        save_file(on_cpu, folder / f"{name}.safetensors")
    write_json(folder / "state.json", dataclasses.asdict(state))


def load_checkpoint(
    folder: Path, models: Models, optimizer: torch.optim.Optimizer
) -> tuple[State, dict[str, dict[str, Tensor]]]:
    """Load weights and optimizer; returns the state and copies of the policy's weights: the `best`
    so far, the last `within` the KL budget, their `average`. A missing copy is empty.

    `InputError`, before anything is loaded, if the checkpoint's weights are not those of the run.
    """
    # By parameter, as it was written: a T5 has names for the same tensor that are not in the file.
    critic_now = dict(models.critic.named_parameters())
    policy = _read(folder, "policy", dict(models.trained()))
    reference = _read(folder, "reference", models.moving_reference)
    critic = _read(folder, "critic", critic_now)
    models.restore(policy)
    models.load_reference(reference)
    with torch.no_grad():
        for name, parameter in critic_now.items():
            parameter.copy_(parallel.distribute_tensor(critic[name], parameter))
    parallel.load_optimizer_state(optimizer, load_file(folder / "optimizer.safetensors"))
    saved = read_json(folder / "state.json")
    saved["watched"] = [tuple(evaluation) for evaluation in saved["watched"]]
    copies = {}
    for name in ("best", "within", "average"):
        path = folder / f"{name}.safetensors"
        copies[name] = load_file(path) if path.exists() else {}
    return State(**saved), copies


def _read(folder: Path, name: str, now: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file, which must have the names and shapes of `now`; without a file, none.

    `InputError` if they differ: then the run was started with other settings.
    """
    path = folder / f"{name}.safetensors"
    saved = load_file(path) if path.exists() else {}
    if {n: t.shape for n, t in saved.items()} != {n: t.shape for n, t in now.items()}:
        raise settings_changed(path.name)
    return saved
