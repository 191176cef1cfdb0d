"""The configuration of `inspection`."""

from dataclasses import dataclass

from rlhf.training.configs.shared import SeededConfig
from rlhf.training.settings import required, setting


@dataclass(frozen=True, kw_only=True)
class InspectionConfig(SeededConfig):
    """A model of one's own is read once, before anything is launched with it."""

    policy: str = required(
        "The model: a folder of safetensors or of adapters, a GGUF file, or a name on the model hub."
    )
    max_new_tokens: int = setting(
        24, "Tokens of the sample answer; 0 samples none.", minimum=0, maximum=256
    )
