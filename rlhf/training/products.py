"""Matrix products on a CPU by oneDNN, where that is the faster of torch's two libraries.

torch gives its own float32 products to MKL, which on a processor that Intel did not make stays with
AVX2; oneDNN, which torch carries too, uses AVX-512 wherever the processor has it: twice as fast on
an AMD EPYC whose units are 512 bits wide (Zen 5; docs/log/ppo_speed.md). On Zen 4, which works through 512 bits
in two halves, it gains a twentieth forward and loses half where weights' gradients are shared by two
threads; on Intel's own MKL is the faster. oneDNN makes a kernel for every new shape, which takes
longer than a small product and most of a megabyte, so rows are filled up to a multiple of `ROWS`.
"""

import platform
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROWS = 128
"""Rows (tokens) that a product is filled up to a multiple of."""

FEW = 64
"""With fewer rows MKL is as fast."""


def available() -> bool:
    """Whether this build of torch has oneDNN's products, and the processor AVX-512 for them."""
    return bool(
        torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def pays() -> bool:
    """Whether they are the faster ones here: not where MKL knows the processor as Intel's, nor where
    512 bits take two turns.

    By the processor's name and not by trial, since the two libraries round differently: a run that
    goes on must compute with the one that it began with.
    """
    return available() and not (torch.backends.mkl.is_available() and _mkl_is_as_fast(_processor()))


def _processor() -> str:
    told = Path("/proc/cpuinfo")
    return told.read_text(errors="replace") if told.exists() else platform.processor()


def _mkl_is_as_fast(processor: str) -> bool:
    """By what /proc/cpuinfo says: Intel's, or an AMD before family 26 (Zen 5)."""
    family = re.search(r"^cpu family\s*:\s*(\d+)", processor, re.MULTILINE)
    before_zen5 = "AuthenticAMD" in processor and family is not None and int(family[1]) < 26
    return "GenuineIntel" in processor or before_zen5


_FAST = pays()


def rows_multiple() -> int:
    """What numbers of rows are best a multiple of: `ROWS` for oneDNN, 1 for MKL."""
    return ROWS if _FAST else 1


def computes(layer: Any) -> bool:
    """Whether `linear` with the layer's weight is what the layer computes, and pays."""
    weight, bias = (getattr(layer, name, None) for name in ("weight", "bias"))
    return bool(
        _FAST
        and type(layer) is torch.nn.Linear
        and bias is None
        and not ({"forward", "_forward_hooks"} & {n for n, v in vars(layer).items() if v})
        and isinstance(weight, Tensor)
        and weight.dtype == torch.float32
        and weight.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
    )


def fill(x: Tensor) -> Tensor:
    """(M, H) with rows of zeros up to a multiple of `rows_multiple`."""
    missing = -len(x) % rows_multiple()
    return torch.nn.functional.pad(x, (0, 0, 0, missing)) if missing else x


def by_rows(x: Tensor, weight: Tensor, plus: Tensor | None = None) -> Tensor:
    """x (M, K) times weight (N, K) transposed, `plus` (M, N) added; not differentiable."""
    if not _FAST or len(x) < FEW:
        return x @ weight.t() if plus is None else torch.addmm(plus, x, weight.t())
    if plus is None:
        return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return torch.ops.mkldnn._linear_pointwise.binary(x, plus, weight, None, "add")


def across_rows(a: Tensor, b: Tensor) -> Tensor:
    """a (M, N) transposed times b (M, K): the gradient of a weight (N, K); not differentiable."""
    if not _FAST or len(a) < FEW:
        return a.t() @ b
    # The left side is copied into another order: that is done to the narrower one.
    if a.shape[1] <= b.shape[1]:
        return torch.ops.mkldnn._linear_pointwise(a.t(), b.t(), None, "none", [], "")
    return torch.ops.mkldnn._linear_pointwise(b.t(), a.t(), None, "none", [], "").t()


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor) -> Tensor:
        filled_x = fill(x)
        context.save_for_backward(filled_x, weight)
        return by_rows(filled_x, weight)[: len(x)]

    @staticmethod
    def backward(context: Any, grad: Tensor) -> Any:
        x, weight = context.saved_tensors
        filled_grad = fill(grad)
        return by_rows(filled_grad, weight.t())[: len(grad)], across_rows(filled_grad, x)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x (M, K) times weight (N, K) transposed, differentiable; float32 on a CPU."""
    return _Linear.apply(x, weight)
