"""The arithmetic of PPO on language models: KL estimators and controllers, advantages, losses.

Shapes: B rows (one response each), T response positions. `mask` is a bool tensor (B, T), true on
the sampled tokens, including the end-of-sequence token. It is made from lengths, never from
`token != pad`, because many tokenizers pad with the end-of-sequence token. Log-probabilities are in
nats, at the sampling temperature.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlhf.training.configs.ppo_groups import KLSettings


def length_mask(lengths: Tensor, width: int) -> Tensor:
    """(B,) token counts to a (B, width) bool mask, true on the first `lengths[i]` positions."""
    return torch.arange(width, device=lengths.device)[None, :] < lengths[:, None]


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the true positions of `mask`; 0 where there are none."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def whiten(values: Tensor, mask: Tensor, *, shift_mean: bool = True, eps: float = 1e-8) -> Tensor:
    """Values with mean 0 and variance 1 over the mask (B, T); positions outside it become 0.

    With `shift_mean=False` only the scale changes, as Ziegler et al. (2019) do to rewards. The
    variance is the unbiased one. A single value can't be scaled: it is returned shifted only.
    """
    n = mask.sum()
    mean = masked_mean(values, mask)
    variance = ((values - mean) ** 2 * mask).sum() / (n - 1).clamp(min=1)
    scaled = (values - mean) * torch.where(n > 1, torch.rsqrt(variance + eps), 1.0)
    return (scaled if shift_mean else scaled + mean) * mask


def kl_k1(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Per-token k1 estimate of KL(policy || reference): log p - log q of the sampled token.

    Unbiased (Schulman 2020, "Approximating KL divergence"), and the one whose use in the reward
    gives the gradient of the reverse KL (arXiv 2510.01555).
    """
    return logprobs - reference_logprobs


