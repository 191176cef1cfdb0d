"""The configuration of the stage `selection`."""

from dataclasses import dataclass

from rlhf.training.configs.shared import device_setting
from rlhf.training.settings import StageConfig, required, setting


@dataclass(frozen=True, kw_only=True)
class SelectionConfig(StageConfig):
    """Find where an ensemble of reward models disagrees, so that people judge that first."""

    reward_model: str = required("A reward model with several members: its folder.")
    recency: float = setting(
        0.5,
        "A score is multiplied by this for each policy that is newer than the response's. The "
        "reward model will be used on the newest policies.",
        minimum=0.0,
        maximum=1.0,
    )
    draw: bool = setting(
        True,
        "Sample comparisons in proportion to how much each would teach, because the most "
        "informative ones are much alike. False: rank them by it.",
    )
    batch_size: int = setting(128, "Texts scored in parallel.", minimum=1)
    threads: int = setting(0, "CPU threads; 0 leaves it to torch.", minimum=0, maximum=256)
    device: str = device_setting()
