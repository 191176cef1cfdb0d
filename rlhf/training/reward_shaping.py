"""From a response's scores to the one score that PPO climbs; B responses.

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

    Its logarithm is what moves, so it stays positive; the paper moves it by `value` times as much,
    by which a multiplier that has become small would take long to come back. `rate` 0 keeps it as
    it is.
    """

    value: float
    limit: float
    rate: float

    def update(self, cost: float) -> None:
        """Grow where the mean cost of a rollout is above the limit, shrink where it is below."""
        if math.isfinite(cost):
            step = self.rate * (cost - self.limit)
            self.value = min(max(self.value * math.exp(min(max(step, -5.0), 5.0)), 1e-6), 1e4)

    def reward(self, helpfulness: Tensor, safety: Tensor) -> Tensor:
        """(B,) helpfulness - multiplier * cost, with cost = -safety, on the scale of one score.

        Dividing by 1 + multiplier keeps the advantages' scale while the multiplier moves.
        """
        return (helpfulness + self.value * safety) / (1 + self.value)


def combine_scores(
    helpfulness: Tensor,
    safety: Tensor,
    harmful: Tensor,
    *,
    threshold: float,
) -> tuple[Tensor, Tensor]:
    """Llama 2's rule (Touvron et al. 2023, section 3.2.3): which scorer speaks for each response.

    All are (B,). Safety governs where the prompt is known to be harmful (`harmful`, bool) or the
    safety score is low (sigmoid(safety) < threshold); helpfulness governs elsewhere. The scores
    are logits, standardised on the reference policy's samples. Returns the governing scores and
    the bool tensor of where safety governed. A threshold of 0 leaves the prompt's risk alone to
    decide.
    """
    low = torch.sigmoid(safety) < threshold
    governed = harmful | low
    return torch.where(governed, safety, helpfulness), governed


def overlong_penalty(lengths: Tensor, *, longest: int, buffer: int, penalty: float) -> Tensor:
    """What responses of `lengths` (B,) tokens lose: nothing up to `longest` - `buffer`, then evenly
    more, up to `penalty` at `longest` (Yu et al. 2025, "DAPO", soft overlong punishment)."""
    return penalty * (lengths - (longest - buffer)).clamp(min=0) / buffer


def replace_unfinished(scores: Tensor, finished: Tensor, penalty: float) -> Tensor:
    """Scores (B,) with `penalty` in place of those of responses that did not end (bool (B,))."""
    return torch.where(finished, scores, penalty)
