"""The configuration of the stage `generate`."""

from dataclasses import dataclass

from rlhf.training.configs.shared import (
    MOST_SAMPLES,
    ModelConfig,
    long_prompts_setting,
    min_p_setting,
    top_k_setting,
    top_p_setting,
)
from rlhf.training.settings import required, setting


@dataclass(frozen=True, kw_only=True)
class GenerateConfig(ModelConfig):
    """The policy answers prompts, several times each."""

    policy: str = required("The policy: a model folder, or a name on the model hub.")
    k: int = setting(
        4, "Responses per prompt, distinct where the policy can.", minimum=1, maximum=64
    )
    oversample: int = setting(
        1,
        "Extra responses sampled per prompt, so that k distinct ones remain.",
        minimum=0,
        maximum=MOST_SAMPLES,
    )
    temperature: float = setting(1.0, "Sampling temperature.", minimum=0.01, maximum=10.0)
    top_k: int = top_k_setting()
    top_p: float = top_p_setting()
    min_p: float = min_p_setting()
    long_prompts: str = long_prompts_setting()
    max_new_tokens: int = setting(64, "The longest response, in tokens.", minimum=1)
    batch_size: int = setting(256, "Responses decoded in parallel.", minimum=1)
