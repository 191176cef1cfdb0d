"""Estimates of the memory and time that a run would take."""

import time
from pathlib import Path
from typing import Any

from rlhf.training import machine
from rlhf.training.configs import PPOConfig
from rlhf.training.doctor.report import Report

FULL_TRAINING_BYTES = 16
"""Per parameter in float32: itself, its gradient, AdamW's two moments (4 bytes each)."""


def available_memory(device_type: str) -> float:
    """Free bytes: of the GPU, or of the machine within the limit of its control group."""
    if device_type == "cuda":
        import torch

        return float(torch.cuda.mem_get_info()[0])
    return float(machine.free_ram())


def too_large(report: Report, free: float, config: PPOConfig) -> bool:
    """Whether the models' files alone exceed the free memory; then no model is loaded."""
    folders = {config.policy, config.reference, config.reward_model, config.test_reward_model}
    files = [f for name in folders if name for f in Path(name).rglob("*.safetensors")]
    needed = float(sum(f.stat().st_size for f in files))
    if needed > free:
        compare_memory(report, free, needed, {"models' files": needed})
    return needed > free


def ppo_memory(models: Any, longest: int, *, watched: bool) -> dict[str, float]:
    """Bytes that a PPO run needs, by part: a rough upper estimate.

    Full training needs weights, gradients and two moments in float32; frozen models keep their
    dtype. Activations are those of one forward pass (`microbatches`).
    """
    from rlhf.training import architecture, microbatches

    config, policy = models.config, models.policy
    shape = architecture.unwrap_model(policy.model).config
    width = 2 if models.is_bfloat16 else 4
    hidden = policy.hidden_size
    layers = getattr(shape, "num_hidden_layers", 1)
    if policy.encoder_decoder:
        layers += getattr(shape, "num_decoder_layers", None) or layers
    trained = [p for _, p in models.trained()]
    trainable = sum(p.numel() for p in trained)
    own = sum(p.numel() * p.element_size() for p in trained)
    critic = sum(p.numel() for p in models.critic.parameters())
    parts = {
        "policy": _bytes(policy.model) - own + trainable * FULL_TRAINING_BYTES,
        "reference": 4 * sum(w.numel() for w in models.moving_reference.values())
        if models.reference_is_policy
        else _bytes(models.reference.model),
        "critic": critic * FULL_TRAINING_BYTES,
    }
    for name, scorer in zip(
        ("reward_model", "test_reward_model"), models.reward.scorers, strict=False
    ):
        parts[name] = _bytes(*_modules_of(scorer))
    if models.device.type == "cpu":  # full copies: the best weights, and their moving average
        best = watched and models.reward.test_scorer is not None and config.tripwire.evaluations > 0
        parts["copies"] = 4 * trainable * (best + (config.ema.decay > 0))
    size = longest + config.rollout.max_new_tokens
    tokens = min(config.optimizer.microbatch_size * size, max(size, models.tokens_per_pass))
    parts["activations"] = tokens * microbatches.bytes_per_token(policy.model, trains=True)
    heads = getattr(shape, "num_key_value_heads", getattr(shape, "num_attention_heads", 1))
    per_head = getattr(shape, "head_dim", None) or hidden // max(shape.num_attention_heads, 1)
    rows = min(config.rollout.decode_batch_size, config.responses_per_step)
    reach = longest + config.rollout.max_new_tokens
    parts["cache"] = 2 * layers * rows * reach * heads * per_head * width
    return {name: float(value) for name, value in parts.items()}


def tuning_memory(policy: Any, *, reference: bool) -> dict[str, float]:
    """Bytes of fully training a policy on texts, and of a frozen copy as `reference` (DPO)."""
    size = sum(p.numel() for p in policy.model.parameters())
    return {"policy": size * (FULL_TRAINING_BYTES + (4 if reference else 0))}


def reward_memory(
    model: Any, sides: dict[str, list[Any]], models: int, config: Any
) -> dict[str, float]:
    """Bytes that the reward models need, by part. `models` are trained for each of the two `sides`,
    one after another, and those of one side stay until they are measured."""
    from rlhf.training import microbatches

    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    kept = _bytes(model.trunk, model.heads)
    parts = {
        "trunk": float(kept + trained * (FULL_TRAINING_BYTES - 4)),
        "other models": float(kept * (models - 1)),
    }
    if model.prior is not None:
        parts["prior"] = float(_bytes(model.prior))
    longest = max(len(t.prompt) + len(t.response) for t in _texts(sides))
    rows = config.rankings_per_batch * max(len(g.texts) for g in sides["train"])
    tokens = min(rows * longest, max(longest, model.most_tokens(trains=True)))
    per_token = microbatches.bytes_per_token(model.trunk, trains=True)
    parts["activations"] = float(tokens * per_token * (len(model.adapters) or 1))
    return parts


