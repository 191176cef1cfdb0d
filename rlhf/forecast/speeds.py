"""What the units of work cost on a device: as measured there, or by arithmetic where nothing is.

Without a measurement a token costs 2 operations per parameter to read and 6 to train on (Kaplan et
al. 2020, "Scaling laws for neural language models", section 2.1: C = 6 N D), at a stated share of
what the device could do.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf.forecast.work import Lengths, Work
from rlhf.training.model_files import ModelShape

CALIBRATED_SPREAD, ROUGH_SPREAD = 1.4, 4.0
"""Factor between the middle and each end of a stage's range."""

CPU_OPERATIONS = 40e9
"""Operations a second of one CPU thread in float32 with AVX2: 2 fused units of 8 lanes near 2.5 GHz
have 80e9 at best, and another thread often shares the core."""

CPU_BANDWIDTH = 20e9
"""Bytes a second that a CPU reads from memory."""

GPUS: Mapping[str, tuple[float, float]] = {
    "B200": (2250e12, 8.0e12),
    "H200": (989e12, 4.8e12),
    "H100": (989e12, 3.35e12),
    "A100": (312e12, 2.0e12),
    "L40S": (362e12, 0.86e12),
    "L4": (121e12, 0.3e12),
    "A10": (125e12, 0.6e12),
    "4090": (165e12, 1.0e12),
    "3090": (71e12, 0.94e12),
    "T4": (65e12, 0.32e12),
}
"""Operations a second in bfloat16 (dense) and bytes a second, by a part of the GPU's name; from the
makers' data sheets."""

OTHER_GPU = (100e12, 0.5e12)

UNKNOWN_PARAMETERS = 1e9
"""Of a model whose size nobody knows yet, such as a name on a hub."""

UTILIZATION = 0.35
"""The share of a device's operations that training is taken to reach."""

STEP_OVERHEAD = 2e-4
"""Seconds a layer of a decoding step costs at least: the calls themselves."""

PASS_OVERHEAD = 1e-4
"""Seconds a layer of an update costs at least."""

LOAD_BANDWIDTH = 0.5e9
"""Bytes a second of a model's file that is read and checked."""

START_SECONDS = 8.0
"""Python's and torch's imports."""


