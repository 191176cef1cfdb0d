"""The configuration of each training stage: frozen dataclasses, standard library only.

What they have in common (fields, limits, groups, `config.json`) is in `rlhf/training/settings.py`.
"""

from rlhf.training.configs.base import BaseConfig
from rlhf.training.configs.best_of_n import BestOfNConfig
from rlhf.training.configs.calibrate import CalibrateConfig
from rlhf.training.configs.evaluate import EvaluateConfig
from rlhf.training.configs.generate import GenerateConfig
from rlhf.training.configs.grow import GrowConfig
from rlhf.training.configs.inspection import InspectionConfig
from rlhf.training.configs.ppo import PPOConfig
from rlhf.training.configs.reward_model import RewardModelConfig
from rlhf.training.configs.selection import SelectionConfig
from rlhf.training.configs.tuning import DPOConfig, SFTConfig
from rlhf.training.settings import StageConfig

CONFIGS: dict[str, type[StageConfig]] = {
    "base": BaseConfig,
    "generate": GenerateConfig,
    "reward_model": RewardModelConfig,
    "ppo": PPOConfig,
    "evaluate": EvaluateConfig,
    "selection": SelectionConfig,
    "sft": SFTConfig,
    "dpo": DPOConfig,
    "best_of_n": BestOfNConfig,
    "grow": GrowConfig,
    "calibrate": CalibrateConfig,
    "inspection": InspectionConfig,
}
"""The configuration class of each stage, by the stage's name."""

__all__ = [
    "CONFIGS",
    "BaseConfig",
    "BestOfNConfig",
    "CalibrateConfig",
    "DPOConfig",
    "EvaluateConfig",
    "GenerateConfig",
    "GrowConfig",
    "InspectionConfig",
    "PPOConfig",
    "RewardModelConfig",
    "SFTConfig",
    "SelectionConfig",
]
