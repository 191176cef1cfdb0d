"""The configuration of the stage `selection`."""

from dataclasses import dataclass

from rlhf.training.configs.shared import device_setting, tokens_per_pass_setting
from rlhf.training.settings import StageConfig, required, setting


@dataclass(frozen=True, kw_only=True)
class SelectionConfig(StageConfig):
    """Score comparisons by an ensemble's disagreement, so that people judge the highest first."""

    reward_model: str = required("A reward model with several members: its folder.")
    recency: float = setting(
        0.5,
        "A score is multiplied by this for each promoted policy that is newer than the one that "
        "wrote the responses.",
        minimum=0.0,
        maximum=1.0,
    )
    draw: bool = setting(
        True,
        "Sample comparisons with probability proportional to their score, because those with the "
        "highest scores are similar to each other. False: sort by score.",
    )
    batch_size: int = setting(128, "Texts scored in parallel.", minimum=1)
    tokens_per_pass: int = tokens_per_pass_setting()
    threads: int = setting(0, "CPU threads; 0 leaves it to torch.", minimum=0, maximum=256)
    device: str = device_setting()
