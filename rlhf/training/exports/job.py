"""What is exported: a PPO run's settings and prompts, and the machine that it is to run on."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.training.configs import PPOConfig
from rlhf.training.data import Prompt


class Asked:
    """A run's settings, noting which of them somebody asked for."""

    def __init__(self, config: PPOConfig) -> None:
        self.config = config
        self.names: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.names.add(name)
        return getattr(self.config, name)


@dataclass(frozen=True)
class Job:
    """What is exported, and for what machine."""

    config: Any
    """The settings, as `Asked`: what an engine's function does not ask for is left behind."""
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
        """Passes over the prompts that come to at least the run's steps."""
        config = self.config
        return max(1, math.ceil(config.steps * config.prompts_per_step / len(self.prompts)))


def label(prompt: Prompt) -> str:
    """What `reward.py` needs to know of a prompt, as one text that engines hand through."""
    return json.dumps({"messages": prompt.messages, "risk": prompt.risk}, ensure_ascii=False)
