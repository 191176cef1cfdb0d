"""Reward shaping: from a response's scores to the one score that PPO maximizes; B responses.

The reward per token, with the KL penalty, is `ppo_math.token_rewards`.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Multiplier:
    """The Lagrange multiplier of a bound on the mean cost (Dai et al. 2023, "Safe RLHF",
    arXiv 2310.12773, eq. 10 and 11): max over policies, min over multiplier of E[reward] -
    multiplier * (E[cost] - limit).

    The update changes its logarithm, so that it stays positive. The paper's update is also
    proportional to `value`, with which a small multiplier would recover slowly. `rate` 0: constant.
    """

    value: float
    limit: float
    rate: float

    def update(self, cost: float) -> None:
        """Increase if the mean cost of a rollout is above the limit, decrease if it is below."""
        if math.isfinite(cost):
            step = self.rate * (cost - self.limit)
            self.value = min(max(self.value * math.exp(min(max(step, -5.0), 5.0)), 1e-6), 1e4)

    def reward(self, helpfulness: Tensor, safety: Tensor) -> Tensor:
        """(B,) helpfulness - multiplier * cost, with cost = -safety, on the scale of one score.

        Dividing by 1 + multiplier keeps the scale of the advantages when the multiplier changes.
        """
        return (helpfulness + self.value * safety) / (1 + self.value)


def combine_scores(
    helpfulness: Tensor,
    safety: Tensor,
    harmful: Tensor,
    *,
    threshold: float,
) -> tuple[Tensor, Tensor]:
    """Llama 2's rule (Touvron et al. 2023, section 3.2.3): the safety or the helpfulness score.

    All are (B,). The safety score counts if the prompt is known to be harmful (`harmful`, bool) or the
    safety score is low (sigmoid(safety) < threshold); otherwise the helpfulness score counts. The
    scores are logits, standardized on the reference policy's samples. Returns the chosen scores, and a
    bool tensor that is true where safety counts. With a threshold of 0 only `harmful` decides.
    """
    low = torch.sigmoid(safety) < threshold
    is_safety = harmful | low
    return torch.where(is_safety, safety, helpfulness), is_safety


def overlong_penalty(lengths: Tensor, *, longest: int, buffer: int, penalty: float) -> Tensor:
    """The penalty (B,) of responses of `lengths` (B,) tokens: 0 up to `longest` - `buffer`, then rising
    linearly to `penalty` at `longest` (Yu et al. 2025, "DAPO", soft overlong punishment)."""
    return penalty * (lengths - (longest - buffer)).clamp(min=0) / buffer


def replace_unfinished(scores: Tensor, finished: Tensor, penalty: float) -> Tensor:
    """Scores (B,) with `penalty` in place of those of responses that did not end (bool (B,))."""
    return torch.where(finished, scores, penalty)
