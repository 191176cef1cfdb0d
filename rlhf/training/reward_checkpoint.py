"""What a reward_model run goes on from after it was killed: weights and the optimizer's moments."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rlhf.training import parallel
from rlhf.training.reward_models.model import RewardModel
from rlhf.training.rundir.checkpoints import settings_changed
from rlhf.training.rundir.files import read_json, write_json


@dataclass
class LeftOff:
    """A checkpoint: what a killed run goes on from. Whatever else it needs, it computes again."""

    step: int
    """Steps of the model that was being trained; those before it are done."""
    total_steps: int
    weights: dict[str, Tensor]
    moments: dict[str, Tensor]
    trained: list[dict[str, Tensor]]
    skipped: list[int]

    def write(self, folder: Path) -> None:
        """Fill an empty folder."""
        for number, weights in enumerate([*self.trained, self.weights]):
            save_file(weights, folder / f"model-{number}.safetensors")
        save_file(
            {name: m.cpu().contiguous() for name, m in self.moments.items()},
            folder / "optimizer.safetensors",
        )
        state = {"step": self.step, "total_steps": self.total_steps, "skipped": self.skipped}
        write_json(folder / "state.json", state)

    @classmethod
    def read(cls, folder: Path) -> "LeftOff":
        """What `write` wrote."""
        state = read_json(folder / "state.json")
        count = len(list(folder.glob("model-*.safetensors")))
        models = [load_file(folder / f"model-{number}.safetensors") for number in range(count)]
        moments = load_file(folder / "optimizer.safetensors")
        counts = state.get("skipped", [0] * count)  # checkpoints of before have none
        return cls(state["step"], state["total_steps"], models[-1], moments, models[:-1], counts)


def learnt(model: RewardModel, log_reliability: Tensor) -> dict[str, Tensor]:
    """A whole copy of what training changes, on the CPU. All processes ask together."""
    found = {
        f"trunk.{name}": p
        for name, p in model.trunk.named_parameters()
        if not model.adapters or "lora_" in name
    }
    found |= {f"heads.{name}": p for name, p in model.heads.named_parameters()}
    found |= {"log_nu": model.log_nu, "log_reliability": log_reliability}
    return {
        n: parallel.full_tensor(p.detach()).cpu().clone().contiguous() for n, p in found.items()
    }


@torch.no_grad()
def put(model: RewardModel, log_reliability: Tensor, saved: dict[str, Tensor]) -> None:
    """Put back what `learnt` gave; `InputError` where it has other weights than this model."""
    places = dict(model.trunk.named_parameters(prefix="trunk"))
    places |= dict(model.heads.named_parameters(prefix="heads"))
    places |= {"log_nu": model.log_nu, "log_reliability": nn.Parameter(log_reliability.data)}
    trained = [n for n in places if not (model.adapters and n.startswith("trunk.")) or "lora_" in n]
    if {n: t.shape for n, t in saved.items()} != {n: places[n].shape for n in trained}:
        raise settings_changed("model-*.safetensors")
    for name, tensor in saved.items():
        places[name].copy_(parallel.distribute_tensor(tensor, places[name]))
