"""What a PPO run goes on from after it was killed: weights, the optimizer's moments, its state."""

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
    """What changes from step to step besides weights; all of it is in a checkpoint."""

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
    """(step, train-RM's mean, test-RM's mean) at each look at the watch prompts."""
    before: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    """What the policy said to the watch prompts before its first step."""
    scales: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    """Mean, deviation and reference of each reward model, where they were measured anew."""


def trained_tensors(
    models: Models, optimizer: torch.optim.Optimizer
) -> dict[str, dict[str, Tensor]]:
    """Weights and the optimizer's moments, whole, by the file that a checkpoint has them in.

    All processes ask together.
    """
    reference = {n: parallel.full_tensor(w) for n, w in models.followed.items()}
    return ({"reference": reference} if reference else {}) | {
        "policy": {n: parallel.full_tensor(p.detach()) for n, p in models.trained()},
        "critic": {
            n: parallel.full_tensor(p.detach()) for n, p in models.critic.named_parameters()
        },
        "optimizer": parallel.optimizer_state(optimizer),
    }


def write_checkpoint(tensors: dict[str, dict[str, Tensor]], state: State, folder: Path) -> None:
    """Everything that a resumed run needs to go on as if nothing had happened."""
    for name, some in tensors.items():
        on_cpu = {key: value.cpu().contiguous() for key, value in some.items()}
        save_file(on_cpu, folder / f"{name}.safetensors")
    write_json(folder / "state.json", dataclasses.asdict(state))


def load_checkpoint(
    folder: Path, models: Models, optimizer: torch.optim.Optimizer
) -> tuple[State, dict[str, dict[str, Tensor]]]:
    """Put weights and optimizer back; returns the state and copies of the policy's weights: the
    `best` so far, the last `within` the KL budget, their `average`. One that is not there is empty.

    `InputError`, before anything is put back, where the checkpoint has other weights than the run.
    """
    # By parameter, as it was written: a T5 has names for the same tensor that are not in the file.
    critic_now = dict(models.critic.named_parameters())
    policy = _read(folder, "policy", dict(models.trained()))
    reference = _read(folder, "reference", models.followed)
    critic = _read(folder, "critic", critic_now)
    models.restore(policy)
    models.put_reference(reference)
    with torch.no_grad():
        for name, parameter in critic_now.items():
            parameter.copy_(parallel.distribute_tensor(critic[name], parameter))
    parallel.load_optimizer_state(optimizer, load_file(folder / "optimizer.safetensors"))
    saved = read_json(folder / "state.json")
    saved["watched"] = [tuple(look) for look in saved["watched"]]
    copies = {}
    for name in ("best", "within", "average"):
        path = folder / f"{name}.safetensors"
        copies[name] = load_file(path) if path.exists() else {}
    return State(**saved), copies


def _read(folder: Path, name: str, now: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file, which must be those that there are `now`; no file where there are none.

    `InputError` where they are others: then the run was begun under other settings.
    """
    path = folder / f"{name}.safetensors"
    saved = load_file(path) if path.exists() else {}
    if {n: t.shape for n, t in saved.items()} != {n: t.shape for n, t in now.items()}:
        raise settings_changed(path.name)
    return saved
