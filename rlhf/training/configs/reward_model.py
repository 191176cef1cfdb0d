"""The configuration of the stage `reward_model`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from rlhf.training.configs.shared import (
    MOST_RANK,
    ModelConfig,
    sharded_setting,
    tokens_per_pass_setting,
)
from rlhf.training.settings import above, chosen, either, required, setting, several


@dataclass(frozen=True, kw_only=True)
class RewardModelConfig(ModelConfig):
    """Reward models from rankings: one that PPO optimizes (train/), one that monitors it
    (test/)."""

    trunk: str = required("The model to start from: a folder, or a name on the model hub.")
    axes: tuple[str, ...] = setting(("helpfulness", "safety"), "The axes to score, a head each.")
    test_share: float = setting(
        0.3,
        "Share of the prompts whose rankings train the test-RM; the others train the train-RM. "
        "Each is measured on the other's prompts.",
        minimum=0.05,
        maximum=0.95,
    )
    epochs: int = setting(2, "Epochs over the rankings (Llama 2 and HH: 1).", minimum=1)
    rankings_per_batch: int = setting(16, "Rankings per optimizer step.", minimum=1)
    learning_rate: float = setting(
        5e-4,
        "Peak learning rate of the trunk; decays linearly. About 1e-5 for large models.",
        minimum=0.0,
        maximum=1.0,
    )
    head_learning_rate: float = setting(
        2e-2, "Peak learning rate of the heads, which are new.", minimum=0.0, maximum=1.0
    )
    warmup_steps: int = setting(5, "Warm-up steps of the learning rate.", minimum=0)
    weight_decay: float = setting(0.0, "Weight decay of AdamW.", minimum=0.0)
    max_grad_norm: float = setting(1.0, "Gradients are clipped to this norm.", minimum=0.0)
    loss: str = setting(
        "pairs",
        "pairs: all pairs of a ranking in one batch element, by Bradley & Terry (InstructGPT, "
        "section 3.5). plackett_luce: the whole ranking (Luce 1959, Plackett 1975); a tie stands "
        "for all orders of its responses (Allison & Christakis 1994).",
        choices=("pairs", "plackett_luce"),
    )
    ties: str = setting(
        "davidson",
        "davidson: a tie is an outcome with a learned rate. half: a tie is half a win each.",
        choices=("davidson", "half"),
        requires=chosen("loss", "pairs"),
    )
    margin: float = setting(
        0.0,
        "Score difference demanded per rank, or times the margin of the strength that the "
        "annotator chose (Llama 2, eq. 2). 0: off.",
        minimum=0.0,
        requires=chosen("loss", "pairs"),
    )
    label_smoothing: float = setting(
        0.0,
        "Share of the preferences assumed to be flipped.",
        minimum=0.0,
        maximum=0.49,
        requires=(chosen("loss", "pairs"), chosen("smoothing", "fixed")),
    )
    smoothing: str = setting(
        "fixed",
        "fixed: label_smoothing. agreement: (1 - sqrt(2a - 1)) / 2, where a is how often two "
        "annotators of the training prompts agree and errors are independent.",
        choices=("fixed", "agreement"),
        requires=chosen("loss", "pairs"),
    )
    reliability: bool = setting(
        True, "Learn each annotator's reliability (after CrowdBT, Chen et al. 2013)."
    )
    centering: float = setting(
        0.01,
        "Weight of the squared mean score, which keeps scores near 0 (TRL: 0.01).",
        minimum=0.0,
    )
    prior: bool = setting(
        True,
        "Also give the heads the untrained trunk's log-likelihood of the response. Requires a "
        "trunk that can answer (a decoder, a T5); without it small models miss wrong names.",
    )
    max_length: int = setting(512, "The longest conversation with response, in tokens.", minimum=8)
    members: int = setting(
        1,
        "Members of an ensemble, whose disagreement measures the uncertainty of a score.",
        minimum=1,
        maximum=32,
    )
    ensemble: str = setting(
        "heads",
        "heads: heads on one trunk, each with a resample of the rankings. adapters: each also has "
        "LoRA adapters, on a frozen trunk; models: whole models with different seeds, at a multiple "
        "of the cost (Coste et al. 2023).",
        choices=("heads", "adapters", "models"),
        requires=either(above("members", 1), chosen("ensemble", "adapters")),
    )
    adapter_rank: int = setting(
        8,
        "Rank of each member's LoRA adapters.",
        minimum=1,
        requires=chosen("ensemble", "adapters"),
        maximum=MOST_RANK,
    )
    separate_axes: bool = setting(
        False,
        "A model for each axis (Llama 2) instead of one trunk with a head per axis.",
        requires=several("axes"),
    )
    share_prompts: bool = setting(
        True,
        "Read a prompt once for all its responses, where the trunk allows it. InstructGPT "
        "(section 3.5) reads each response once; an encoder reads each with its prompt.",
    )
    batch_size: int = setting(128, "Texts scored in parallel.", minimum=1)
    tokens_per_pass: int = tokens_per_pass_setting()
    checkpoint_seconds: float = setting(30.0, "Seconds between two checkpoints.", minimum=0.0)
    sharded: bool = sharded_setting()

    OLD_KEYS: ClassVar[Mapping[str, str]] = {"centring": "centering"}

    def check(self) -> None:
        if not self.axes or len(set(self.axes)) != len(self.axes):
            raise ValueError("axes must name at least one axis, and none twice")
        if self.sharded and self.ensemble == "adapters":
            raise ValueError(
                "sharded splits a trained trunk, and the trunk is frozen with ensemble = adapters; "
                "leave one of them out"
            )
