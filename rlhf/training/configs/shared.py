"""Settings that several stages have, and the limits that several settings have."""

from dataclasses import dataclass

from rlhf.training.settings import MOST_SEED, StageConfig, setting

# Larger values are mistakes, and would end in lack of memory instead of in a sentence.
MOST_LAYERS = 1024
MOST_RANK = 8192
MOST_SAMPLES = 100_000
MOST_POSITIONS = 2**24
MOST_BASE_STEPS = 1_000_000


def device_setting() -> str:
    """The field `device`."""
    return setting("auto", "Where to compute: auto takes a GPU if there is one.")


def long_prompts_setting() -> str:
    """The field `long_prompts`."""
    return setting(
        "refuse",
        "A prompt that leaves no room for its response in the model's context. refuse: the stage "
        "stops and names it; leave_out: the stage goes on without it.",
        choices=("refuse", "leave_out"),
    )


def top_k_setting() -> int:
    """The field `top_k`."""
    return setting(
        0,
        "Sample from this many most probable tokens only. 0: from all.",
        minimum=0,
        maximum=MOST_POSITIONS,
    )


def top_p_setting() -> float:
    """The field `top_p`."""
    return setting(
        1.0,
        "Sample from the most probable tokens that together have this probability (Holtzman et al. "
        "2020), at low cost to variety from 0.9 to 0.95. 1: from all.",
        minimum=0.01,
        maximum=1.0,
    )


def min_p_setting() -> float:
    """The field `min_p`."""
    return setting(
        0.0,
        "Sample from tokens that are at least this many times as probable as the most probable one "
        "(Nguyen et al. 2025: 0.05 to 0.1). 0: from all.",
        minimum=0.0,
        maximum=1.0,
    )


def sharded_setting() -> bool:
    """The field `sharded`."""
    return setting(
        False,
        "Each process of torchrun holds a shard of every trained weight (FSDP2) instead of all. "
        "Changes no result.",
    )


def tokens_per_pass_setting() -> int:
    """The field `tokens_per_pass`."""
    return setting(
        0,
        "Tokens per forward pass, padding included: bounds the memory and changes no result. 0: as "
        "many as 1 GiB of activations hold on a CPU, a quarter of the memory on a GPU.",
        minimum=0,
    )


def check_microbatch(batch_size: int, microbatch_size: int) -> None:
    """ValueError where a batch can't be cut into equal microbatches."""
    if batch_size % microbatch_size and batch_size > microbatch_size:
        raise ValueError(
            f"batch_size ({batch_size}) must be a multiple of microbatch_size ({microbatch_size})"
        )


@dataclass(frozen=True, kw_only=True)
class SeededConfig(StageConfig):
    """What every stage with random draws has."""

    seed: int = setting(0, "Random seed.", minimum=0, maximum=MOST_SEED)
    threads: int = setting(
        0,
        "CPU threads; 0 leaves it to torch. The same seed and threads give the same bytes.",
        minimum=0,
        maximum=256,
    )


@dataclass(frozen=True, kw_only=True)
class ModelConfig(SeededConfig):
    """What every stage has that runs or trains a model of any size."""

    device: str = device_setting()
    dtype: str = setting(
        "auto",
        "Precision: auto is float32 on a CPU and bfloat16 on a GPU. Trained weights stay in float32.",
        choices=("auto", "float32", "bfloat16"),
    )
