"""PPO's updates: epochs of minibatches over one rollout, with clipped losses (Schulman et al.
2017)."""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf.training import parallel, ppo_math, ptx
from rlhf.training.configs import PPOConfig
from rlhf.training.ppo_models import Models, derive_seed
from rlhf.training.rundir import log
from rlhf.training.rundir.errors import InputError
from rlhf.training.schedule import learning_rate_at

MAX_START_KL = 0.05
"""The largest KL (nats per token) between the sampling and the trained policy before a rollout's
first update, where the ratio must be 1. Rounding explains less (bfloat16: some thousandths)."""

MAX_SKIPPED_IN_A_ROW = 20
"""After this many updates in a row whose gradient is not finite, also over several rollouts, the
rest of the rollout is skipped and the run goes back to its last checkpoint."""


@dataclass
class Rollout:
    """The responses of one step with everything that PPO computes from them; B rows, T tokens."""

    prompts: list[list[int]]
    """Token ids of the prompt of each response."""
    responses: list[list[int]]
    mask: Tensor
    """(B, T) bool: which positions are sampled tokens."""
    logprobs: Tensor
    """(B, T) nats, of the sampled tokens under the policy that sampled them: "old" in the ratio."""
    advantages: Tensor
    """(B, T) whitened if the configuration says so."""
    returns: Tensor
    """(B, T) targets of the critic: advantages before whitening, plus values."""
    values: Tensor
    """(B, T) the critic's values before the updates."""
    importance: Tensor | None = None
    """(B, T) importance weights if the sampler's probabilities differ from the policy's; None: all
    1."""


@dataclass(frozen=True)
class UpdateResult:
    """The outcome of the updates of one rollout."""

    means: dict[str, float]
    """Losses and other curves, averaged over the updates."""
    skipped: int
    """Updates that were skipped because something was not finite."""
    skipped_in_a_row: int
    """The number of skipped updates in a row at the end, including earlier rollouts."""
    broken: str
    """The names of the values that were not finite, if all updates or too many in a row were
    skipped; else empty."""


def update(
    models: Models,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    config: PPOConfig,
    step: int,
    ptx_examples: Sequence[ptx.Example] = (),
    *,
    skipped_before: int = 0,
) -> UpdateResult:
    """Train policy and critic on one rollout; in the first steps (`critic.warmup_steps`) the critic
    alone. Every update samples some of the `ptx_examples`.

    `skipped_before`: the number of skipped updates in a row at the end of earlier rollouts.
    """
    rates = learning_rates(config, step)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    sums: dict[str, float] = {}
    n_updates, skipped, in_a_row, causes = 0, 0, skipped_before, ""
    ptx_sampler = random.Random(derive_seed(config.seed, step))
    for minibatch in _minibatches(len(rollout.prompts), config, step):
        optimizer.zero_grad(set_to_none=True)
        examples = ptx_sampler.sample(ptx_examples, min(config.ptx.batch_size, len(ptx_examples)))
        stats, norms = _accumulate_gradients(
            models, optimizer, rollout, minibatch, config, examples, step
        )
        # A gradient that is not finite would break every weight: skip, count, go on.
        broken = [n for n, value in (stats | norms).items() if not math.isfinite(value)]
        if broken:
            skipped, in_a_row = skipped + 1, in_a_row + 1
            causes = ", ".join(name.replace("_", " ") for name in broken)
            log.warning(f"step {step}: an update was skipped, not finite: {causes}")
            if in_a_row >= MAX_SKIPPED_IN_A_ROW:
                break
            continue
        in_a_row = 0
        if not n_updates:
            _check_start(stats["approx_kl"], config, step)
        # Too far from the sampling policy: its samples are no longer representative of this one.
        if config.loss.approx_kl_stop and stats["approx_kl"] > config.loss.approx_kl_stop:
            break
        optimizer.step()
        n_updates += 1
        for name, value in (stats | {"grad_norm": norms["policy's gradient"]}).items():
            sums[name] = sums.get(name, 0.0) + value
    optimizer.zero_grad(set_to_none=True)
    means = {name: value / n_updates for name, value in sums.items()}
    means |= {"updates": n_updates, "learning_rate": rates[0]}
    is_given_up = in_a_row >= MAX_SKIPPED_IN_A_ROW or bool(skipped and not n_updates)
    return UpdateResult(means, skipped, in_a_row, causes if is_given_up else "")


