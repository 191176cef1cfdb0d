"""The input of every export: a PPO run's settings and prompts, and the target machine."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.training.data import Prompt
from rlhf.training.settings import SettingGroup


class TrackedSettings:
    """A run's settings. `keys` are those that an engine's function has read."""

    def __init__(self, settings: Any, prefix: str = "", keys: set[str] | None = None) -> None:
        self._settings, self._prefix = settings, prefix
        self.keys: set[str] = set() if keys is None else keys

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._settings, name)
        if isinstance(value, SettingGroup):
            return TrackedSettings(value, f"{name}.", self.keys)
        self.keys.add(f"{self._prefix}{name}")
        return value


@dataclass(frozen=True)
class Job:
    """A PPO run to export, and the target machine."""

    config: Any
    """`TrackedSettings`: settings that the engine's function does not read are not exported."""
    prompts: Sequence[Prompt]
    watch: Sequence[Prompt]
    longest: int
    """Tokens of the longest prompt."""
    stop: Sequence[str]
    folder: Path
    gpus: int
    tensor_parallel: int

    @property
    def passes(self) -> int:
        """The number of passes over the prompts, for at least the run's number of steps."""
        config = self.config
        return max(1, math.ceil(config.steps * config.rollout.prompts_per_step / len(self.prompts)))


def label(prompt: Prompt) -> str:
    """A prompt's data for `reward.py`, as one JSON text that the engines pass through."""
    return json.dumps({"messages": prompt.messages, "risk": prompt.risk}, ensure_ascii=False)
