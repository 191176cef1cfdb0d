"""The memory that each stage needs at its peak, and the disk space that a round needs; in bytes.

Weights, gradients and AdamW's moments are counted; activations are as `calibrate` measured them per
token, or by arithmetic: about 16 values per token, layer and hidden unit (Korthikanti et al. 2022: 34
bytes in 16-bit precision), and four per token and entry of the vocabulary where there is an output
head.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlhf.forecast.work import Counts, Lengths
from rlhf.training.model_files import ModelShape

FULL_TRAINING = 16
"""Bytes of a trained parameter: itself, its gradient, AdamW's two moments; all in float32."""

PROCESS = 0.7 * 2**30
"""RAM of a process that has imported torch, or a GPU's context."""

PASS_ON_CPU, PASS_ON_GPU = 2.0**30, 4.0 * 2**30
"""Bytes of the activations of a forward pass where `tokens_per_pass` is automatic. On a GPU they are a
quarter of its memory; this is the quarter of a small one."""

DRAW = 28
"""Bytes of a row and entry of the vocabulary while a token is drawn: logits, log-softmax,
probabilities, and their sum in float64."""

LORA_SHARE = 0.04
"""Trained parameters of LoRA adapters of rank 16 on all linear layers, as a share of the model's
(3.6 % of 135 million; less in larger models)."""


@dataclass(frozen=True)
class Need:
    """A stage's memory at its peak: bytes by part, and what to change if they are too many."""

    stage: str
    parts: Mapping[str, float]
    remedy: str

    @property
    def total(self) -> float:
        """Bytes of all parts."""
        return sum(self.parts.values())

    @property
    def largest(self) -> str:
        """The part that needs most."""
        return max(self.parts, key=self.parts.__getitem__)


@dataclass(frozen=True)
class Footprint:
    """Bytes per unit on one device: those of the weights' precision, and of activations by token."""

    shape: ModelShape
    width: int
    """Bytes of a frozen weight: 4 in float32, 2 in bfloat16."""
    lora_token: float
    full_token: float
    reward_token: float
    prompt: float
    """Tokens of a long prompt."""
    process: float = PROCESS

    @property
    def weights(self) -> float:
        """Bytes of the model as it is loaded to be read."""
        return float(self.width * self.shape.n_parameters)

    def one_pass(self, tokens: float, text: float, per_token: float, limit: int) -> float:
        """Bytes of activations of a forward pass that would have so many tokens, with at least one
        `text`, under `tokens_per_pass` (0: as many as fit, see `rlhf/training/microbatches.py`)."""
        if limit:
            return min(tokens, max(limit, text)) * per_token
        fitting = PASS_ON_GPU if self.width == 2 else PASS_ON_CPU
        return min(tokens * per_token, max(fitting, text * per_token))

    def cache(self, rows: float, tokens: float) -> float:
        """Keys and values of so many rows."""
        return rows * tokens * self.shape.layers * self.shape.cache_width * self.width


def footprint(
    shape: ModelShape, *, is_half: bool, measured: Mapping[str, Any] | None = None
) -> Footprint:
    """Bytes per unit, measured by `calibrate` (its `result.json`) where it has them."""
    width = 2 if is_half else 4
    costs: Mapping[str, Mapping[str, float]] = (measured or {}).get("costs", {})
    sampled: Mapping[str, float] = (measured or {}).get("sampled", {})
    inner = 16.0 * width * shape.layers * shape.hidden
    head = 16.0 * shape.vocabulary / 2  # about half of the tokens are responses'

    def bytes_of(name: str, default: float) -> float:
        value = costs.get(name, {}).get("peak_bytes", 0)
        return float(value) if value else default

    return Footprint(
        shape=shape,
        width=width,
        lora_token=bytes_of("lora_token", inner + head),
        full_token=bytes_of("full_token", bytes_of("lora_token", inner + head)),
        reward_token=bytes_of("reward_token", inner),
        prompt=float(sampled.get("longest_prompt", 256)),
        process=max(PROCESS, float((measured or {}).get("process_bytes", 0))),
    )


def stage_needs(
    config: Mapping[str, Any], counts: Counts, lengths: Lengths, unit: Footprint
) -> list[Need]:
    """The memory of each stage of a round, under its configuration (`FrozenConfig.sections`)."""
    return [
        _generate(config, counts, unit),
        _reward_model(config, counts, lengths, unit),
        _ppo(config, counts, unit),
        _evaluate(config, counts, unit),
    ]


def _decoding(rows: int, budget: int, unit: Footprint) -> dict[str, float]:
    return {
        "key-value cache": unit.cache(rows, unit.prompt + budget),
        "probabilities of the next token": rows * unit.shape.vocabulary * float(DRAW),
    }


def _generate(config: Mapping[str, Any], counts: Counts, unit: Footprint) -> Need:
    own = config["generate"]
    rows = min(own.batch_size, counts.ranking * (own.k + own.oversample))
    parts = {"process": unit.process, "policy": unit.weights}
    return Need(
        "generate", parts | _decoding(rows, own.max_new_tokens, unit), "Lower generate.batch_size."
    )


