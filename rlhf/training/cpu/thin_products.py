"""Products of a few rows by a large matrix, which decoding repeats with the same matrices.

torch gives float32 products to MKL, which arranges the matrix again for each product. For few rows
that takes as long as the product. oneDNN can arrange a matrix once; whether that is faster depends
on the processor and is tried on it, once per machine.
"""

import functools
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

Product = Callable[[Tensor], Tensor]
"""(M, K) to (M, N)."""

LARGE = 2**18
"""Entries of a matrix (1 MiB) from which it is arranged in advance: smaller ones stay in the
processor's cache, and the operations around them take longer than the product."""

TRIAL_SHAPE = (3072, 576)
TRIAL_ROWS = 16
TRIES = 6

LEAST_GAIN = 1.1
"""By which factor arranged matrices must be faster: less may be noise."""

CPU_INFO = Path("/proc/cpuinfo")


def product(weight: Tensor, bias: Tensor | None, rows: int) -> Product:
    """x @ weight.t() + bias for a weight (N, K), and about `rows` rows of x at once."""
    if rows > 1 and weight.numel() >= LARGE and packing_pays():
        return _packed(weight, bias)
    return lambda x: functional.linear(x, weight, bias)


def _packed(weight: Tensor, bias: Tensor | None) -> Product:
    """Decision 0033 says why operators that are private to torch are called here."""
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), TRIAL_ROWS)
    run = torch.ops.mkldnn._linear_pointwise
    return lambda x: run(x, packed, bias, "none", [], "")


@functools.cache
def packing_pays() -> bool:
    """Whether this machine's products are faster with matrices arranged in advance. The answer is
    kept in the user's cache folder: rounding differs between the two, and a run that is resumed has
    to continue with the same."""
    key = f"{_processor()}, torch {torch.__version__}"
    path = _kept_at()
    kept: dict[str, bool] = {}
    try:
        kept = json.loads(path.read_text())
        if isinstance(kept.get(key), bool):
            return kept[key]
    except (OSError, ValueError, AttributeError):
        kept = {}
    answer = _trial()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(kept | {key: answer}, indent=1))
        partial.replace(path)
    except OSError:
        pass  # tried again by the next process
    return answer


@torch.inference_mode()
def _trial() -> bool:
    """Both products in turn, in processor time, each one's best. About 50 ms."""
    weight, x = torch.ones(TRIAL_SHAPE), torch.ones(TRIAL_ROWS, TRIAL_SHAPE[1])
    try:
        packed = _packed(weight, None)
        if not torch.equal(packed(x), functional.linear(x, weight)):
            return False
    except (AttributeError, RuntimeError):  # a torch without oneDNN
        return False
    best = {"packed": float("inf"), "plain": float("inf")}
    for _ in range(TRIES):
        for name, act in (
            ("plain", lambda: functional.linear(x, weight)),
            ("packed", lambda: packed(x)),
        ):
            began = time.thread_time()
            act()
            best[name] = min(best[name], time.thread_time() - began)
    return best["plain"] > LEAST_GAIN * best["packed"]


def _processor() -> str:
    """The processor's name, as far as the system says."""
    lines = CPU_INFO.read_text(errors="replace").splitlines() if CPU_INFO.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _kept_at() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "ground-control" / "products.json"