@dataclass(frozen=True)
class Speeds:
    """Seconds for each unit of `Work` on one device, and how long prompts and responses are."""

    steps: tuple[tuple[float, float], ...]
    """(rows, seconds of a decoding step), by rows; in between and beyond, on straight lines."""
    prefill_token: float
    read_token: float
    train_token: float
    update: float
    score_token: float
    prior_token: float
    reward_token: float
    reward_update: float
    start: float
    load: float
    reward_load: float
    prompt_tokens: float
    stop_rates: tuple[float, float, float]
    """The share of tokens after which a response ends: low, likely, high."""
    spread: float
    basis: str
    """What the numbers rest on, as a part of a sentence."""
    shares_prompts: bool = True

    @property
    def is_rough(self) -> bool:
        """Whether nothing was measured."""
        return self.spread >= ROUGH_SPREAD

    def lengths(self, which: int = 1) -> Lengths:
        """The lengths at the low (0), likely (1) or high (2) stop rate."""
        return Lengths(self.prompt_tokens, self.stop_rates[which], self.shares_prompts)

    def step(self, rows: float) -> float:
        """Seconds of a decoding step with so many rows."""
        points = self.steps
        if len(points) == 1 or rows <= points[0][0]:
            return points[0][1]
        (x0, y0), (x1, y1) = next(
            ((a, b) for a, b in itertools.pairwise(points) if rows <= b[0]),
            (points[-2], points[-1]),
        )
        return max(y0 + (y1 - y0) * (rows - x0) / (x1 - x0), points[0][1])

    def seconds(self, work: Work, stop_rate: float) -> float:
        """Seconds of a stage's work on this device."""
        decoding = sum(
            decode.batches * self._decoding(decode.rows, decode.budget, stop_rate)
            for decode in work.decodes
        )
        return (
            self.start
            + decoding
            + work.prefill_tokens * self.prefill_token
            + work.read_tokens * self.read_token
            + work.train_tokens * self.train_token
            + work.updates * self.update
            + work.score_tokens * self.score_token
            + work.prior_tokens * self.prior_token
            + work.reward_tokens * self.reward_token
            + work.reward_updates * self.reward_update
            + work.loads * self.load
            + work.reward_loads * self.reward_load
        )

    def _decoding(self, rows: int, budget: int, stop_rate: float) -> float:
        """Seconds of one batch; the responses that have ended leave it. The first token comes from
        reading the prompts."""
        total, stride = 0.0, max(1, budget // 200)
        for step in range(1, budget, stride):
            alive = rows * (1 - stop_rate) ** step
            if alive < 0.5:
                break
            total += min(stride, budget - step) * self.step(max(alive, 1.0))
        return total


def from_calibration(
    measured: Mapping[str, Any], *, lora: bool, clock: str = "seconds"
) -> Speeds | None:
    """The speeds that the stage `calibrate` has measured (its `result.json`); None if it lacks one.

    `clock`: "seconds", or "cpu_seconds" to compare with a process's processor time.
    """
    costs: Mapping[str, Mapping[str, float]] = measured.get("costs", {})
    sampled = measured.get("sampled", {})

    def cost(*names: str) -> float:
        return next(float(costs[name][clock]) for name in names if name in costs)

    names = ("lora", "full") if lora else ("full", "reward")
    try:
        read = cost("read_token")
        tokens, ended = float(sampled["tokens"]), float(sampled["ended"])
        # The first load imports the architecture's code, which every process does once; a reward
        # model loads its trunk and its prior, two models of this size.
        first = cost("load")
        again = min(first, cost("reward_load") / 2) if "reward_load" in costs else first
        # A reward model that does not fit was not measured: three passes for one, by arithmetic.
        return Speeds(
            steps=_points(measured["decoding"], clock),
            prefill_token=cost("prefill_token"),
            read_token=read,
            train_token=cost(*(f"{name}_token" for name in names)),
            update=cost(*(f"{name}_update" for name in names)),
            score_token=cost("score_token", "read_token"),
            prior_token=cost("prior_token", "read_token"),
            reward_token=cost("reward_token") if "reward_token" in costs else 3 * read,
            reward_update=cost("reward_update") if "reward_update" in costs else 0.0,
            start=cost("start") + first - again,
            load=again,
            reward_load=2 * again,
            prompt_tokens=float(sampled["prompt_tokens"]),
            stop_rates=stop_rates(ended, tokens),
            spread=CALIBRATED_SPREAD,
            basis="measured in seconds on this device with this model",
            shares_prompts=bool(measured.get("shares_prompts")),
        )
    except (KeyError, StopIteration, TypeError, ValueError, IndexError):
        return None


def _points(decoding: Sequence[Mapping[str, float]], clock: str) -> tuple[tuple[float, float], ...]:
    points = sorted((float(point["rows"]), float(point[clock])) for point in decoding)
    if not points:
        raise ValueError("no decoding was measured")
    return tuple(points)


def stop_rates(ended: float, tokens: float) -> tuple[float, float, float]:
    """Low, likely and high share of tokens after which a response ends, when so many of so many were
    seen: a Poisson rate with an interval of about 90 % (of the square root; Anscombe 1948)."""
    tokens = max(tokens, 1.0)
    low, high = max(0.0, math.sqrt(ended) - 0.82), math.sqrt(ended + 0.375) + 0.82
    return low * low / tokens, min(ended / tokens, 1.0), min(high * high / tokens, 1.0)


def rough(
    shape: ModelShape | None, *, kind: str, device: str, threads: int, lora: bool, budget: int
) -> Speeds:
    """Speeds by arithmetic: 2 N operations to read a token, 6 N to train on it (4 N with LoRA)."""
    parameters = float(shape.n_parameters) if shape and shape.n_parameters else UNKNOWN_PARAMETERS
    unknown = "" if shape and shape.n_parameters else " (the model's size is not known yet)"
    layers = shape.layers if shape and shape.layers else 24
    if kind == "cuda":
        peak, bandwidth = next((v for name, v in GPUS.items() if name in device), OTHER_GPU)
        width = 2
        where = f"{device}, {peak / 1e12:.0f} TFLOP/s"
    else:
        peak, bandwidth, width = CPU_OPERATIONS * max(threads, 1), CPU_BANDWIDTH, 4
        where = f"{max(threads, 1)} CPU threads, {peak / 1e9:.0f} GFLOP/s"
    token = 2 * parameters / (peak * UTILIZATION)
    least = max(width * parameters / bandwidth, layers * STEP_OVERHEAD)
    update = layers * PASS_OVERHEAD
    stop = 1.0 / max(budget, 2)  # about two of three responses end within their budget
    return Speeds(
        steps=((1.0, least + token), (1001.0, least + 1001 * token)),
        prefill_token=token,
        read_token=token,
        train_token=(2 if lora else 3) * token,
        update=update if lora else update + 16 * parameters / bandwidth,
        score_token=token,
        prior_token=token,
        reward_token=3 * token,
        reward_update=update + 16 * parameters / bandwidth,
        start=START_SECONDS,
        load=4 * parameters / LOAD_BANDWIDTH,
        reward_load=8 * parameters / LOAD_BANDWIDTH,
        prompt_tokens=80.0,
        stop_rates=(stop / 4, stop, stop * 4),
        spread=ROUGH_SPREAD,
        basis=(
            f"rough: 6 N D operations for {parameters / 1e6:,.3g} million parameters{unknown} at "
            f"{UTILIZATION:.0%} of {where}"
        ),
    )
