"""Our PPO beside TRL 1.12's, the last that TRL had: speed by phase, peak memory, reward curves.

    pip download trl==1.12.0 --no-deps -d wheels && unzip -q wheels/trl-*.whl -d trl112
    python -m benchmarks.ppo_vs_trl --trl trl112 --seeds 5 --steps 8 --out figures.json

Both get the same policy (about 1 M parameters), the same reward model, prompts, response length,
epochs, minibatches, temperature and float32; each run is a process of its own, and the two take
turns. `--trl` is the folder that the wheel was unpacked into: it is put first on the path of TRL's
process and never becomes a dependency. Without `--policy` a small base is trained first (half a
minute). The reward model is a linear head on the policy's trunk, fitted to the small world's gold
rubric, in our format and as a sequence classifier, so that both read the same numbers
(`ppo_inputs.py`).

On a GPU, with random weights of a real size, which say nothing about learning:

    python -m benchmarks.ppo_vs_trl --trl trl112 --random 0.5B --device cuda --dtype bfloat16 \\
        --prompt-tokens 256 --response-tokens 256 --batch 512 --minibatches 8 --epochs 1 \\
        --microbatch 32 --seeds 2 --steps 4 --learning-rate 3e-6 --work gpu --out gpu.json

Beside the phases' shares it then holds decoding and training against what the device gives
(`limits.py`). TRL keeps the scores of a whole rollout over the vocabulary in float32 (here 80 GB) and
reads a minibatch in one pass with the head on all of it: where it runs out of memory that is said
and ours goes on alone; `--vocab 32768` leaves it room.

What can't be made equal, and is said here: TRL subtracts a penalty from the score of an answer
without an end, we replace the score (the curves show the replaced score for both); TRL's critic is
a second model that starts from the reward model, ours a head on the policy's hidden states (with
`--critic model` ours is a second model too); TRL does not clip gradients although its settings say
so. TRL's gradient checkpointing, on by default, is switched off, since it would slow it down. In
bfloat16 both train float32 weights by bfloat16 products and hold frozen models in bfloat16; TRL would
generate from the float32 weights, so its generation is put under autocast too. Ours decodes the
whole batch at once, TRL generates in parts of `--microbatch`, which is one setting there.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.limits import Machine, Shape, Work, decode_seconds, measure, training_flops
from benchmarks.ppo_inputs import SIZES, policy_of, prepare

ROOT = Path(__file__).resolve().parents[1]
Row = dict[str, Any]

PENALTY = -1.0
"""Score of a response that does not end (LHP)."""
LOOK_SECONDS = 1.0
"""How often memory is looked at: a look walks through all pages, which holds the process up."""
WARM = 1
"""First steps that the figures of speed leave out: caches are cold."""


def main() -> None:
    arguments = parse()
    if arguments.child:
        CHILDREN[arguments.child](arguments)
        return
    arguments.work.mkdir(parents=True, exist_ok=True)
    child(arguments, "prepare")
    told = child(arguments, "machine")
    machine = Machine(told["bytes_per_second"], told["flops"])
    sides = ["ours"] if arguments.only_ours else ["ours", "trl"]
    baselines = {side: child(arguments, f"imports_{side}") for side in sides}
    runs: dict[str, list[Row]] = {"ours": [], "trl": []}
    for seed in range(arguments.seeds):
        # Who begins changes, so that a machine that warms up favours nobody.
        for side in list(sides if seed % 2 == 0 else reversed(sides)):
            run = child(arguments, side, seed=seed)
            if run.get("out_of_memory"):
                print(f"{side:>4} seed {seed}: out of memory; it is left out from here on")
                sides.remove(side)
                continue
            run["peak_mb_above_imports"] = run["peak_mb"] - baselines[side]["peak_mb"]
            run["cpu_seconds"] -= baselines[side]["cpu_seconds"]
            runs[side].append(run)
            print(line(side, seed, run, arguments.batch), flush=True)
    limits = {
        side: against_limits(arguments, side, done, machine) for side, done in runs.items() if done
    }
    report(runs, arguments)
    report_limits(limits, machine, arguments)
    figures = {
        "settings": settings_of(arguments),
        "imports": baselines,
        "machine": asdict(machine),
        "limits": limits,
        "runs": runs,
    }
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=1))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--trl", type=Path, help="folder that trl-1.12.0's wheel was unpacked into")
    parser.add_argument("--policy", default="", help="a model folder; empty: a small base is built")
    parser.add_argument(
        "--prompts", type=Path, help="JSON Lines of prompts, with --policy; reward: a random head"
    )
    parser.add_argument("--random", default="", help="random weights: " + ", ".join(SIZES))
    for name in ("hidden", "layers", "heads", "vocab"):
        parser.add_argument(f"--{name}", type=int, default=0, help="another one than --random's")
    parser.add_argument(
        "--prompt-tokens", type=int, default=0, help="of every prompt (with --random; default 64)"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="rollouts of each run")
    parser.add_argument("--batch", type=int, default=64, help="responses per rollout")
    parser.add_argument("--minibatches", type=int, default=4, help="per epoch")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--microbatch", type=int, default=0, help="per forward pass; 0: --batch")
    parser.add_argument("--response-tokens", type=int, default=48, help="the longest response")
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--kl-weight", type=float, default=0.05)
    parser.add_argument("--critic", default="head", help="ours: head, model")
    parser.add_argument("--lora-rank", type=int, default=0, help="of both; 0: all weights")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only-ours", action="store_true")
    parser.add_argument("--work", type=Path, default=Path("ppo_vs_trl"), help="scratch folder")
    parser.add_argument("--out", type=Path, help="figures as JSON")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.trl and not arguments.only_ours:
        parser.error("--trl is needed: the folder that trl-1.12.0's wheel was unpacked into")
    if arguments.batch % arguments.minibatches:
        parser.error("--minibatches must divide --batch")
    sized = [n for n in ("hidden", "layers", "heads", "vocab") if getattr(arguments, n)]
    if (sized or arguments.prompt_tokens) and not arguments.random:
        parser.error(f"--{(sized or ['prompt-tokens'])[0]} belongs to --random")
    if arguments.prompts and not arguments.policy:
        parser.error("--prompts belongs to --policy")
    if arguments.random:
        if arguments.policy or arguments.random not in SIZES:
            parser.error(f"--random is one of {', '.join(SIZES)}, in place of --policy")
        arguments.prompt_tokens = arguments.prompt_tokens or 64
        if arguments.prompt_tokens < 8:
            parser.error("--prompt-tokens must be 8 or more: the template takes some")
    arguments.microbatch = arguments.microbatch or arguments.batch
    return arguments


def settings_of(arguments: argparse.Namespace) -> Row:
    left_out = ("trl", "work", "out", "child", "seed")
    return {name: value for name, value in vars(arguments).items() if name not in left_out}


def child(arguments: argparse.Namespace, name: str, *, seed: int = 0) -> Row:
    """Run one of `CHILDREN` as a process of its own; returns what it wrote, its peak and time."""
    out = arguments.work / f"{name}-{seed}.json"
    out.unlink(missing_ok=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    environment |= {"OMP_NUM_THREADS": str(arguments.threads), "HF_HUB_OFFLINE": "1"}
    environment |= {"PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-m", "benchmarks.ppo_vs_trl", *sys.argv[1:]]
    command += ["--child", name, "--seed", str(seed)]
    if name == "ours":  # the stage as the worker starts it
        folder = run_folder(arguments, seed)
        command = [sys.executable, "-m", "rlhf.training.ppo", str(folder)]
        environment["GOMP_SPINCOUNT"] = "1000"  # what config/settings.py gives the stages
    gpu = arguments.device.startswith("cuda")
    before = gpu_memory(arguments.device) if gpu else 0.0
    began, worked = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    peak = 0.0
    with (arguments.work / f"{name}-{seed}.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        while process.poll() is None:
            if gpu:
                peak = max(peak, gpu_memory(arguments.device) - before)
            else:
                peak = max(peak, memory_of(process.pid))
            time.sleep(LOOK_SECONDS)
    if (
        process.returncode
        and name in ("ours", "trl")
        and is_out_of_memory(arguments.work / f"{name}-{seed}.log")
    ):
        return {"out_of_memory": True}
    if process.returncode:
        sys.exit(f"{name} failed; see {arguments.work / f'{name}-{seed}.log'}")
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = ended.ru_utime + ended.ru_stime - worked.ru_utime - worked.ru_stime
    told = ours_told(folder, began) if name == "ours" else {}
    if out.exists():
        told = json.loads(out.read_text())
    return told | {"peak_mb": peak, "wall_seconds": time.time() - began, "cpu_seconds": cpu}


def memory_of(pid: int) -> float:
    """MB that a process and those it forked hold; what several share is counted once (PSS)."""
    kilobytes = 0
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for one in (str(pid), *children):
            told = Path(f"/proc/{one}/smaps_rollup").read_text()
            kilobytes += int(told.split("\nPss:")[1].split()[0])
    except (OSError, IndexError):  # it has just ended
        return 0.0
    return kilobytes / 1024


def gpu_memory(device: str) -> float:
    """MB of the GPU that are in use, by whomever."""
    number = device.partition(":")[2] or "0"
    asked = ["nvidia-smi", "-i", number, "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    told = subprocess.run(asked, capture_output=True, text=True, check=True)
    return float(told.stdout.split()[0])


def is_out_of_memory(log: Path) -> bool:
    """Whether what a process said last is that."""
    end = log.read_text(errors="replace")[-3000:].lower()
    return "out of memory" in end or "outofmemory" in end or "can't allocate memory" in end


def machine(arguments: argparse.Namespace) -> None:
    """What the device gives at best."""
    import torch

    torch.set_num_threads(arguments.threads)
    tell(arguments, asdict(measure(arguments.device, arguments.dtype)))


def tell(arguments: argparse.Namespace, told: Row) -> None:
    path = arguments.work / f"{arguments.child}-{arguments.seed}.json"
    path.write_text(json.dumps(told))


# --- Ours ---------------------------------------------------------------------------------------


def run_folder(arguments: argparse.Namespace, seed: int) -> Path:
    """A new run folder of the ppo stage."""
    folder = arguments.work / f"run-{seed}-{time.time_ns()}"
    (folder / "data").mkdir(parents=True)
    (folder / "data/prompts.jsonl").write_text((arguments.work / "prompts.jsonl").read_text())
    policy = policy_of(arguments.work)
    config = {
        "policy": policy,
        "reference": policy,
        "reward_model": str(arguments.work.resolve() / "reward"),
        "steps": arguments.steps,
        "prompts_per_step": arguments.batch,
        "max_new_tokens": arguments.response_tokens,
        "epochs": arguments.epochs,
        "minibatch_size": arguments.batch // arguments.minibatches,
        "microbatch_size": arguments.microbatch,
        "decode_batch_size": arguments.batch,
        "learning_rate": arguments.learning_rate,
        "learning_rate_floor": 0.0,
        "lora_rank": arguments.lora_rank,
        "critic": arguments.critic,
        "lam": 0.95,
        "value_clip": 0.2,
        "kl_weight": arguments.kl_weight,
        "approx_kl_stop": 0.0,
        "no_eos_score": PENALTY,
        "score_clip": 0.0,
        "combine": "weights",
        "checkpoint_every": 10 * arguments.steps,
        "seed": seed,
        "threads": arguments.threads,
        "device": arguments.device,
        "dtype": arguments.dtype,
    }
    if arguments.critic == "model":
        config["value_learning_rate"] = arguments.learning_rate
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def ours_told(folder: Path, began: float) -> Row:
    rows = [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]
    phases = {
        phase: [row[f"seconds_{phase}"] for row in rows] for phase in ("generate", "score", "train")
    }
    first = rows[0]["time"] - sum(seconds[0] for seconds in phases.values())
    return {
        "rewards": [row["reward"] for row in rows],
        "kl": [row["kl"] for row in rows],
        "length": [row["length"] for row in rows],
        "finished": [row["finished_fraction"] for row in rows],
        "samples": len(rows) and [row["samples_per_second"] for row in rows],
        "phases": phases,
        "seconds": [sum(parts) for parts in zip(*phases.values(), strict=True)],
        "startup_seconds": first - began,
    }


def imports_ours(arguments: argparse.Namespace) -> None:
    """Only what the stage imports, for the memory that is there before it begins."""
    from transformers import AutoTokenizer, LlamaForCausalLM

    import rlhf.training.ppo

    names = [rlhf.training.ppo.__name__, str(AutoTokenizer), str(LlamaForCausalLM)]
    tell(arguments, {"names": names})
    time.sleep(2 * LOOK_SECONDS)  # to be looked at


# --- TRL's --------------------------------------------------------------------------------------


def import_trl(arguments: argparse.Namespace) -> Any:
    sys.path.insert(0, str(arguments.trl.resolve()))
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    import trl

    assert trl.__version__ == "1.12.0", trl.__version__
    from trl.experimental.ppo import ppo_trainer  # noqa: TID251 - this is what is measured

    return ppo_trainer


def imports_trl(arguments: argparse.Namespace) -> None:
    trainer = import_trl(arguments)
    from transformers import AutoTokenizer, LlamaForCausalLM

    tell(arguments, {"names": [trainer.__name__, str(AutoTokenizer), str(LlamaForCausalLM)]})
    time.sleep(2 * LOOK_SECONDS)


def trl(arguments: argparse.Namespace) -> None:
    """TRL's trainer as its own example uses it; clocks are put around the functions it calls."""
    began = time.time()
    module = import_trl(arguments)
    import datasets
    import torch
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        TrainerCallback,
    )

    from rlhf.training.language_models import conversations, devices

    gpu, half = arguments.device.startswith("cuda"), arguments.dtype == "bfloat16"
    if gpu:
        torch.cuda.set_device(torch.device(arguments.device).index or 0)
    frozen = torch.bfloat16 if half else torch.float32
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    import numpy as np

    np.random.seed(arguments.seed)
    folder = policy_of(arguments.work)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = [json.loads(t) for t in (arguments.work / "prompts.jsonl").read_text().splitlines()]
    ids = [
        conversations.encode(tokenizer, conversations.render(tokenizer, row["messages"]))
        for row in rows
    ]
    config = module.PPOConfig(
        output_dir=str(arguments.work / "trl"),
        per_device_train_batch_size=arguments.batch,
        gradient_accumulation_steps=1,
        num_mini_batches=arguments.minibatches,
        total_episodes=arguments.steps * arguments.batch,
        num_ppo_epochs=arguments.epochs,
        response_length=arguments.response_tokens,
        local_rollout_forward_batch_size=min(arguments.microbatch, arguments.batch),
        temperature=1.0,
        stop_token="eos",
        missing_eos_penalty=-PENALTY,
        kl_coef=arguments.kl_weight,
        learning_rate=arguments.learning_rate,
        adam_epsilon=1e-5,
        num_sample_generations=0,
        gradient_checkpointing=False,
        bf16=half,
        use_cpu=not gpu,
        report_to=[],
        save_strategy="no",
        logging_strategy="steps",
        seed=arguments.seed,
        disable_tqdm=True,
    )
    lora = None
    if arguments.lora_rank:
        from peft import LoraConfig

        # What ours has by default.
        lora = LoraConfig(
            r=arguments.lora_rank, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"
        )
    classifier = str(arguments.work / "classifier")
    classify = AutoModelForSequenceClassification.from_pretrained
    trainer = module.PPOTrainer(
        args=config,
        processing_class=tokenizer,
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        ref_model=None if lora else AutoModelForCausalLM.from_pretrained(folder, dtype=frozen),
        reward_model=classify(classifier, num_labels=1, dtype=frozen),
        value_model=classify(classifier, num_labels=1, dtype=torch.float32),
        train_dataset=datasets.Dataset.from_dict({"input_ids": ids}),
        peft_config=lora,
    )

    # Clocks: rollouts begin with `batch_generation`, training with the first pass of the wrapper.
    clock: Row = {"marks": [], "rewards": [], "finished": [], "length": []}
    generation, forward, reward = module.batch_generation, module.forward, module.get_reward
    updates = [0]
    scores: list[Any] = []  # of the parts of a rollout

    def now() -> float:
        if gpu:  # what was asked for is done
            torch.cuda.synchronize()
        return time.time()

    def timed_generation(*args: Any, **kwargs: Any) -> Any:
        start = now()
        with devices.autocast(torch.device(arguments.device), frozen):
            result = generation(*args, **kwargs)
        clock["marks"].append({"begin": start, "generated": now(), "train": None, "end": None})
        return result

    def timed_forward(model: Any, *args: Any, **kwargs: Any) -> Any:
        if model is trainer.model and clock["marks"][-1]["train"] is None:
            clock["marks"][-1]["train"] = now()
            score, ended, lengths = (torch.cat(told) for told in zip(*scores, strict=True))
            scores.clear()
            clock["rewards"].append(float(score.mean()))
            clock["finished"].append(float(ended.float().mean()))
            clock["length"].append(float(lengths.float().mean()))
        return forward(model, *args, **kwargs)

    def seen_reward(model: Any, ids: Any, pad: int, context: int) -> Any:
        result = reward(model, ids, pad, context)
        if model is trainer.reward_model:
            answers = ids[:, context:]
            ended = (answers == tokenizer.eos_token_id).any(dim=1)
            score = result[1].float().masked_fill(~ended, PENALTY)
            scores.append((score, ended, (answers != pad).sum(dim=1)))
        return result

    class EndOfStep(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            clock["marks"][-1]["end"] = now()

    optimizer_step = trainer.optimizer.step

    def counted_step(*args: Any, **kwargs: Any) -> Any:
        updates[0] += 1
        return optimizer_step(*args, **kwargs)

    trainer.optimizer.step = counted_step
    module.batch_generation, module.forward = timed_generation, timed_forward
    module.get_reward = seen_reward
    trainer.add_callback(EndOfStep())
    logged: list[Row] = []
    trainer.log = logged.append  # type: ignore[method-assign]
    trainer.train()
    expected = arguments.steps * arguments.epochs * arguments.minibatches
    assert updates[0] == expected, (updates, expected)  # the fault of trl#2531 is not met here
    marks = clock["marks"]
    tell(
        arguments,
        {
            "rewards": clock["rewards"],
            "finished": clock["finished"],
            "length": clock["length"],
            "kl": [row["objective/kl"] for row in logged],
            "phases": {
                "generate": [m["generated"] - m["begin"] for m in marks],
                "score": [m["train"] - m["generated"] for m in marks],
                "train": [m["end"] - m["train"] for m in marks],
            },
            "seconds": [m["end"] - m["begin"] for m in marks],
            "startup_seconds": marks[0]["begin"] - began,
        },
    )


# --- The report ---------------------------------------------------------------------------------


def after_warming(steps: list[float]) -> list[float]:
    """What is left without the first steps; all, where there are no others."""
    return steps[WARM:] or steps


def speed(run: Row, batch: int) -> float:
    """Samples per second after the first steps."""
    seconds = after_warming(run["seconds"])
    return batch * len(seconds) / sum(seconds)


def best_speed(run: Row, batch: int) -> float:
    """That of the fastest step: what is left when another process takes its share of the cores."""
    return batch / min(after_warming(run["seconds"]))


def line(side: str, seed: int, run: Row, batch: int) -> str:
    phases = ", ".join(
        f"{name} {statistics.mean(after_warming(seconds)):.3f} s"
        for name, seconds in run["phases"].items()
    )
    return (
        f"{side:>4} seed {seed}: {speed(run, batch):6.1f} samples/s ({phases}); peak "
        f"{run['peak_mb_above_imports']:.0f} MB above imports, {run['peak_mb']:.0f} MB in all; "
        f"{run['cpu_seconds']:.0f} s of processor above imports; "
        f"start-up {run['startup_seconds']:.1f} s; reward {run['rewards'][0]:+.2f} to "
        f"{run['rewards'][-1]:+.2f}, KL {run['kl'][-1]:.2f}"
    )


def interval(values: list[float]) -> tuple[float, float, float]:
    """Mean and its 95 % interval (Student's t, small samples)."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return mean, mean, mean
    quantile = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31}
    half = quantile.get(len(values), 2.2) * statistics.stdev(values) / len(values) ** 0.5
    return mean, mean - half, mean + half


def against_limits(
    arguments: argparse.Namespace, side: str, done: list[Row], machine: Machine
) -> Row:
    """Shares of the phases, and decoding and training beside what the machine gives; over all runs,
    after the first steps."""
    ready = json.loads((arguments.work / "ready.json").read_text())
    shape = Shape(**ready["shape"])
    seconds = {
        phase: statistics.mean(s for run in done for s in after_warming(run["phases"][phase]))
        for phase in ("generate", "score", "train")
    }
    ours = side == "ours"
    work = Work(
        responses=arguments.batch,
        prompt=ready["prompt_tokens"],
        response=statistics.mean(n for run in done for n in run["length"]),
        longest=arguments.response_tokens,
        decode_batch=arguments.batch if ours else arguments.microbatch,
        epochs=arguments.epochs,
        width=2 if arguments.dtype == "bfloat16" else 4,
    )
    tokens = work.responses * work.response
    flops = training_flops(
        shape,
        work,
        second_trunk=not ours or arguments.critic == "model",
        frozen=ours and arguments.lora_rank > 0,
    )
    return {
        "shares": {phase: part / sum(seconds.values()) for phase, part in seconds.items()},
        "response_tokens": work.response,
        "decode_tokens_per_second": tokens / seconds["generate"],
        "decode_limit": tokens / decode_seconds(shape, work, machine),
        "training_flops": flops / seconds["train"],
        "training_limit": machine.flops,
    }


def report_limits(limits: dict[str, Row], machine: Machine, arguments: argparse.Namespace) -> None:
    print(
        f"\n{arguments.device} in {arguments.dtype}: a copy moves {machine.bytes_per_second / 1e9:.1f} "
        f"GB/s, a matrix product makes {machine.flops / 1e12:.3g} TFLOP/s"
    )
    for side, told in limits.items():
        shares = ", ".join(f"{phase} {share:.0%}" for phase, share in told["shares"].items())
        decoded, most = told["decode_tokens_per_second"], told["decode_limit"]
        trained, product = told["training_flops"], told["training_limit"]
        print(
            f"{side}: {shares} of the time; decoding {decoded:,.0f} tokens/s, {decoded / most:.1%} of "
            f"what reading weights and cache allows ({most:,.0f}); training {trained / 1e12:.3g} "
            f"TFLOP/s, {trained / product:.1%} of the product's"
        )


def report(runs: dict[str, list[Row]], arguments: argparse.Namespace) -> None:
    batch = arguments.batch
    print()
    for side, done in runs.items():
        if done:
            rates = [speed(run, batch) for run in done]
            above = [run["peak_mb_above_imports"] for run in done]
            print(
                f"{side}: {statistics.median(rates):.1f} samples/s (median of {len(done)}; "
                f"{min(rates):.1f} to {max(rates):.1f}; fastest step "
                f"{max(best_speed(run, batch) for run in done):.1f}), peak {statistics.median(above):.0f} MB above "
                f"imports, {statistics.median(r['peak_mb'] for r in done):.0f} MB in all"
            )
    if not runs["trl"] or len(runs["trl"]) != len(runs["ours"]):
        return
    ratios = [
        speed(a, batch) / speed(b, batch) for a, b in zip(runs["ours"], runs["trl"], strict=True)
    ]
    memory = [
        a["peak_mb_above_imports"] / b["peak_mb_above_imports"]
        for a, b in zip(runs["ours"], runs["trl"], strict=True)
    ]
    work = [
        b["cpu_seconds"] / a["cpu_seconds"] for a, b in zip(runs["ours"], runs["trl"], strict=True)
    ]
    whole = [a["peak_mb"] / b["peak_mb"] for a, b in zip(runs["ours"], runs["trl"], strict=True)]
    best = {side: max(best_speed(run, batch) for run in done) for side, done in runs.items()}
    print(
        f"ours / TRL: {statistics.median(ratios):.2f} times the samples per second "
        f"({best['ours'] / best['trl']:.2f} in each one's fastest step),"
    )
    print(
        f"            {statistics.median(memory):.2f} of the peak memory above imports, "
        f"{statistics.median(whole):.2f} of all"
    )
    print(f"            {statistics.median(work):.2f} times as much done in a second of processor")
    print("\nreward at equal samples (mean over seeds [95 % interval]), apart where no overlap:")
    for step in range(arguments.steps):
        ours = interval([run["rewards"][step] for run in runs["ours"]])
        theirs = interval([run["rewards"][step] for run in runs["trl"]])
        apart = ours[1] > theirs[2] or theirs[1] > ours[2]
        print(
            f"{(step + 1) * batch:>7} samples   ours {ours[0]:+.3f} [{ours[1]:+.3f}, {ours[2]:+.3f}]"
            f"   TRL {theirs[0]:+.3f} [{theirs[1]:+.3f}, {theirs[2]:+.3f}]{'   apart' * apart}"
        )


CHILDREN = {
    "prepare": prepare,
    "machine": machine,
    "imports_ours": imports_ours,
    "imports_trl": imports_trl,
    "trl": trl,
}

if __name__ == "__main__":
    main()
