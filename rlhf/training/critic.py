"""What estimates the value of a half-written response, for PPO's baseline."""

from typing import Any

import torch
from torch import Tensor, nn

from rlhf.training.architecture import hidden_size
from rlhf.training.forward_pass import trunk_hidden_states
from rlhf.training.language_models import pretrained
from rlhf.training.packing import Packed


class HeadCritic(nn.Module):
    """A small network on the policy's own hidden states.

    What it learns does not reach the policy (a value gradient into a small policy would change what
    it says), unless `passes` lets that share of the gradient through.
    """

    def __init__(self, hidden_size: int, passes: float = 0.0) -> None:
        super().__init__()
        self.passes = passes
        self.hidden = nn.Linear(hidden_size, hidden_size)
        self.out = nn.Linear(hidden_size, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, hidden: Tensor, packed: Packed | None = None) -> Tensor:
        """Hidden states (N, H) of the policy before each token to values (N,)."""
        seen = hidden.detach()
        if self.passes and hidden.requires_grad:
            seen = seen + self.passes * (hidden - seen)  # the same value, a scaled gradient
        with _exactly(hidden):
            return self.out(torch.tanh(self.hidden(seen.float()))).squeeze(-1)


class ModelCritic(nn.Module):
    """A transformer of its own with a linear value head that starts at 0.

    Started from the reward model's trunk (InstructGPT, appendix C.4) where that speaks the policy's
    tokens, can read as many of them, and sees at each only what came before; else from the policy.
    """

    def __init__(self, trunk: Any) -> None:
        super().__init__()
        pretrained.disable_dropout(trunk)
        self.trunk = trunk
        self.out = nn.Linear(hidden_size(trunk), 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, hidden: Tensor, packed: Packed) -> Tensor:
        """Values (N,) before each response token; the policy's `hidden` is not looked at."""
        states = trunk_hidden_states(self.trunk, packed)
        with _exactly(states):
            return self.out(states.float()).squeeze(-1)


def _exactly(hidden: Tensor) -> torch.autocast:
    """float32 whatever the trunk computes in: bfloat16 has three digits, and a return of 20 that is
    known to a tenth is a poor baseline for differences of a tenth."""
    return torch.autocast(hidden.device.type, enabled=False)
