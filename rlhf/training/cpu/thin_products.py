"""Products of few rows by a large matrix."""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

Product = Callable[[Tensor], Tensor]
"""(M, K) to (M, N)."""


def product(weight: Tensor, bias: Tensor | None, rows: int) -> Product:
    """x @ weight.t() + bias, for a weight (N, K)."""
    return lambda x: functional.linear(x, weight, bias)
