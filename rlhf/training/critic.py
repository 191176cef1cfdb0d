"""The critics: they estimate the value of a partial response, PPO's baseline."""

from typing import Any

import torch
from torch import Tensor, nn

from rlhf.training.architecture import hidden_size
from rlhf.training.forward_pass import trunk_hidden_states
from rlhf.training.language_models import pretrained
from rlhf.training.packing import Packed


class HeadCritic(nn.Module):
    """A small network on the policy's own hidden states.

    Its gradient does not reach the policy, because a value gradient would change a small policy's
    answers; `gradient_share` lets a share of it through.
    """

    def __init__(self, hidden_size: int, gradient_share: float = 0.0) -> None:
        super().__init__()
        self.gradient_share = gradient_share
        self.hidden = nn.Linear(hidden_size, hidden_size)
        self.out = nn.Linear(hidden_size, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, hidden: Tensor, packed: Packed | None = None) -> Tensor:
        """Hidden states (N, H) of the policy before each token to values (N,)."""
        states = hidden.detach()
        if self.gradient_share and hidden.requires_grad:
            states = states + self.gradient_share * (
                hidden - states
            )  # the same value, a scaled gradient
        with _in_float32(hidden):
            return self.out(torch.tanh(self.hidden(states.float()))).squeeze(-1)


class ModelCritic(nn.Module):
    """A transformer of its own with a linear value head that starts at 0.

    It starts from the reward model's trunk (InstructGPT, appendix C.4) if the trunk is causal and
    has the policy's vocabulary and context length; otherwise from the policy.
    """

    def __init__(self, trunk: Any) -> None:
        super().__init__()
        pretrained.disable_dropout(trunk)
        self.trunk = trunk
        self.out = nn.Linear(hidden_size(trunk), 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, hidden: Tensor, packed: Packed) -> Tensor:
        """Values (N,) before each response token; the policy's `hidden` is not used."""
        states = trunk_hidden_states(self.trunk, packed)
        with _in_float32(states):
            return self.out(states.float()).squeeze(-1)


def _in_float32(hidden: Tensor) -> torch.autocast:
    """float32 for any precision of the trunk: bfloat16 has three digits, and a return of 20 that is
    accurate to 0.1 is a poor baseline for differences of 0.1."""
    return torch.autocast(hidden.device.type, enabled=False)
