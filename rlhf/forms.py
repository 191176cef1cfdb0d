"""The launch form, built from the fields of the stages' configuration classes."""

import dataclasses
from functools import cache

from rlhf.training import configs

STAGES: dict[str, type[configs.StageConfig]] = {
    "base": configs.BaseConfig,
    "generate": configs.GenerateConfig,
    "reward_model": configs.RewardModelConfig,
    "ppo": configs.PPOConfig,
    "evaluate": configs.EvaluateConfig,
}


@cache
def explained() -> dict[str, dict[str, str]]:
    """`{stage: {setting: the sentence beside it}}`."""
    return {
        stage: {
            field.name: str(field.metadata.get("help", "")) for field in dataclasses.fields(config)
        }
        for stage, config in STAGES.items()
    }