def _check_start(approx_kl: float, config: PPOConfig, step: int) -> None:
    """`InputError` if the policy's log-probabilities differ from the sampler's before any update
    was made: then the ratio, and with it every update, is wrong."""
    limit = min(MAX_START_KL, config.loss.approx_kl_stop or MAX_START_KL)
    if approx_kl > limit:
        raise InputError(
            f"Step {step}: before the first update the policy's log-probabilities are {approx_kl:.2g} "
            f"nats per token (KL) from those that it sampled with, and {limit:.2g} is the most that "
            "rounding explains, so no update can be made; its architecture is not read correctly, or "
            "the sampler serves other weights. Use rollout.engine = own, dtype = float32, or another "
            "model."
        )


def learning_rates(config: PPOConfig, step: int) -> tuple[float, float]:
    """Learning rates of policy and critic at a step (from 1). The policy's schedule starts with the
    policy's first update; otherwise its warm-up would be over when the critic's warm-up ends."""

    def rate(peak: float, delay: int) -> float:
        return learning_rate_at(
            step - 1 - delay,
            peak=peak,
            warmup=config.optimizer.warmup_steps,
            total=config.steps - delay,
            floor=config.optimizer.learning_rate_floor,
        )

    delay = config.critic.warmup_steps
    policy = rate(config.optimizer.learning_rate, delay) if step > delay else 0.0
    return policy, rate(config.critic.learning_rate, 0)


