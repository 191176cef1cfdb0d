"""The configuration of the stage `evaluate`."""

from dataclasses import dataclass

from rlhf.training.configs.shared import (
    MOST_SAMPLES,
    ModelConfig,
    long_prompts_setting,
    min_p_setting,
    tokens_per_pass_setting,
    top_k_setting,
    top_p_setting,
)
from rlhf.training.settings import given, required, setting

OPPONENTS = ("base", "previous")
"""The names of the policies that a policy is compared with."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(ModelConfig):
    """Held-out prompts, several samples each, scored and compared."""

    policy: str = required("The policy to evaluate: a model folder, or a name on the model hub.")
    reward_model: str = setting("", "The reward model that scores the samples. Empty: none.")
    opponents: dict[str, str] = setting(
        {},
        "Other policies that answer the same prompts with the same settings, by name (base, "
        "previous): model folders. Each name has either this or data/opponents/<name>.jsonl.",
    )
    temperatures: tuple[float, ...] = setting((1.0, 0.3), "Sampling temperatures.")
    samples_per_prompt: int = setting(
        3, "Samples per prompt and temperature.", minimum=1, maximum=MOST_SAMPLES
    )
    top_k: int = top_k_setting()
    top_p: float = top_p_setting()
    min_p: float = min_p_setting()
    long_prompts: str = long_prompts_setting()
    max_new_tokens: int = setting(64, "The longest response, in tokens.", minimum=1)
    safety_threshold: float = setting(
        0.15,
        "As in PPO: the safety score replaces helpfulness where sigmoid(safety) is below this.",
        minimum=0.0,
        maximum=1.0,
        requires=given("reward_model"),
    )
    batch_size: int = setting(256, "Responses decoded in parallel.", minimum=1)
    tokens_per_pass: int = tokens_per_pass_setting()

    def check(self) -> None:
        if set(self.opponents) - set(OPPONENTS):
            raise ValueError(f"opponents may be {' and '.join(OPPONENTS)}")
        if not self.temperatures or min(self.temperatures) < 1e-6:  # less, and logits overflow
            raise ValueError("temperatures must be one or more numbers from 0.000001 up")
        if len(set(self.temperatures)) != len(self.temperatures):
            raise ValueError("temperatures must differ from one another")
