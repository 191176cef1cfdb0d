"""Our PPO beside TRL 1.12's, the last that TRL had: speed by phase, peak memory, reward curves.

    pip download trl==1.12.0 --no-deps -d wheels && unzip -q wheels/trl-*.whl -d trl112
    python -m benchmarks.ppo_vs_trl --trl trl112 --seeds 5 --steps 8 --out figures.json

Both get the same policy (about 1 M parameters), the same reward model, prompts, response length,
epochs, minibatches, temperature and float32; each run is a process of its own, and the two take
turns. `--trl` is the folder that the wheel was unpacked into: it is put first on the path of TRL's
process and never becomes a dependency. Without `--policy` a small base is trained first (half a
minute). The reward model is a linear head on the policy's trunk, fitted to the small world's gold
rubric, in our format and as a sequence classifier, so that both read the same numbers.

What can't be made equal, and is said here: TRL subtracts a penalty from the score of an answer
without an end, we replace the score (the curves show the replaced score for both); TRL's critic is
a second model that starts from the reward model, ours a head on the policy's hidden states (with
`--critic model` ours is a second model too); TRL does not clip gradients although its settings say
so. TRL's gradient checkpointing, on by default, is switched off, since it would slow it down.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

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
    sides = ("ours",) if arguments.only_ours else ("ours", "trl")
    baselines = {side: child(arguments, f"imports_{side}") for side in sides}
    runs: dict[str, list[Row]] = {"ours": [], "trl": []}
    for seed in range(arguments.seeds):
        # Who begins changes, so that a machine that warms up favours nobody.
        for side in ("ours", "trl") if seed % 2 == 0 else ("trl", "ours"):
            if side == "trl" and arguments.only_ours:
                continue
            run = child(arguments, side, seed=seed)
            run["peak_mb_above_imports"] = run["peak_mb"] - baselines[side]["peak_mb"]
            runs[side].append(run)
            print(line(side, seed, run), flush=True)
    figures = {"settings": settings_of(arguments), "imports": baselines, "runs": runs}
    report(runs)
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=1))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--trl", type=Path, help="folder that trl-1.12.0's wheel was unpacked into")
    parser.add_argument("--policy", default="", help="a model folder; empty: a small base is built")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="rollouts of each run")
    parser.add_argument("--batch", type=int, default=64, help="responses per rollout")
    parser.add_argument("--minibatches", type=int, default=4, help="per epoch")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=48, help="response length")
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--kl-weight", type=float, default=0.05)
    parser.add_argument("--critic", default="head", help="ours: head, model")
    parser.add_argument("--lora-rank", type=int, default=0, help="ours")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only-ours", action="store_true")
    parser.add_argument("--work", type=Path, default=Path("ppo_vs_trl"), help="scratch folder")
    parser.add_argument("--out", type=Path, help="figures as JSON")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.trl and not arguments.only_ours:
        parser.error("--trl is needed: the folder that trl-1.12.0's wheel was unpacked into")
    return arguments


def settings_of(arguments: argparse.Namespace) -> Row:
    names = ("steps", "batch", "minibatches", "epochs", "tokens", "learning_rate", "kl_weight")
    return {name: getattr(arguments, name) for name in (*names, "critic", "lora_rank", "threads")}


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
    began = time.time()
    peak = 0.0
    with (arguments.work / f"{name}-{seed}.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        while process.poll() is None:
            peak = max(peak, memory_of(process.pid))
            time.sleep(LOOK_SECONDS)
    if process.returncode:
        sys.exit(f"{name} failed; see {arguments.work / f'{name}-{seed}.log'}")
    told = ours_told(folder, began) if name == "ours" else {}
    if out.exists():
        told = json.loads(out.read_text())
    return told | {"peak_mb": peak, "wall_seconds": time.time() - began}


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


def tell(arguments: argparse.Namespace, told: Row) -> None:
    path = arguments.work / f"{arguments.child}-{arguments.seed}.json"
    path.write_text(json.dumps(told))


# --- What both are given ------------------------------------------------------------------------


def prepare(arguments: argparse.Namespace) -> None:
    """Policy, reward model in both formats, and prompts, once per scratch folder."""
    import torch

    from rlhf.training import loading, sampling
    from rlhf.training.rundir import StopRequest, write_jsonl
    from rlhf.training.scorers import RewardModel
    from rlhf.world import answers, rubric
    from rlhf.world.prompts import make_prompts

    work = arguments.work
    if (work / "ready").exists():
        return
    policy_folder = arguments.policy
    if not policy_folder:
        from rlhf.training import base

        folder = work / "base"
        (folder / "data").mkdir(parents=True, exist_ok=True)
        write_jsonl(folder / "data/corpus.jsonl", list(answers.corpus(0, 8000)))
        config = {"clean_steps": 150, "mix_steps": 100, "threads": arguments.threads}
        (folder / "config.json").write_text(json.dumps(config))
        base.main(folder, StopRequest())
        policy_folder = str(folder / "policy")
    (work / "policy.txt").write_text(policy_folder)
    prompts = make_prompts("train", 768, 0, harmful_share=0.0)
    write_jsonl(
        work / "prompts.jsonl",
        [
            {"prompt_id": str(i), "messages": p.messages, "category": p.category, "risk": p.risk}
            for i, p in enumerate(prompts)
        ],
    )

    # The reward: ridge regression of the gold score on the trunk's last hidden state.
    policy = loading.load_policy(policy_folder, "policy", device=torch.device("cpu"))
    encoded = [policy.encode_prompt(p.messages, "", room=arguments.tokens) for p in prompts]
    drawn = sampling.sample(
        policy.model,
        encoded,
        k=1,
        max_new_tokens=arguments.tokens,
        temperature=1.0,
        stop_ids=policy.stop_ids,
        pad_id=policy.pad_id,
        generator=torch.Generator().manual_seed(0),
    )
    pairs = [
        (p, policy.decode(answers[0].tokens)) for p, answers in zip(prompts, drawn, strict=True)
    ]
    model = RewardModel.new(
        policy_folder, ["preference"], use_prior=False, max_length=512, device="cpu"
    )
    read = model.read_all([p.messages for p, _ in pairs], [text for _, text in pairs])
    with torch.inference_mode():
        states = [model.response_states(read[i : i + 256])[0] for i in range(0, len(read), 256)]
    hidden = torch.cat(states).double()
    gold = torch.tensor([rubric.judge(p.slots, text).preference for p, text in pairs]).double()
    target = (gold - gold.mean()) / gold.std()
    gram = hidden.T @ hidden + 1e-3 * len(pairs) * torch.eye(hidden.shape[1]).double()
    head = torch.linalg.solve(gram, hidden.T @ target)
    head = (head / (hidden @ head).std()).float()  # scores with deviation 1, and no bias
    print(f"correlation with gold: {torch.corrcoef(torch.stack([hidden @ head.double(), gold]))}")

    model.heads = torch.nn.Linear(2 * policy.hidden_size, 1)
    with torch.no_grad():
        model.heads.weight.zero_()
        model.heads.weight[0, : policy.hidden_size] = head
        model.heads.bias.zero_()
    model.save(work / "reward")
    from transformers import AutoModelForSequenceClassification

    classifier = AutoModelForSequenceClassification.from_pretrained(policy_folder, num_labels=1)
    with torch.no_grad():
        classifier.score.weight.copy_(head[None])
    classifier.save_pretrained(work / "classifier")
    (work / "ready").touch()


# --- Ours ---------------------------------------------------------------------------------------


def run_folder(arguments: argparse.Namespace, seed: int) -> Path:
    """A new run folder of the ppo stage."""
    folder = arguments.work / f"run-{seed}-{time.time_ns()}"
    (folder / "data").mkdir(parents=True)
    (folder / "data/prompts.jsonl").write_text((arguments.work / "prompts.jsonl").read_text())
    policy = (arguments.work / "policy.txt").read_text()
    config = {
        "policy": policy,
        "reference": policy,
        "reward_model": str(arguments.work.resolve() / "reward"),
        "steps": arguments.steps,
        "prompts_per_step": arguments.batch,
        "max_new_tokens": arguments.tokens,
        "epochs": arguments.epochs,
        "minibatch_size": arguments.batch // arguments.minibatches,
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
        "dtype": "float32",
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
    """Nothing but what the stage imports, as little as it does, for the memory that is there before
    it begins."""
    sys.argv[:1] = ["-m"]
    import rlhf.training.ppo
    from rlhf.training.lean import import_little

    import_little()
    from transformers import AutoTokenizer, LlamaForCausalLM

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

    from rlhf.training import loading

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    import numpy as np

    np.random.seed(arguments.seed)
    folder = (arguments.work / "policy.txt").read_text()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = [json.loads(t) for t in (arguments.work / "prompts.jsonl").read_text().splitlines()]
    ids = [loading.encode(tokenizer, loading.render(tokenizer, row["messages"])) for row in rows]
    config = module.PPOConfig(
        output_dir=str(arguments.work / "trl"),
        per_device_train_batch_size=arguments.batch,
        gradient_accumulation_steps=1,
        num_mini_batches=arguments.minibatches,
        total_episodes=arguments.steps * arguments.batch,
        num_ppo_epochs=arguments.epochs,
        response_length=arguments.tokens,
        local_rollout_forward_batch_size=arguments.batch,
        temperature=1.0,
        stop_token="eos",
        missing_eos_penalty=-PENALTY,
        kl_coef=arguments.kl_weight,
        learning_rate=arguments.learning_rate,
        adam_epsilon=1e-5,
        num_sample_generations=0,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_strategy="steps",
        seed=arguments.seed,
        disable_tqdm=True,
    )
    classifier = str(arguments.work / "classifier")
    trainer = module.PPOTrainer(
        args=config,
        processing_class=tokenizer,
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        ref_model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        reward_model=AutoModelForSequenceClassification.from_pretrained(classifier, num_labels=1),
        value_model=AutoModelForSequenceClassification.from_pretrained(classifier, num_labels=1),
        train_dataset=datasets.Dataset.from_dict({"input_ids": ids}),
    )

    # Clocks: rollouts begin with `batch_generation`, training with the first pass of the wrapper.
    clock: Row = {"marks": [], "rewards": [], "finished": [], "length": []}
    generation, forward, reward = module.batch_generation, module.forward, module.get_reward
    updates = [0]

    def timed_generation(*args: Any, **kwargs: Any) -> Any:
        start = time.time()
        result = generation(*args, **kwargs)
        clock["marks"].append(
            {"begin": start, "generated": time.time(), "train": None, "end": None}
        )
        return result

    def timed_forward(model: Any, *args: Any, **kwargs: Any) -> Any:
        if model is trainer.model and clock["marks"][-1]["train"] is None:
            clock["marks"][-1]["train"] = time.time()
        return forward(model, *args, **kwargs)

    def seen_reward(model: Any, ids: Any, pad: int, context: int) -> Any:
        result = reward(model, ids, pad, context)
        if model is trainer.reward_model:
            answers = ids[:, context:]
            ended = (answers == tokenizer.eos_token_id).any(dim=1)
            score = torch.where(ended, result[1], torch.tensor(PENALTY))
            clock["rewards"].append(float(score.mean()))
            clock["finished"].append(float(ended.float().mean()))
            clock["length"].append(float((answers != pad).sum(dim=1).float().mean()))
        return result

    class EndOfStep(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            clock["marks"][-1]["end"] = time.time()

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


def speed(run: Row, batch: int) -> float:
    """Samples per second after the first steps."""
    seconds = run["seconds"][WARM:] or run["seconds"]
    return batch * len(seconds) / sum(seconds)


def best_speed(run: Row, batch: int) -> float:
    """That of the fastest step: what is left when another process takes its share of the cores."""
    return batch / min(run["seconds"][WARM:] or run["seconds"])


def line(side: str, seed: int, run: Row) -> str:
    phases = ", ".join(
        f"{name} {statistics.mean(seconds[WARM:] or seconds):.3f} s"
        for name, seconds in run["phases"].items()
    )
    return (
        f"{side:>4} seed {seed}: {speed(run, parse().batch):6.1f} samples/s ({phases}); peak "
        f"{run['peak_mb_above_imports']:.0f} MB above imports, {run['peak_mb']:.0f} MB in all; "
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


def report(runs: dict[str, list[Row]]) -> None:
    arguments = parse()
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
    if not runs["trl"]:
        return
    ratios = [
        speed(a, batch) / speed(b, batch) for a, b in zip(runs["ours"], runs["trl"], strict=True)
    ]
    memory = [
        a["peak_mb_above_imports"] / b["peak_mb_above_imports"]
        for a, b in zip(runs["ours"], runs["trl"], strict=True)
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
    "imports_ours": imports_ours,
    "imports_trl": imports_trl,
    "trl": trl,
}

if __name__ == "__main__":
    main()
