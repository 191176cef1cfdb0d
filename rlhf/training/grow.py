"""A larger policy from a smaller trained one: `python -m rlhf.training.grow RUN_DIR`.

The grown model computes the same logits as the trained one, and training continues from there (Chen
et al. 2016, "Net2Net"; for transformers Chen et al. 2022, "bert2BERT").

Width. Every unit of the residual stream becomes `width` equal units, side by side, and so does every
attention head. A matrix that writes to the stream writes the same to all copies. A matrix that reads
the stream reads each copy with a share of its weights. All units are copied equally often, so the
mean square of the stream, by which RMSNorm divides, does not change; with uneven copies, as Net2Net
draws them, it would. Tied embeddings read the stream with the same numbers that write it, so the
gain of the last norm, which only they read, takes the share instead.

Copies of a unit that are read by equal weights would get equal gradients and stay equal. `noise`
makes the shares differ. It sums to 0 over the copies, so the function is the same.

Depth. A new layer is a copy of the layer before it whose two outputs to the stream are 0 (Wu et al.
2024, "LLaMA Pro"): it adds nothing until it is trained, and its first gradient is not 0.
"""

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlhf.training.configs import GrowConfig
from rlhf.training.language_models import devices
from rlhf.training.language_models.policy import load_policy
from rlhf.training.rundir import CONFIG, POLICY
from rlhf.training.rundir.errors import InputError
from rlhf.training.rundir.files import replace_folder
from rlhf.training.rundir.process import StopRequest, run_stage
from rlhf.training.rundir.reports import write_result
from rlhf.training.settings import load

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""Decoders with RMSNorm, rotary positions and a gated MLP whose weights have these names."""

LAYERS = "model.layers."
"""The prefix of the names of the layers' weights."""

TOLERANCE = 1e-3
"""The largest difference of two logits that is attributed to float32's rounding."""


def main(run_dir: Path, stop: StopRequest) -> None:
    began = time.monotonic()
    config = load(GrowConfig, run_dir / CONFIG)
    devices.be_deterministic(config.seed, config.threads)
    policy = load_policy(config.policy, "policy", device=torch.device("cpu"))
    small = policy.model
    large = grow(
        small,
        width=config.width,
        intermediate=config.intermediate,
        layers=config.layers,
        noise=config.noise,
        generator=torch.Generator().manual_seed(config.seed),
    )

    # That the logits are the same is checked on every run, not only in a test.
    generator = torch.Generator().manual_seed(config.seed)
    length = min(64, policy.context)
    ids = torch.randint(small.config.vocab_size, (2, length), generator=generator)
    with torch.inference_mode():
        difference = float((small(input_ids=ids).logits - large(input_ids=ids).logits).abs().max())
    if not difference <= TOLERANCE:
        raise RuntimeError(f"the grown model's logits differ by {difference}")

    def write(new: Path) -> None:
        large.save_pretrained(new)
        policy.tokenizer.save_pretrained(new)

    replace_folder(run_dir / POLICY, write)
    write_result(
        run_dir,
        {
            "n_parameters_before": sum(p.numel() for p in small.parameters()),
            "n_parameters": sum(p.numel() for p in large.parameters()),
            "layers": large.config.num_hidden_layers,
            "hidden_size": large.config.hidden_size,
            "max_difference": difference,
            "seconds": time.monotonic() - began,
        },
    )


def grow(
    model: Any,
    *,
    width: int = 1,
    intermediate: int = 1,
    layers: int = 0,
    noise: float = 0.0,
    generator: torch.Generator | None = None,
) -> Any:
    """A larger model with the logits of `model`; the settings are those of `GrowConfig`.

    `InputError` for a family that is not one of `FAMILIES`, or fewer layers than there are.
    """
    old = model.config
    if old.model_type not in FAMILIES:
        raise InputError(
            f"A {old.model_type!r} model can't be grown; {', '.join(FAMILIES)} models can."
        )
    layers = layers or old.num_hidden_layers
    if layers < old.num_hidden_layers:
        raise InputError(
            f"layers is {layers}, but the policy has {old.num_hidden_layers} already; give more, "
            "or 0 to keep them."
        )
    generator = generator or torch.Generator().manual_seed(0)

    origins = sources(old.num_hidden_layers, layers)
    config = _larger_config(old, origins, width=width, intermediate=intermediate)
    large = type(model)(config).to(model.dtype)
    weights = model.state_dict()
    grown = _outer_weights(weights, old, width, noise, generator)
    for number, (origin, is_new) in enumerate(origins):
        prefix = f"{LAYERS}{origin}."
        for name, weight in weights.items():
            if not name.startswith(prefix):
                continue
            part = name.removeprefix(prefix)
            bigger = _layer_part(part, weight, width, intermediate, noise, generator)
            if is_new and part.startswith(("self_attn.o_proj", "mlp.down_proj")):
                bigger = torch.zeros_like(bigger)
            grown[f"{LAYERS}{number}.{part}"] = bigger
    large.load_state_dict(grown, strict=True)
    large.tie_weights()
    large.generation_config = model.generation_config
    return large.eval()