def kl_k3(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Per-token k3 estimate of the same KL: r - 1 - log r with r = q/p. Never negative, and
    therefore logged instead of k1; it is not optimized.
    """
    log_ratio = reference_logprobs - logprobs
    return torch.expm1(log_ratio) - log_ratio


def token_rewards(scores: Tensor, kl: Tensor, mask: Tensor, *, kl_weight: float) -> Tensor:
    """Reward per token (B, T): -kl_weight * kl everywhere, plus the score on the last token.

    `scores` is (B,); `kl` is a per-token k1 estimate. Rows must have at least one token.
    """
    rewards = -kl_weight * kl * mask
    last = mask.sum(dim=1) - 1
    rewards[torch.arange(len(scores), device=scores.device), last] += scores
    return rewards


def advantages_and_returns(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimation (Schulman et al. 2016, eq. 16); both results are (B, T).

    The value after the last real token is 0: a response that ended has no future, and one that
    ran out of tokens is treated alike, since its score is the length penalty.
    """
    advantages = torch.zeros_like(rewards)
    following = torch.zeros_like(rewards[:, 0])
    next_value = torch.zeros_like(rewards[:, 0])
    for t in range(rewards.shape[1] - 1, -1, -1):
        real = mask[:, t]
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        following = torch.where(real, delta + gamma * lam * following, 0.0)
        next_value = torch.where(real, values[:, t], 0.0)
        advantages[:, t] = following
    return advantages, (advantages + values) * mask


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip: float,
    clip_high: float | None = None,
    dual_clip: float | None = None,
    per_sequence: bool = False,
    importance: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The clipped surrogate (Schulman et al. 2017, eq. 7) and the share of tokens it clips.

    The ratio is clipped to 1 - `clip` and 1 + `clip_high`, which is `clip` where it is not given.
    `dual_clip` bounds the loss of tokens with a negative advantage at -dual_clip * advantage (Ye
    et al. 2020). The mean is over tokens, or over the means of each row (`per_sequence`).
    `importance` (B, T) multiplies each token's loss: `truncated_importance`.
    """
    ratio = torch.exp(logprobs - old_logprobs)
    plain = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip, 1 + (clip if clip_high is None else clip_high))
    loss = torch.maximum(plain, clipped)
    if dual_clip is not None:
        loss = torch.where(advantages < 0, torch.minimum(loss, -dual_clip * advantages), loss)
    if importance is not None:
        loss = loss * importance
    fraction = masked_mean((clipped > plain).float(), mask)
    if per_sequence:
        rows = (loss * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
        return rows.mean(), fraction
    return masked_mean(loss, mask), fraction


def truncated_importance(logprobs: Tensor, sampler_logprobs: Tensor, *, cap: float) -> Tensor:
    """min(p / q, `cap`) per token (B, T): p by the policy as it is trained, q as it was sampled.

    Two implementations with the same weights round differently, which makes a rollout slightly
    off-policy (Yao et al. 2025, "On the rollout-training mismatch in modern RL systems": a cap of
    2).
    """
    return torch.exp(logprobs - sampler_logprobs).clamp(max=cap)


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, *, clip: float
) -> Tensor:
    """Half the squared error of the value, clipped around its old estimate as in baselines' PPO2.

    `clip` 0 or less switches the clipping off.
    """
    error = (values - returns) ** 2
    if clip > 0:
        near = old_values + (values - old_values).clamp(-clip, clip)
        error = torch.maximum(error, (near - returns) ** 2)
    return 0.5 * masked_mean(error, mask)


def approximate_kl(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    """Mean per-token KL(old || new) by k3 of the tokens sampled from the old policy."""
    return masked_mean(kl_k3(old_logprobs, logprobs), mask)


def explained_variance(returns: Tensor, values: Tensor, mask: Tensor) -> float:
    """Share of the returns' variance that the values explain: 1 all, 0 none; 0 if all returns are
    the same."""
    total, rest = returns[mask].var(correction=0), (returns - values)[mask].var(correction=0)
    return 1 - float(rest / total) if float(total) > 1e-8 else 0.0


def selected_logprobs(logits: Tensor, tokens: Tensor) -> Tensor:
    """log softmax of `logits` (..., V) at `tokens` (...), without keeping a second (..., V)."""
    picked = logits.gather(-1, tokens[..., None]).squeeze(-1).float()
    return picked - torch.logsumexp(logits.float(), dim=-1)


class _LogprobsAndEntropy(torch.autograd.Function):
    """`logprobs_and_entropy`, which saves one tensor of the vocabulary's size for the backward
    pass; plain operations save three and write five."""

    @staticmethod
    def forward(
        context: Any,
        logits: Tensor,
        tokens: Tensor,
        temperature: float,
        train_entropy: bool,  # noqa: FBT001 - autograd functions take no keywords
    ) -> tuple[Tensor, Tensor]:
        logprobs = torch.log_softmax(
            logits.float() / temperature if temperature != 1 else logits.float(), dim=-1
        )
        picked = logprobs.gather(-1, tokens[:, None])[:, 0]
        probabilities = logprobs.exp()
        entropy = -torch.linalg.vecdot(probabilities, logprobs)
        if train_entropy:
            context.save_for_backward(probabilities, tokens, entropy, logprobs)
        else:
            context.save_for_backward(probabilities, tokens)
        context.temperature, context.train_entropy = temperature, train_entropy
        context.dtype = logits.dtype
        return picked, entropy

    @staticmethod
    def backward(context: Any, d_picked: Tensor, d_entropy: Tensor) -> Any:
        probabilities, tokens, *saved = context.saved_tensors
        if context.train_entropy:  # dH/dz = -p (log p + H)
            entropy, logprobs = saved
            factor = logprobs.add(entropy[:, None]).mul_(d_entropy[:, None]).add_(d_picked[:, None])
            grad = probabilities * factor.neg_()
        else:
            grad = probabilities * -d_picked[:, None]
        grad.scatter_add_(-1, tokens[:, None], d_picked[:, None])
        if context.temperature != 1:
            grad.div_(context.temperature)
        return grad.to(context.dtype), None, None, None


def logprobs_and_entropy(
    logits: Tensor, tokens: Tensor, *, temperature: float = 1.0, train_entropy: bool = False
) -> tuple[Tensor, Tensor]:
    """Log-probability of `tokens` (N,) and entropy, in nats, under softmax(`logits` / temperature).

    `logits` is (N, V); both results are (N,). The entropy has a gradient only with `train_entropy`:
    without it the backward pass is cheaper.
    """
    picked, entropy = _LogprobsAndEntropy.apply(logits, tokens, temperature, train_entropy)
    return picked, entropy


@dataclass
class FixedKL:
    """A constant KL weight."""

    weight: float

    def update(self, kl: float, n: int) -> None:
        """Keeps the weight constant; the observed KL is ignored."""


@dataclass
class AdaptiveKL:
    """The proportional controller of Ziegler et al. (2019, section 2.2).

    `target` is nats per sequence; the relative error is clipped at +-`error_clip`, and the weight
    changes by a factor of 1 + error * n / `horizon`, n being the number of sequences just seen.
    """

    weight: float
    target: float
    horizon: float
    error_clip: float = 0.2

    def update(self, kl: float, n: int) -> None:
        if not math.isfinite(kl):
            return
        error = min(max(kl / self.target - 1, -self.error_clip), self.error_clip)
        self.weight *= 1 + error * n / self.horizon


def new_kl_controller(settings: KLSettings) -> FixedKL | AdaptiveKL:
    """The controller of the KL weight, as the run begins."""
    if settings.controller == "fixed":
        return FixedKL(settings.weight)
    return AdaptiveKL(settings.weight, settings.target, settings.horizon, settings.error_clip)
