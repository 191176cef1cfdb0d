"""The configuration of the stage `best_of_n`."""

from dataclasses import dataclass

from rlhf.training.configs.shared import (
    MOST_SAMPLES,
    ModelConfig,
    long_prompts_setting,
    tokens_per_pass_setting,
)
from rlhf.training.settings import required, setting


@dataclass(frozen=True, kw_only=True)
class BestOfNConfig(ModelConfig):
    """Several answers to each prompt, of which the reward model picks one: the free baseline."""

    policy: str = required("The policy that answers: a model folder, or a name on the model hub.")
    reward_model: str = required("The reward model that picks.")
    n: tuple[int, ...] = setting(
        (1, 2, 4, 8, 16), "Numbers of answers to pick the best of; each is a point of the curve."
    )
    test_reward_model: str = setting(
        "", "A second reward model, which scores the picked answers. Empty: none."
    )
    samples: int = setting(
        0,
        "Answers sampled per prompt, from which every n is estimated; 0 is twice the largest n.",
        minimum=0,
        maximum=MOST_SAMPLES,
    )
    temperature: float = setting(1.0, "Sampling temperature.", minimum=0.01, maximum=10.0)
    long_prompts: str = long_prompts_setting()
    max_new_tokens: int = setting(64, "The longest response, in tokens.", minimum=1)
    no_eos_score: float = setting(
        -1.0, "Score of a response that did not end, as in PPO: it is picked last."
    )
    safety_threshold: float = setting(
        0.15,
        "As in PPO: the safety score replaces helpfulness where sigmoid(safety) is below this.",
        minimum=0.0,
        maximum=1.0,
    )
    batch_size: int = setting(256, "Responses decoded in parallel.", minimum=1)
    tokens_per_pass: int = tokens_per_pass_setting()

    def check(self) -> None:
        if not self.n or min(self.n) < 1 or len(set(self.n)) != len(self.n):
            raise ValueError("n must be one or more different whole numbers from 1 up")
        if max(self.n) > MOST_SAMPLES:
            raise ValueError(f"n must not exceed {MOST_SAMPLES}, got {max(self.n):g}")
        if 0 < self.samples < max(self.n):
            raise ValueError(f"samples ({self.samples}) must not be fewer than n ({max(self.n)})")
