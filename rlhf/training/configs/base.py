"""The configuration of the stage `base`."""

from dataclasses import dataclass

from rlhf.training.configs.shared import (
    MOST_BASE_STEPS,
    MOST_POSITIONS,
    MOST_SAMPLES,
    SeededConfig,
)
from rlhf.training.settings import setting


@dataclass(frozen=True, kw_only=True)
class BaseConfig(SeededConfig):
    """Build the base policy: a tiny Llama, trained from scratch on `data/corpus.jsonl`."""

    layers: int = setting(4, "Transformer layers.", minimum=1, maximum=64)
    hidden_size: int = setting(128, "Width of the residual stream.", minimum=8, maximum=8192)
    intermediate_size: int = setting(384, "Width of the MLP.", minimum=8, maximum=65536)
    heads: int = setting(
        4, "Attention heads; must divide the hidden size.", minimum=1, maximum=8192
    )
    max_positions: int = setting(
        512,
        "Context length: the longest prompt plus response, in tokens.",
        minimum=16,
        maximum=MOST_POSITIONS,
    )
    clean_steps: int = setting(
        650,
        "Optimizer steps on the clean phase, in which the model learns to copy names.",
        minimum=0,
        maximum=MOST_BASE_STEPS,
    )
    mix_steps: int = setting(
        500,
        "Optimizer steps on the mix of styles that people rank.",
        minimum=0,
        maximum=MOST_BASE_STEPS,
    )
    batch_size: int = setting(32, "Examples per optimizer step.", minimum=1, maximum=MOST_SAMPLES)
    learning_rate: float = setting(
        3e-3,
        "Peak learning rate of AdamW (embeddings and norms); decays linearly.",
        minimum=0.0,
        maximum=1.0,
    )
    muon_learning_rate: float = setting(
        0.02,
        "Peak learning rate of Muon (matrices); decays linearly.",
        minimum=0.0,
        maximum=1.0,
    )
    warmup_steps: int = setting(20, "Warm-up steps of the learning rate.", minimum=0)
    weight_decay: float = setting(0.01, "Weight decay of AdamW.", minimum=0.0)
    max_grad_norm: float = setting(1.0, "Gradients are clipped to this norm.", minimum=0.0)
    checkpoint_seconds: float = setting(20.0, "Seconds between two checkpoints.", minimum=0.0)
    threads: int = setting(
        2, "CPU threads. The same seed and threads give the same bytes.", minimum=1, maximum=256
    )

    def check(self) -> None:
        if self.hidden_size % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide hidden_size ({self.hidden_size})")
        if self.clean_steps + self.mix_steps < 1:
            raise ValueError("clean_steps and mix_steps must not both be 0")