def reward_model_bytes(config: Mapping[str, Any], unit: Footprint, *, axes: int = 1) -> float:
    """A finished reward model that only scores, with the prior that it shares with others left out."""
    own = config["reward_model"]
    models = (own.members if own.ensemble == "models" else 1) * (axes if own.separate_axes else 1)
    return unit.weights * models


def _reward_model(
    config: Mapping[str, Any], counts: Counts, lengths: Lengths, unit: Footprint
) -> Need:
    own, generate = config["reward_model"], config["generate"]
    size = unit.shape.n_parameters
    trained = FULL_TRAINING * size
    if own.ensemble == "adapters":
        trained = unit.weights + FULL_TRAINING * LORA_SHARE * size * own.members
    prompt = min(unit.prompt, own.max_length)
    text = min(unit.prompt + generate.max_new_tokens, own.max_length)
    group = generate.k * text
    if lengths.shares_prompts and own.share_prompts:
        group = min(group, prompt + generate.k * generate.max_new_tokens)
    tokens = min(own.rankings_per_batch, max(counts.comparisons, 1)) * group
    remedy = "Lower reward_model.tokens_per_pass, or set ensemble to adapters."
    parts = {
        "process": unit.process,
        "trained reward model": trained,
        "prior": unit.weights * own.prior,
        "activations": unit.one_pass(tokens, text, unit.reward_token, own.tokens_per_pass),
    }
    return Need("reward_model", parts, remedy)


def _ppo(config: Mapping[str, Any], counts: Counts, unit: Footprint) -> Need:
    own = config["ppo"]
    size, rollout = unit.shape.n_parameters, own.rollout
    text = unit.prompt + rollout.max_new_tokens
    tokens = own.optimizer.microbatch_size * text
    responses = rollout.prompts_per_step * rollout.samples_per_prompt
    tokens = min(tokens, responses * text)
    token = unit.lora_token if own.lora.rank else unit.full_token
    judges = 1 + bool(counts.watch)
    prior = unit.weights * config["reward_model"].prior
    if own.lora.rank:
        policy = unit.weights + FULL_TRAINING * LORA_SHARE * own.lora.rank / 16 * size
        reference = 0.0 if config["round"].kl_reference == "previous" else unit.weights
        copies = 0.0
    else:
        policy, reference = float(FULL_TRAINING * size), unit.weights
        copies = 4.0 * size * (bool(counts.watch) + bool(own.ema.decay))
    rows = min(rollout.decode_batch_size, responses)
    parts = {
        "process": unit.process,
        "policy with gradients and optimizer": policy,
        "reference": reference,
        "copies of the weights": copies,
        "critic": FULL_TRAINING * size * float(own.critic.kind == "model"),
        "reward models": judges * (reward_model_bytes(config, unit) + prior),
        # Decoding and training take turns.
        "activations and cache": max(
            unit.one_pass(tokens, text, token, own.optimizer.tokens_per_pass),
            sum(_decoding(rows, rollout.max_new_tokens, unit).values()),
        ),
    }
    full = "" if own.lora.rank else "Set ppo.lora.rank to 16, or lower"
    return Need(
        "ppo",
        parts,
        f"{full or 'Lower'} ppo.optimizer.microbatch_size or rollout.decode_batch_size.",
    )


def _evaluate(config: Mapping[str, Any], counts: Counts, unit: Footprint) -> Need:
    own = config["evaluate"]
    rows = min(own.batch_size, counts.heldout * own.samples_per_prompt)
    prior = unit.weights * config["reward_model"].prior
    parts = {
        "process": unit.process,
        "policy": unit.weights,
        "reward model": reward_model_bytes(config, unit) + prior,
    }
    return Need(
        "evaluate", parts | _decoding(rows, own.max_new_tokens, unit), "Lower evaluate.batch_size."
    )


def disk_parts(config: Mapping[str, Any], shape: ModelShape, *, is_half: bool) -> dict[str, float]:
    """Bytes that a round writes, by part: what it keeps, and the largest checkpoints on the way (the
    old one stays until the new one is complete)."""
    size, reward, ppo = shape.n_parameters, config["reward_model"], config["ppo"]
    width = 2 if is_half else 4
    models = reward.members if reward.ensemble == "models" else 1
    trained = LORA_SHARE * ppo.lora.rank / 16 * size if ppo.lora.rank else float(size)
    best = trained * (1 + bool(ppo.ema.decay) + bool(ppo.tripwire.evaluations))
    critic = size * float(ppo.critic.kind == "model")
    return {
        "policy": 4.0 * size * (1 + (bool(ppo.ema.decay) and ppo.ema.export == "beside")),
        "reward models": 2.0 * (4 * size * models + width * size * reward.prior),
        "checkpoints": 2.0
        * max(
            12 * (trained + critic) + 4 * best,
            (16.0 if reward.ensemble != "adapters" else 12 * LORA_SHARE * reward.members) * size,
        ),
        "samples and logs": 200.0 * 2**20,
    }