def compare_memory(report: Report, free: float, needed: float, parts: dict[str, float]) -> None:
    """`free` is what was free before anything was loaded."""
    report.figures["memory"] = {"needed": needed, "available": free, "parts": parts}
    largest = max(parts, key=parts.__getitem__)
    summary = (
        f"About {_size(needed)} needed (most for the {largest}: {_size(parts[largest])}), "
        f"{_size(free)} free."
    )
    if needed > free:
        report.add("error", "memory", summary + " Take LoRA, smaller batches, or a bigger machine.")
    else:
        report.add("warning" if needed > 0.8 * free else "ok", "memory", summary)


def estimate_ppo_time(report: Report, models: Any, prompts: list[Any], scoring: float) -> None:
    """Time one forward and backward pass, and add up a run from it, the probe's sampling and its
    seconds of `scoring` for each answer."""
    import torch

    config, policy = models.config, models.policy
    rows = min(config.optimizer.microbatch_size, 16)
    chosen = [prompts[i % len(prompts)] for i in range(rows)]
    _, encoded = policy.encode_fitting(
        chosen, room=config.rollout.max_new_tokens, long_prompts="refuse"
    )
    length = max(
        1, round(report.figures.get("mean_response_tokens", config.rollout.max_new_tokens))
    )
    answers = [[policy.pad_id] * length] * rows
    for _ in range(2):  # the first warms up
        began = time.monotonic()
        with models.autocast():
            _, hidden = policy.read(encoded, answers)
            loss = policy.logits(hidden).float().mean()
        forward = time.monotonic() - began
        loss.backward()
        if policy.device.type == "cuda":
            torch.cuda.synchronize()
        both = time.monotonic() - began
        policy.model.zero_grad(set_to_none=True)
    responses = config.responses_per_step
    generate = responses * length / max(report.figures.get("tokens_per_second", 1e9), 1e-9)
    passes = responses / rows
    step = generate + responses * scoring + passes * (2 * forward + both * config.optimizer.epochs)
    report.figures["seconds"] = {"step": step, "run": step * config.steps, "generate": generate}
    report.add(
        "ok",
        "time",
        f"Roughly {_duration(step)} a step, {_duration(step * config.steps)} for {config.steps} "
        f"steps ({generate / step:.0%} of it sampling), as busy as the machine is now.",
    )


def estimate_reward_time(
    report: Report,
    model: Any,
    sides: dict[str, list[Any]],
    models: int,
    config: Any,
    updates: int,
) -> None:
    """Time one update of a reward model, and add up all `updates` of all models and their measuring."""
    import torch

    from rlhf.training import reward_data
    from rlhf.training.reward_models.texts import by_length

    batch = sides["train"][: config.rankings_per_batch]
    texts = [t for g in batch for t in g.texts]
    rows = by_length(texts, len(texts), model.most_tokens(trains=True))[0]
    began = time.monotonic()
    reward_data.add_prior_features(model, batch, config.batch_size)
    reading = (time.monotonic() - began) / len(texts)
    priors = [g.features for g in batch if g.features is not None]
    for _ in range(2):  # the first warms up
        began = time.monotonic()
        features = torch.cat(priors)[rows] if priors else None
        scores = model.raw_scores([texts[i] for i in rows], features)
        forward = time.monotonic() - began
        scores.square().mean().backward()
        if model.device.type == "cuda":
            torch.cuda.synchronize()
        update = (time.monotonic() - began) * len(texts) / len(rows)
    # For each model the prior reads every text once, and the other side's model scores it at the end.
    measuring = len(_texts(sides)) * models * (2 * reading + forward / len(rows))
    whole = update * updates + measuring
    report.figures["seconds"] = {"update": update, "run": whole}
    report.add(
        "ok",
        "time",
        f"Roughly {_duration(update)} per update, {_duration(whole)} in total, at the machine's "
        "current load.",
    )


def _texts(sides: dict[str, list[Any]]) -> list[Any]:
    return [t for groups in sides.values() for g in groups for t in g.texts]


def _bytes(*modules: Any) -> int:
    """The memory of the modules' weights in bytes; shared weights count once."""
    weights = {id(p): p for module in modules for p in module.parameters()}
    return sum(p.numel() * p.element_size() for p in weights.values())


def _modules_of(scorer: Any) -> list[Any]:
    """All modules of a reward model and of its `others`."""
    own = [scorer.trunk, scorer.heads] + ([scorer.prior] if scorer.prior is not None else [])
    return own + [module for other in scorer.others for module in _modules_of(other)]


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"


def _duration(seconds: float) -> str:
    for unit, span in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * span:
            return f"{seconds / span:.2g} {unit}"
    return f"{seconds:.2g} s"