def _minibatches(rows: int, config: PPOConfig, step: int) -> Iterator[Sequence[int]]:
    """The rows of each minibatch, epoch by epoch. Minibatches have equal sizes, because a small
    last one would have too much weight."""
    shuffler = torch.Generator().manual_seed(derive_seed(config.seed, step))
    count = max(1, round(rows / config.optimizer.minibatch_size))
    for _ in range(config.optimizer.epochs):
        order = torch.randperm(rows, generator=shuffler).tolist()
        for i in range(count):
            yield order[rows * i // count : rows * (i + 1) // count]


def _accumulate_gradients(
    models: Models,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    minibatch: Sequence[int],
    config: PPOConfig,
    ptx_examples: Sequence[ptx.Example],
    step: int,
) -> tuple[dict[str, float], dict[str, float]]:
    """The clipped gradients of one minibatch; returns its losses, and the norms before clipping."""
    train_policy = step > config.critic.warmup_steps
    stats = _ppo_loss(models, rollout, minibatch, config, train_policy=train_policy)
    if ptx_examples and train_policy:
        stats["ptx_loss"] = _ptx_loss(models, ptx_examples, config.ptx.weight)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    models.group.all_reduce_gradients(parameters)
    policy, critic = [p for _, p in models.trained()], list(models.critic.parameters())
    limit = config.optimizer.max_grad_norm
    return stats, {
        "policy's gradient": parallel.clip_gradients(policy, limit),
        "critic's gradient": parallel.clip_gradients(critic, limit),
    }


def _ppo_loss(
    models: Models,
    rollout: Rollout,
    minibatch: Sequence[int],
    config: PPOConfig,
    *,
    train_policy: bool,
) -> dict[str, float]:
    """Accumulate the gradients of one minibatch; returns its losses and other curves."""
    tokens = float(rollout.mask[list(minibatch)].sum())
    names = ("policy_loss", "value_loss", "clip_fraction", "approx_kl", "entropy")
    stats = dict.fromkeys(names, 0.0)
    sizes = [len(p) + len(r) for p, r in zip(rollout.prompts, rollout.responses, strict=True)]
    # Processes share a minibatch by length, to balance the load.
    share = models.group.balanced_share(sorted(minibatch, key=lambda i: (sizes[i], i)))
    microbatches = list(models.microbatches(sizes, share))
    weighted = models.group.pad_to_equal_count(microbatches, list(minibatch[:1]))
    report = models.progress.phase("training on a minibatch", len(weighted), "passes")
    for number, (rows, counts) in enumerate(weighted):
        report(number)
        with models.autocast():
            packed, hidden, packed_logprobs, entropies = models.sharded_policy(
                models.forward, models.policy, rollout.prompts, rollout.responses, rows
            )
            # While the critic warms up, its gradient must not reach the policy.
            states = hidden if train_policy else hidden.detach()
            values = packed.unpack(models.sharded_critic(models.critic, states, packed))
        logprobs = packed.unpack(packed_logprobs)
        window = (rows, slice(packed.width))
        mask, old_logprobs = rollout.mask[window], rollout.logprobs[window]
        policy_loss, clipped = ppo_math.policy_loss(
            logprobs,
            old_logprobs,
            rollout.advantages[window],
            mask,
            clip=config.loss.clip,
            clip_high=config.loss.clip_high or None,
            dual_clip=config.loss.dual_clip or None,
            per_sequence=config.loss.average == "sequences",
            importance=None if rollout.importance is None else rollout.importance[window],
        )
        value_loss = ppo_math.value_loss(
            values,
            rollout.values[window],
            rollout.returns[window],
            mask,
            clip=config.critic.value_clip,
        )
        entropy = entropies.mean()
        # A microbatch's weight is its share of the minibatch's tokens (or responses).
        by_tokens = counts * float(mask.sum()) / tokens
        by_rows = counts * len(rows) / len(minibatch)
        policy_weight = by_rows if config.loss.average == "sequences" else by_tokens
        loss = value_loss * by_tokens
        if train_policy:
            bonus = config.loss.entropy_bonus * entropy * by_tokens
            loss = loss + policy_loss * policy_weight - bonus
        loss.backward()
        approx_kl = ppo_math.approximate_kl(logprobs.detach(), old_logprobs, mask)
        stats["policy_loss"] += float(policy_loss.detach()) * policy_weight
        stats["value_loss"] += float(value_loss.detach()) * by_tokens
        stats["clip_fraction"] += float(clipped) * by_tokens
        stats["approx_kl"] += float(approx_kl) * by_tokens
        stats["entropy"] += float(entropy.detach()) * by_tokens
    return models.group.all_reduce_numbers(stats)


def _ptx_loss(models: Models, examples: Sequence[ptx.Example], weight: float) -> float:
    """Accumulate `weight` times the gradient of the mean negative log-likelihood of the examples'
    tokens, at temperature 1; returns that mean in nats (Ouyang et al. 2022, eq. 2, third term)."""
    tokens = sum(len(e.response) for e in examples)
    sizes = [len(e.prompt) + len(e.response) for e in examples]
    share = models.group.balanced_share(sorted(range(len(examples)), key=lambda i: (sizes[i], i)))
    microbatches = list(models.microbatches(sizes, share))
    prompts, responses = [e.prompt for e in examples], [e.response for e in examples]
    total = 0.0
    for rows, counts in models.group.pad_to_equal_count(microbatches, [0]):
        with models.autocast():
            _, _, logprobs, _ = models.sharded_policy(
                models.forward, models.policy, prompts, responses, rows, 1.0
            )
        loss = -counts * logprobs.sum() / tokens
        (weight * loss).backward()
        total += float(loss.detach())
    return models.group.all_reduce_numbers({"ptx_loss": total})["ptx_loss"]
