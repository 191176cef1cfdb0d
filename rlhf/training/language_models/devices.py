"""Device, precision, random seed and threads of a run."""

import contextlib
import functools
import re
import time
from pathlib import Path
from typing import Any

import torch

from rlhf.training.rundir import log
from rlhf.training.rundir.errors import InputError

CPU_INFO = Path("/proc/cpuinfo")
"""Where Linux lists the instructions of the CPU."""

EMULATED = (
    "This CPU has no bfloat16 instructions; emulated, they are many times slower than float32."
)


def choose_device(device: str) -> torch.device:
    """`auto` is the first GPU if there is one, else the CPU; `InputError` for a device that this
    machine does not have."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return torch.device("cuda" if gpus else "cpu")
    with contextlib.suppress(RuntimeError):  # torch does not know the name
        chosen = torch.device(device)
        if chosen.type == "cpu" or (chosen.type == "cuda" and (chosen.index or 0) < gpus):
            return chosen
    available = f"{gpus} usable GPUs, from cuda:0 on" if gpus else "no usable GPU"
    raise InputError(
        f"device is {device!r}, which is neither the CPU nor a GPU that is there (this machine has "
        f"{available}); set it to 'auto'."
    )


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Precision for models that are only read: `auto` is bfloat16 on a GPU, else float32."""
    if dtype == "bfloat16" and emulates_bfloat16(device):
        log.warning(f"{EMULATED} Set dtype to 'auto'.")
    half = dtype == "bfloat16" or (dtype == "auto" and device.type == "cuda")
    return torch.bfloat16 if half else torch.float32


@functools.cache
def precision_trial() -> dict[str, float]:
    """Seconds of a decoding step's matrix products on this CPU, in float32 and in bfloat16: some
    milliseconds, once for a process.

    16 rows, as thin as in decoding; the best of several, because other work only adds time.
    """
    seconds = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        rows, weights = torch.ones(16, 512, dtype=dtype), torch.ones(1024, 512, dtype=dtype)
        best = float("inf")
        for _ in range(6):
            began = time.perf_counter()
            torch.nn.functional.linear(rows, weights)
            best = min(best, time.perf_counter() - began)
        seconds[name] = best
    return seconds


def is_bfloat16_faster(device: torch.device) -> bool:
    """Whether models that are only read should be in bfloat16: on a GPU, and on a CPU that has the
    instructions and is faster with them (`precision_trial`)."""
    if device.type != "cpu":
        return True
    if emulates_bfloat16(device):
        return False
    trial = precision_trial()
    return trial["bfloat16"] < 0.9 * trial["float32"]


def describe_precision(device: torch.device, dtype: torch.dtype) -> str:
    """The precision of a run and why, in a sentence for the doctor."""
    name = str(dtype).removeprefix("torch.")
    if device.type != "cpu":
        return f"Computes in {name} on {device}."
    trial = precision_trial()
    ratio = trial["bfloat16"] / max(trial["float32"], 1e-9)
    return (
        f"Computes in {name} on the CPU; a thin matrix product takes {ratio:.2g} times as long in "
        "bfloat16 as in float32 here."
    )


def emulates_bfloat16(device: torch.device) -> bool:
    """Whether the device is a CPU that lists no instructions for products in bfloat16: neither
    AVX512-BF16 nor AMX (x86), nor BF16 (Arm)."""
    if device.type != "cpu":
        return False
    info = CPU_INFO.read_text(errors="replace") if CPU_INFO.exists() else ""
    return not re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", info)


def autocast(device: torch.device, dtype: torch.dtype) -> Any:
    """Matrix products in `dtype`, if that is bfloat16; weights keep their precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


def be_deterministic(seed: int, threads: int) -> int:
    """Set the random seed and the number of threads, which determine a CPU run together with its
    inputs. Returns the number of threads."""
    torch.manual_seed(seed)
    if threads:
        torch.set_num_threads(threads)
    return torch.get_num_threads()
