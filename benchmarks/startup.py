"""How long a stage takes from its process's start to the end of its first step.

    python -m benchmarks.startup [--stages ppo reward_model base sft dpo] [--repetitions 5]

For comparison, in the same run and alternating: a process that only imports torch and transformers,
and a process that imports the policy's class too, which every trainer built on transformers needs.
The policy is a random Llama of 0.2 M parameters, so that loading it and a step take little time.
Seconds, median of the repetitions (least to most).
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WORDS = [
    "please",
    "tell",
    "me",
    "something",
    "nice",
    "about",
    "my",
    "old",
    "red",
    "lamp",
    "and",
    "your",
    "blue",
    "chair",
]


def prepare(work: Path) -> dict[str, Path]:
    """A run folder for every stage, with an untrained policy and an untrained reward model."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from rlhf.training.reward_models.folder import save_reward_model
    from rlhf.training.reward_models.model import RewardModel
    from rlhf.training.rundir.files import write_json, write_jsonl
    from rlhf.training.word_tokenizer import build_tokenizer

    torch.manual_seed(0)
    tokenizer = build_tokenizer(WORDS, max_length=256)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    policy = str(work / "policy")
    LlamaForCausalLM(config).save_pretrained(policy)
    tokenizer.save_pretrained(policy)
    axes = ("helpfulness", "safety")
    scorer = RewardModel.new(policy, axes, use_prior=True, max_length=256, device="cpu")
    scorer.features.fit(torch.randn(8, 3))
    save_reward_model(
        scorer, work / "scorer"
    )  # apart from the run folder of the stage reward_model
    prompts = [
        {
            "prompt_id": f"p{i}",
            "messages": [{"role": "user", "content": " ".join(WORDS[i : i + 4])}],
            "category": "any",
            "risk": "harmless",
        }
        for i in range(8)
    ]
    answered = [p | {"response": "nice red lamp"} for p in prompts]
    ranked = [
        p
        | {
            "judgment_id": p["prompt_id"],
            "annotator": "simulated/a",
            "round": "1",
            "responses": ["nice red lamp", "my old chair"],
            "ranks": {axis: [1, 2] for axis in axes},
            "weight": 1.0,
        }
        for p in prompts
    ]
    phases = [a | {"phase": phase} for a in answered for phase in ("clean", "mix")]
    ppo = {
        "policy": policy,
        "reference": policy,
        "reward_model": str(work / "scorer"),
        "steps": 1,
        "prompts_per_step": 8,
        "minibatch_size": 8,
        "max_new_tokens": 8,
        "long_prompts": "refuse",
    }
    small = {"layers": 2, "hidden_size": 96, "intermediate_size": 192, "batch_size": 8}
    stages: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "ppo": (ppo, {"prompts": prompts}),
        "reward_model": (
            {"trunk": policy, "epochs": 1},
            {"preferences": ranked, "reference": [a | {"text": a["response"]} for a in answered]},
        ),
        "base": (small | {"clean_steps": 1, "mix_steps": 1}, {"corpus": phases}),
        "sft": ({"policy": policy}, {"demonstrations": answered}),
        "dpo": ({"policy": policy}, {"preferences": ranked}),
    }
    for stage, (settings, data) in stages.items():
        folder = work / stage
        (folder / "data").mkdir(parents=True)
        write_json(folder / "config.json", settings)
        for name, rows in data.items():
            write_jsonl(folder / "data" / f"{name}.jsonl", rows)
    return {stage: work / stage for stage in stages}


def timed(command: list[str]) -> tuple[float, float]:
    """The times of the process's start and end."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    began = time.time()
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stderr)
    return began, time.time()


def first_step(stage: str, folder: Path, work: Path) -> float:
    """Seconds from the start of a fresh run to the end of its first step."""
    fresh = Path(shutil.copytree(folder, work / "fresh"))
    began, _ = timed(["-m", f"rlhf.training.{stage}", str(fresh)])
    with (fresh / "metrics.jsonl").open(encoding="utf-8") as lines:
        seconds = float(json.loads(lines.readline())["time"]) - began
    shutil.rmtree(fresh)
    return seconds


def bare(code: str) -> float:
    """Seconds of a process that runs only this code."""
    began, ended = timed(["-c", code])
    return ended - began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument(
        "--stages", nargs="+", default=["ppo", "reward_model", "base", "sft", "dpo"]
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        folders = prepare(work)
        for stage in given.stages:  # so that files are in memory, and compiled
            first_step(stage, folders[stage], work)
        seconds: dict[str, list[float]] = {}
        for _ in range(given.repetitions):
            measured: list[tuple[str, float]] = [
                ("import torch, transformers", bare("import torch, transformers")),
                ("… and the policy's class", bare("from transformers import LlamaForCausalLM")),
                *(
                    (f"{stage}, first step done", first_step(stage, folders[stage], work))
                    for stage in given.stages
                ),
            ]
            for name, measurement in measured:
                seconds.setdefault(name, []).append(measurement)
    for name, values in seconds.items():
        print(f"{name:30} {statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    main()
