"""Leaving unlikely tokens out of what is sampled: top_k, top_p (Holtzman et al. 2020) and min_p
(Nguyen et al. 2025).

In transformers' order: after the temperature first top_k, then top_p of what that leaves, then
min_p. Every rule keeps the most probable tokens, so a row's rules are together one least
log-probability; tokens of equal probability stay or go together.

PPO's rollouts are never truncated: its importance ratios compare the log-probabilities of two
policies over the whole vocabulary, and a token that one of them excludes would have a ratio of zero
or infinity.
"""

import math
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

FEW = 512
"""top_p is looked for among so many most probable tokens first. Sorting a whole vocabulary takes as
long as a small model's step."""


@dataclass(frozen=True)
class Truncation:
    """Which tokens may be sampled. The defaults leave out none."""

    top_k: int = 0
    """The k most probable tokens; 0: all."""
    top_p: float = 1.0
    """The fewest most probable tokens whose probabilities sum to this; 1: all."""
    min_p: float = 0.0
    """Tokens at least this many times as probable as the most probable one; 0: all."""

    @classmethod
    def of(cls, config: Any) -> Self | None:
        """A configuration's truncation, from its fields of the same names; None if it has no effect."""
        own = cls(config.top_k, config.top_p, config.min_p)
        return None if own == cls() else own

    def apply(self, logprobs: Tensor) -> Tensor:
        """(rows, V) log-probabilities of the remaining tokens, which sum to one; -inf for the rest."""
        least = self._least(logprobs)
        return logprobs.masked_fill(logprobs < least[:, None], -math.inf).log_softmax(dim=-1)

    def _least(self, logprobs: Tensor) -> Tensor:
        """(rows,) the smallest log-probability that each row keeps."""
        size = logprobs.shape[-1]
        k = self.top_k if 0 < self.top_k < size else 0
        if self.top_p >= 1:
            most = logprobs.topk(k or 1, dim=-1).values
            return self._above_min_p(most[:, :1], most[:, -1] if k else None)
        for n in (k,) if k else (min(FEW, size), size):
            most = logprobs.topk(n, dim=-1).values
            mass = most.double().exp()
            whole = mass.sum(dim=-1, keepdim=True) if k else 1.0
            before = mass.cumsum(dim=-1) - mass
            kept = before < self.top_p * whole
            # If the last of these tokens is kept, the next one may be, too.
            if k or n == size or not bool(kept[:, -1].any()):
                break
        last = kept.sum(dim=-1).clamp(min=1) - 1
        return self._above_min_p(most[:, :1], most.gather(1, last[:, None])[:, 0])

    def _above_min_p(self, top: Tensor, least: Tensor | None) -> Tensor:
        """The larger of `least` (rows,) and min_p's limit below the most probable token (rows, 1)."""
        limit = top[:, 0] + (math.log(self.min_p) if self.min_p else -math.inf)
        return limit if least is None else torch.maximum(least, limit)
