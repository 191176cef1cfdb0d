"""How long a PPO run takes from its process's start to the end of its first step.

    python -m benchmarks.startup

Beside it, in the same run and alternating: a process that only imports torch and transformers, and
one that imports the policy's class as well, which is the least that a trainer built on transformers
takes. The policy is a random Llama of 0.2 M parameters, so that models and step cost next to
nothing. Seconds, median of the repetitions (least to most).
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


def prepare(work: Path) -> Path:
    """A run folder with a policy and a reward model that know nothing."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from rlhf.training.rundir import write_json, write_jsonl
    from rlhf.training.scorers import RewardModel
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
    scorer.fit_features(torch.randn(8, 3))
    scorer.save(work / "reward_model")
    folder = work / "run"
    (folder / "data").mkdir(parents=True)
    prompts = [
        {
            "prompt_id": f"p{i}",
            "messages": [{"role": "user", "content": " ".join(WORDS[i : i + 4])}],
            "category": "any",
            "risk": "harmless",
        }
        for i in range(8)
    ]
    write_jsonl(folder / "data" / "prompts.jsonl", prompts)
    settings = {
        "policy": policy,
        "reference": policy,
        "reward_model": str(work / "reward_model"),
        "steps": 1,
        "prompts_per_step": 8,
        "minibatch_size": 8,
        "max_new_tokens": 8,
        "long_prompts": "refuse",
    }
    write_json(folder / "config.json", settings)
    return folder


def timed(command: list[str]) -> tuple[float, float]:
    """When the process was started, and when it had ended."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    began = time.time()
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stderr)
    return began, time.time()


def first_step(folder: Path, work: Path) -> float:
    """Seconds from the start of a fresh run to the end of its first step."""
    fresh = Path(shutil.copytree(folder, work / "fresh"))
    began, _ = timed(["-m", "rlhf.training.ppo", str(fresh)])
    with (fresh / "metrics.jsonl").open(encoding="utf-8") as lines:
        seconds = float(json.loads(lines.readline())["time"]) - began
    shutil.rmtree(fresh)
    return seconds


def bare(code: str) -> float:
    began, ended = timed(["-c", code])
    return ended - began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repetitions", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        folder = prepare(work)
        first_step(folder, work)  # so that files are in memory, and compiled
        seconds: dict[str, list[float]] = {}
        for _ in range(given.repetitions):
            for what, took in (
                ("import torch, transformers", bare("import torch, transformers")),
                ("… and the policy's class", bare("from transformers import LlamaForCausalLM")),
                ("PPO, first step done", first_step(folder, work)),
            ):
                seconds.setdefault(what, []).append(took)
    for what, took in seconds.items():
        print(f"{what:30} {statistics.median(took):.2f} ({min(took):.2f} to {max(took):.2f})")


if __name__ == "__main__":
    main()
