"""The checkpoint of a reward_model run: weights of its models and the state of the optimizer."""

from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from rlhf.training.rundir.files import link_or_copy, read_json, write_json


@dataclass
class RewardCheckpoint:
    """The state that a killed run resumes from. Everything else is recomputed."""

    step: int
    """Updates of the model that was being trained; the models before it are finished."""
    total_steps: int
    """Updates of all models."""
    weights: dict[str, Tensor]
    """Of the model that was being trained."""
    optimizer: dict[str, Tensor]
    finished: list[Path]
    """A safetensors file with the weights of each finished model, in order."""
    skipped: list[int]
    """Skipped updates of each model."""

    def write(self, folder: Path) -> None:
        """Fill an empty folder."""
        for number, file in enumerate(self.finished):
            link_or_copy(file, folder / f"model-{number}.safetensors")
        save_file(self.weights, folder / f"model-{len(self.finished)}.safetensors")
        save_file(
            {name: tensor.cpu().contiguous() for name, tensor in self.optimizer.items()},
            folder / "optimizer.safetensors",
        )
        state = {"step": self.step, "total_steps": self.total_steps, "skipped": self.skipped}
        write_json(folder / "state.json", state)

    @classmethod
    def read(cls, folder: Path) -> "RewardCheckpoint":
        """Read a checkpoint of `write`."""
        state = read_json(folder / "state.json")
        count = len(list(folder.glob("model-*.safetensors")))
        models = [folder / f"model-{number}.safetensors" for number in range(count)]
        optimizer = load_file(folder / "optimizer.safetensors")
        skipped = state.get("skipped", [0] * count)  # older checkpoints have no count
        weights = load_file(models[-1])
        return cls(state["step"], state["total_steps"], weights, optimizer, models[:-1], skipped)
