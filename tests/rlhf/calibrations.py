"""What a worker reports of its machine, and a measurement of a small model on it."""

import copy

from rlhf.models import Calibration
from rlhf.training.model_files import model_key

MACHINE = {
    "device": "A small CPU, 2 threads",
    "kind": "cpu",
    "threads": 2,
    "memory": 16 * 2**30,
    "memory_free": 12 * 2**30,
    "ram_free": 12 * 2**30,
    "disk_free": 100 * 2**30,
    "versions": "torch 2.13.0, transformers 5.24.0",
}


def cost(seconds, peak_bytes=0):
    return {"seconds": seconds, "cpu_seconds": seconds, "peak_bytes": peak_bytes}


FIGURES = {
    "device": MACHINE["device"],
    "kind": "cpu",
    "versions": MACHINE["versions"],
    "dtype": "float32",
    "model_key": "",
    "model": {
        "n_parameters": 135_000_000,
        "n_bytes": 540_000_000,
        "layers": 30,
        "hidden": 576,
        "vocabulary": 49_152,
        "context": 8192,
        "cache_width": 384,
        "has_template": True,
    },
    "sampled": {
        "prompt_tokens": 50.0,
        "longest_prompt": 120,
        "tokens": 1000,
        "ended": 10,
        "responses": 16,
    },
    "decoding": [
        {"rows": 4, "steps": 20, "seconds": 0.08, "cpu_seconds": 0.08, "bytes_per_row": 0},
        {"rows": 16, "steps": 20, "seconds": 0.16, "cpu_seconds": 0.16, "bytes_per_row": 0},
        {"rows": 64, "steps": 8, "seconds": 0.4, "cpu_seconds": 0.4, "bytes_per_row": 0},
    ],
    "shares_prompts": True,
    "costs": {
        "start": cost(6.0),
        "load": cost(3.0),
        "prefill_token": cost(0.003),
        "read_token": cost(0.004),
        "lora_token": cost(0.01, 3_000_000),
        "lora_update": cost(0.02),
        "full_token": cost(0.012, 3_500_000),
        "full_update": cost(0.2),
        "reward_load": cost(4.0),
        "prior_token": cost(0.004),
        "score_token": cost(0.003),
        "reward_token": cost(0.01, 2_500_000),
        "reward_update": cost(0.2),
    },
    "process_bytes": 400 * 2**20,
    "seconds": 30.0,
}
"""A result of the stage `calibrate`, in round numbers."""


def calibrated(policy):
    """A measurement of a policy on MACHINE."""
    calibration, _ = Calibration.objects.update_or_create(
        model_key=model_key(policy.path),
        device=MACHINE["device"],
        dtype="float32",
        defaults={"versions": MACHINE["versions"], "figures": copy.deepcopy(FIGURES)},
    )
    return calibration