def _larger_config(
    old: Any, origins: list[tuple[int, bool]], *, width: int, intermediate: int
) -> Any:
    """The grown model's configuration. The size of a head stays, and with it the rotary positions."""
    changes: dict[str, Any] = {
        "hidden_size": width * old.hidden_size,
        "num_attention_heads": width * old.num_attention_heads,
        "num_key_value_heads": width * old.num_key_value_heads,
        "intermediate_size": width * intermediate * old.intermediate_size,
        "num_hidden_layers": len(origins),
    }
    if getattr(old, "head_dim", None):
        changes["head_dim"] = old.head_dim
    if getattr(old, "layer_types", None):
        changes["layer_types"] = [old.layer_types[origin] for origin, _ in origins]
    return type(old).from_dict(old.to_dict() | changes)


def _outer_weights(
    weights: dict[str, Tensor], old: Any, width: int, noise: float, generator: torch.Generator
) -> dict[str, Tensor]:
    """The grown embeddings, last norm and output head: all that is outside the layers."""
    tied = bool(old.tie_word_embeddings)
    grown: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if name.startswith(LAYERS):
            continue
        if name.endswith("embed_tokens.weight"):
            grown[name] = weight.repeat(1, width)
        elif name == "model.norm.weight" and tied:
            grown[name] = _shares(weight[None], width, noise, generator)[0]
        elif name == "model.norm.weight":
            grown[name] = weight.repeat(width)
        elif name == "lm_head.weight" and tied:
            grown[name] = weights["model.embed_tokens.weight"].repeat(1, width)
        elif name == "lm_head.weight":
            grown[name] = _shares(weight, width, noise, generator)
        else:
            raise InputError(f"The policy holds {name}, which is no part of a {old.model_type}.")
    return grown


def sources(before: int, after: int) -> list[tuple[int, bool]]:
    """For each layer of the grown model: the layer that it is made from, and whether it is new.

    New layers are spread evenly, each after the layer that it copies.
    """
    extra = after - before
    layers = []
    for i in range(before):
        copies = extra * (i + 1) // before - extra * i // before
        layers += [(i, False), *[(i, True)] * copies]
    return layers


def _layer_part(
    part: str,
    weight: Tensor,
    width: int,
    intermediate: int,
    noise: float,
    generator: torch.Generator,
) -> Tensor:
    """One tensor of a layer, grown. Matrices are (out, in)."""
    module = part.split(".")[-2]
    if module in ("input_layernorm", "post_attention_layernorm"):
        return weight.repeat(width)
    if module in ("q_norm", "k_norm"):  # per head, whose size stays
        return weight.clone()
    reads, writes = {
        "q_proj": (width, width),
        "k_proj": (width, width),
        "v_proj": (width, width),
        "o_proj": (width, width),
        "gate_proj": (width, width * intermediate),
        "up_proj": (width, width * intermediate),
        "down_proj": (width * intermediate, width),
    }[module]
    if part.endswith("bias"):
        return weight.repeat(writes)
    return _shares(weight.repeat(writes, 1), reads, noise, generator)


def _shares(weight: Tensor, copies: int, noise: float, generator: torch.Generator) -> Tensor:
    """(out, in) for `copies` equal inputs side by side: (out, copies * in), whose parts add up to
    the weight. Noise is a share of the weight's deviation, and adds up to 0 over the copies."""
    parts = (weight / copies)[:, None].repeat(1, copies, 1)  # (out, copies, in)
    if noise and copies > 1:
        drawn = torch.randn(parts.shape, generator=generator, dtype=torch.float32)
        drawn = (drawn - drawn.mean(dim=1, keepdim=True)) * noise * float(weight.std()) / copies
        parts = parts + drawn.to(parts.dtype)
    return parts.reshape(len(weight), -1)


if __name__ == "__main__":
    run_stage(main)
