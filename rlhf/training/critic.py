"""What estimates the value of a half-written response, for PPO's baseline."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rlhf.training import loading


class HeadCritic(nn.Module):
    """A small network on the policy's own hidden states.

    It reads them detached: a value gradient into a policy this small would change what it says.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(hidden_size, hidden_size)
        self.out = nn.Linear(hidden_size, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(
        self,
        hidden: Tensor,
        prompts: Sequence[Sequence[int]],
        responses: Sequence[Sequence[int]],
    ) -> Tensor:
        """Hidden states (B, T, H) of the policy before each token to values (B, T)."""
        return self.out(torch.tanh(self.hidden(hidden.detach().float()))).squeeze(-1).float()


class ModelCritic(nn.Module):
    """A transformer of its own with a linear value head that starts at 0.

    Started from the reward model's trunk where that speaks the policy's tokens (InstructGPT,
    appendix C.4), else from the policy.
    """

    def __init__(self, trunk: Any, pad_id: int) -> None:
        super().__init__()
        loading.without_dropout(trunk)
        self.trunk = trunk
        self.pad_id = pad_id
        self.out = nn.Linear(trunk.config.hidden_size, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(
        self,
        hidden: Tensor,
        prompts: Sequence[Sequence[int]],
        responses: Sequence[Sequence[int]],
    ) -> Tensor:
        """Token ids to values (B, T) before each response token; `hidden` is not looked at."""
        device = self.out.weight.device
        left, right = max(map(len, prompts)), max(map(len, responses))
        ids = torch.full((len(prompts), left + right), self.pad_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            ids[i, left - len(prompt) : left] = torch.tensor(prompt)
            ids[i, left : left + len(response)] = torch.tensor(response)
            mask[i, left - len(prompt) : left + len(response)] = 1
        ids, mask = ids.to(device), mask.to(device)
        states = self.trunk(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
        ).last_hidden_state[:, left - 1 : -1]
        return self.out(states.float()).squeeze(-1).float()
