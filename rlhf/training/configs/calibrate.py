"""The configuration of the stage `calibrate`."""

from dataclasses import dataclass

from rlhf.training.configs.shared import MOST_RANK, MOST_SAMPLES, ModelConfig
from rlhf.training.settings import required, setting


@dataclass(frozen=True, kw_only=True)
class CalibrateConfig(ModelConfig):
    """Measure what a model costs on this device, in seconds: time per token and memory."""

    policy: str = required("The model to measure: a model folder, or a name on the model hub.")
    rows: int = setting(
        64,
        "The largest number of responses decoded in parallel that is measured.",
        minimum=2,
        maximum=MOST_SAMPLES,
    )
    max_new_tokens: int = setting(64, "The longest response, in tokens.", minimum=2)
    temperature: float = setting(1.0, "Sampling temperature.", minimum=0.01, maximum=10.0)
    train_tokens: int = setting(
        1024, "Tokens of the forward and backward passes that are measured.", minimum=16
    )
    lora_rank: int = setting(
        16, "Rank of the LoRA adapters that are measured.", minimum=1, maximum=MOST_RANK
    )
    max_length: int = setting(512, "The longest conversation with response, in tokens.", minimum=8)
    seconds: float = setting(
        2.0,
        "About how long each number of rows is decoded. Longer measures more exactly.",
        minimum=0.01,
        maximum=600.0,
    )
