"""Muon, an optimizer for the weight matrices inside a network's layers, in float32.

Jordan, Jin, Boza, You, Cesista, Newhouse and Bernstein 2024, "Muon: An optimizer for hidden layers in
neural networks", https://kellerjordan.github.io/posts/muon/. `torch.optim.Muon` computes the same but
always iterates in bfloat16. A CPU without bfloat16 instructions emulates it: a
step of the base policy then takes five times as long (docs/log/tiny_walk.md).
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""a, b, c of the iteration X <- aX + b(XXᵀ)X + c(XXᵀ)²X (section "Newton-Schulz Coefficients")."""

ITERATIONS = 5

EPSILON = 1e-7


class Muon(torch.optim.Optimizer):
    """SGD with Nesterov momentum whose update of each matrix is orthogonalized.

    Parameters are 2-dimensional. The weight decay is decoupled, as in AdamW.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take one step; parameters without a gradient stay as they are."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                average = state["momentum_buffer"].lerp_(parameter.grad, 1 - group["momentum"])
                update = orthogonalize(parameter.grad.lerp(average, group["momentum"]))
                # A tall matrix's columns are longer than a square one's for the same change of the
                # output, hence the factor (the reference implementation's, muon.py).
                rows, columns = parameter.shape
                rate = group["lr"] * max(1, rows / columns) ** 0.5
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-rate)


def orthogonalize(matrix: Tensor) -> Tensor:
    """About UVᵀ of the matrix's singular value decomposition USVᵀ, by Newton-Schulz iteration:
    singular values end between 0.7 and 1.2 or so, which trains as well as 1 does."""
    a, b, c = COEFFICIENTS
    wide = matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix  # the smaller Gram matrix
    x = wide / wide.norm().clamp(min=EPSILON)  # the iteration converges for singular values up to 1
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        polynomial = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.addmm(x, polynomial, x, beta=a)
    return x.mT if matrix.shape[0] > matrix.shape[1] else x
