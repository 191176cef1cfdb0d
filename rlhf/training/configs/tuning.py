"""The configurations of the stages `sft` and `dpo`, which use TRL's trainers."""

from dataclasses import dataclass

from rlhf.training.configs.shared import (
    ModelConfig,
    check_microbatch,
    long_prompts_setting,
    tokens_per_pass_setting,
)
from rlhf.training.settings import required, setting


@dataclass(frozen=True, kw_only=True)
class SFTConfig(ModelConfig):
    """Supervised fine-tuning on demonstrations and rewrites, by TRL's SFTTrainer."""

    policy: str = required("The policy to train: a model folder, or a name on the model hub.")
    epochs: int = setting(1, "Epochs over the demonstrations.", minimum=1)
    batch_size: int = setting(16, "Demonstrations per optimizer step.", minimum=1)
    microbatch_size: int = setting(16, "Demonstrations per forward pass, at most.", minimum=1)
    tokens_per_pass: int = tokens_per_pass_setting()
    learning_rate: float = setting(
        2e-5,
        "Peak learning rate: 1e-5 to 2e-5 for a full model (Llama 2).",
        minimum=0.0,
        maximum=1.0,
    )
    warmup_share: float = setting(
        0.03, "Share of the steps that warm up the learning rate.", minimum=0.0, maximum=1.0
    )
    weight_decay: float = setting(0.0, "Weight decay of AdamW.", minimum=0.0)
    max_grad_norm: float = setting(1.0, "Gradients are clipped to this norm.", minimum=0.0)
    heldout_share: float = setting(
        0.1, "Share of the prompts that is held out to measure the loss.", minimum=0.0, maximum=0.5
    )
    long_prompts: str = long_prompts_setting()

    def check(self) -> None:
        check_microbatch(self.batch_size, self.microbatch_size)


@dataclass(frozen=True, kw_only=True)
class DPOConfig(ModelConfig):
    """Direct preference optimization (Rafailov et al. 2023), by TRL's DPOTrainer: the baseline."""

    policy: str = required("The policy to train; a frozen copy is the reference.")
    axis: str = setting("helpfulness", "The axis whose preferences are learned.")
    beta: float = setting(
        0.1, "DPO's beta: larger values keep the policy closer to its start.", minimum=1e-6
    )
    label_smoothing: float = setting(
        0.0,
        "Share of the preferences assumed to be flipped (conservative DPO).",
        minimum=0.0,
        maximum=0.499,
    )
    epochs: int = setting(1, "Epochs over the pairs.", minimum=1)
    batch_size: int = setting(32, "Pairs per optimizer step.", minimum=1)
    microbatch_size: int = setting(16, "Pairs per forward pass, at most.", minimum=1)
    tokens_per_pass: int = tokens_per_pass_setting()
    learning_rate: float = setting(
        5e-7, "Peak learning rate: 5e-7 to 1e-6 for a full model.", minimum=0.0, maximum=1.0
    )
    warmup_share: float = setting(
        0.1, "Share of the steps that warm up the learning rate.", minimum=0.0, maximum=1.0
    )
    max_grad_norm: float = setting(1.0, "Gradients are clipped to this norm.", minimum=0.0)
    heldout_share: float = setting(
        0.1, "Share of the prompts that is held out to measure accuracy.", minimum=0.0, maximum=0.5
    )
    long_prompts: str = long_prompts_setting()

    def check(self) -> None:
        check_microbatch(self.batch_size, self.microbatch_size)
