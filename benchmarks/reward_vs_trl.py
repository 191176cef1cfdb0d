"""Our reward models against TRL's `RewardTrainer`: comparisons per second, held-out accuracy.

    OMP_NUM_THREADS=2 python -m benchmarks.reward_vs_trl --seeds 5 --out reward_vs_trl.json

Both train the same model (a small Llama with random weights, drawn anew for every seed) on the same
rankings of K responses for the same number of epochs in the same precision, taking turns in one
process. TRL gets every pair of a ranking; ours gets the ranking. A batch is the same rankings for
both, so both make the same number of optimiser steps from the same data (`--match rankings`); with
`--match responses` a batch of TRL's holds as many texts as one of ours, so it makes more steps.
Rankings are drawn from the small world: K answers of mixed quality in a conversation of `--turns`
earlier turns, ranked by the gold rubric, with `--noise` of the pairs the wrong way round.
"""

import argparse
import contextlib
import io
import itertools
import json
import logging
import os
import random
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

import torch
from datasets import Dataset, disable_progress_bars
from transformers import AutoModelForSequenceClassification, LlamaConfig, LlamaForCausalLM
from trl import RewardConfig, RewardTrainer

from rlhf.training import reward_model
from rlhf.training.configs import RewardModelConfig
from rlhf.training.data import Judgment, Prompt
from rlhf.training.intervals import mean_with_interval
from rlhf.training.reward_data import group_judgments
from rlhf.training.reward_models.model import RewardModel
from rlhf.training.reward_run import RewardRun
from rlhf.training.rundir.process import StopRequest
from rlhf.training.word_tokenizer import build_tokenizer
from rlhf.world import rubric
from rlhf.world.answers import answer, draw_style
from rlhf.world.prompts import WorldPrompt, make_prompts

Message = dict[str, str]


@dataclass
class Ranking:
    """K answers in one conversation, and how good each is: as ranked, and in truth."""

    messages: list[Message]
    texts: list[str]
    ranked: list[float]
    gold: list[float]

    def pairs(self, points: list[float]) -> list[tuple[int, int]]:
        """(better, worse) by position."""
        found = []
        for i, j in itertools.combinations(range(len(points)), 2):
            found.append((i, j) if points[i] > points[j] else (j, i))
        return found


def main() -> None:
    arguments = parse()
    disable_progress_bars()
    logging.disable(logging.WARNING)
    torch.set_num_threads(arguments.threads)
    work = Path(tempfile.mkdtemp(prefix="reward_vs_trl"))
    runs: list[dict[str, Any]] = []
    for seed in range(arguments.seeds):
        training = rankings("train", arguments.rankings, arguments, seed)
        heldout = rankings("heldout", arguments.heldout, arguments, 1000 + seed)
        trunk = new_model(work / f"model{seed}", training, arguments, seed)
        # Who goes first changes from seed to seed.
        order = [ours, trl] if seed % 2 == 0 else [trl, ours]
        found = {one.__name__: one(trunk, training, heldout, arguments, seed) for one in order}
        runs.append({"seed": seed, **found})
        for name in ("ours", "trl"):
            told = found[name]
            print(
                f"seed {seed} {name:4s}: {told['pairs_per_second']:7.1f} pairs/s "
                f"({told['n_pairs']} pairs, {told['steps']} steps, {told['seconds']:.1f} s, "
                f"{told['cpu_seconds']:.1f} s of processor; with tokenizing {told['seconds_all']:.1f} s), held-out accuracy "
                f"{told['accuracy']:.3f} [{told['ci'][0]:.3f}, {told['ci'][1]:.3f}]",
                flush=True,
            )
    shutil.rmtree(work)
    report(runs, arguments)
    if arguments.out:
        given = {k: str(v) for k, v in vars(arguments).items()}
        arguments.out.write_text(json.dumps({"arguments": given, "runs": runs}, indent=1))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rankings", type=int, default=768)
    parser.add_argument("--heldout", type=int, default=300, help="rankings to measure on")
    parser.add_argument("--k", type=int, default=4, help="responses per ranking")
    parser.add_argument("--turns", type=int, default=1, help="earlier turns in each conversation")
    parser.add_argument("--noise", type=float, default=0.0, help="standard deviation, in points")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rankings-per-batch", type=int, default=16)
    parser.add_argument("--match", choices=("rankings", "responses"), default="rankings")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=5e-4, help="ours, the trunk")
    parser.add_argument("--trl-learning-rate", type=float, default=5e-4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


# --- The task -------------------------------------------------------------------------------------


def rankings(split: Any, n: int, arguments: argparse.Namespace, seed: int) -> list[Ranking]:
    """`n` conversations with K distinct answers, none of the same worth as another."""
    generator = random.Random(f"{split}/{seed}")
    prompts = make_prompts(split, n * (1 + arguments.turns), seed, harmful_share=0.3)
    generator.shuffle(prompts)
    found = []
    for i in range(n):
        *earlier, now = prompts[i * (1 + arguments.turns) : (i + 1) * (1 + arguments.turns)]
        messages: list[Message] = []
        for prompt in earlier:
            messages += [
                *prompt.messages,
                {"role": "assistant", "content": said(prompt, generator)},
            ]
        messages += now.messages
        worth: dict[str, float] = {}
        for _ in range(60):
            text = said(now, generator)
            points = rubric.judge(now.slots, text).preference
            if points not in worth.values():
                worth[text] = points
            if len(worth) == arguments.k:
                break
        if len(worth) < 2:
            continue
        gold = list(worth.values())
        ranked = [g + generator.gauss(0, arguments.noise) for g in gold]
        found.append(Ranking(messages, list(worth), ranked, gold))
    return found


def said(prompt: WorldPrompt, generator: random.Random) -> str:
    style = draw_style(prompt.slots, generator, "mix")
    return answer(prompt.slots, style, generator)


def new_model(
    folder: Path, training: list[Ranking], arguments: argparse.Namespace, seed: int
) -> str:
    """A random Llama whose tokenizer knows the words of the training set."""
    torch.manual_seed(seed)
    texts = [m["content"] for r in training for m in r.messages] + [
        f" {t}" for r in training for t in r.texts
    ]
    tokenizer = build_tokenizer(texts, max_length=512)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=arguments.hidden,
        intermediate_size=3 * arguments.hidden,
        num_hidden_layers=arguments.layers,
        num_attention_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if seed == 0:
        lengths = [len(tokenizer(text)["input_ids"]) for r in training[:200] for text in r.texts]
        asked = [
            len(tokenizer("".join(m["content"] for m in r.messages))["input_ids"])
            for r in training[:200]
        ]
        print(
            f"{sum(p.numel() for p in model.parameters()):,} parameters, vocabulary "
            f"{len(tokenizer)}, prompts of {statistics.mean(asked):.0f} tokens, responses of "
            f"{statistics.mean(lengths):.0f}, {arguments.threads} threads, "
            f"{torch.get_num_threads()} used"
        )
    return str(folder)


def measured(
    scores: list[list[float]], heldout: list[Ranking], seed: int
) -> tuple[float, list[float]]:
    """Accuracy on the gold pairs of unseen prompts, with its interval by prompt."""
    right, clusters = [], []
    for number, (points, ranking) in enumerate(zip(scores, heldout, strict=True)):
        for better, worse in ranking.pairs(ranking.gold):
            right.append(float(points[better] > points[worse]))
            clusters.append(str(number))
    mean, interval, _ = mean_with_interval(right, clusters, seed=seed)
    return mean, list(interval)


# --- The two trainers -----------------------------------------------------------------------------


def ours(
    trunk: str,
    training: list[Ranking],
    heldout: list[Ranking],
    arguments: argparse.Namespace,
    seed: int,
) -> dict[str, Any]:
    """`rlhf.training.reward_model.train`, the loop of the product's stage."""
    config = RewardModelConfig(
        trunk=trunk,
        axes=("helpfulness",),
        epochs=arguments.epochs,
        rankings_per_batch=arguments.rankings_per_batch,
        learning_rate=arguments.learning_rate,
        prior=False,  # TRL has nothing like it
        reliability=False,
        seed=seed,
        threads=arguments.threads,
    )
    torch.manual_seed(seed)
    model = RewardModel.new(
        trunk, config.axes, use_prior=False, max_length=config.max_length, device="cpu"
    )
    began = time.perf_counter()
    model.share_prompts_if_possible()
    judgments = [
        Judgment(
            Prompt(str(number), r.messages),
            "rubric",
            tuple(r.texts),
            {"helpfulness": tuple(1 + sum(b > a for b in r.ranked) for a in r.ranked)},
        )
        for number, r in enumerate(training)
    ]
    groups = group_judgments(model, judgments, ["rubric"])
    steps = -(-len(groups) // config.rankings_per_batch) * config.epochs
    with tempfile.TemporaryDirectory() as folder:
        run = RewardRun(Path(folder), config, StopRequest(), steps)
        prepared, worked = time.perf_counter(), time.process_time()
        reward_model.train(model, groups, 1, "train", run, config)
        ended, worked = time.perf_counter(), time.process_time() - worked
        run.close()
    n_pairs = config.epochs * sum(len(j.pairs) for g in groups for j in g.judgments)
    conversations = [r.messages for r in heldout for _ in r.texts]
    flat = model.score(conversations, [t for r in heldout for t in r.texts])["helpfulness"]
    places = itertools.accumulate([0, *(len(r.texts) for r in heldout)])
    scores = [
        flat[start : start + len(r.texts)].tolist()
        for start, r in zip(places, heldout, strict=False)
    ]
    accuracy, ci = measured(scores, heldout, seed)
    return told(n_pairs, steps, ended - prepared, worked, ended - began, accuracy, ci)


def trl(
    trunk: str,
    training: list[Ranking],
    heldout: list[Ranking],
    arguments: argparse.Namespace,
    seed: int,
) -> dict[str, Any]:
    """TRL's RewardTrainer on the same rankings, as pairs."""
    pairs = [
        {
            "prompt": r.messages,
            "chosen": [{"role": "assistant", "content": r.texts[better]}],
            "rejected": [{"role": "assistant", "content": r.texts[worse]}],
        }
        for r in training
        for better, worse in r.pairs(r.ranked)
    ]
    per_ranking = len(pairs) / len(training)
    if arguments.match == "rankings":
        batch = round(arguments.rankings_per_batch * per_ranking)
    else:
        batch = arguments.rankings_per_batch * arguments.k // 2
    torch.manual_seed(seed)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        model = AutoModelForSequenceClassification.from_pretrained(trunk, num_labels=1)
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(trunk)
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            trainer = RewardTrainer(
                model=model,
                processing_class=tokenizer,
                train_dataset=Dataset.from_list(pairs),
                args=RewardConfig(
                    output_dir=folder,
                    per_device_train_batch_size=batch,
                    num_train_epochs=arguments.epochs,
                    learning_rate=arguments.trl_learning_rate,
                    lr_scheduler_type="linear",
                    warmup_steps=5,
                    center_rewards_coefficient=0.01,
                    max_length=512,
                    seed=seed,
                    use_cpu=True,
                    bf16=False,
                    gradient_checkpointing=False,
                    save_strategy="no",
                    logging_strategy="no",
                    report_to=[],
                    disable_tqdm=True,
                ),
            )
            prepared, worked = time.perf_counter(), time.process_time()
            trainer.train()
            ended, worked = time.perf_counter(), time.process_time() - worked
            steps = trainer.state.global_step
    model.eval()
    scores = []
    with torch.no_grad():
        for r in heldout:
            rows = [
                tokenizer.apply_chat_template(
                    [*r.messages, {"role": "assistant", "content": text}], tokenize=False
                )
                for text in r.texts
            ]
            encoded = tokenizer(rows, add_special_tokens=False, padding=True, return_tensors="pt")
            encoded.pop("token_type_ids", None)
            scores.append(model(**encoded).logits[:, 0].tolist())
    accuracy, ci = measured(scores, heldout, seed)
    n = arguments.epochs * len(pairs)
    return told(n, steps, ended - prepared, worked, ended - began, accuracy, ci)


def told(
    n_pairs: int,
    steps: int,
    seconds: float,
    cpu_seconds: float,
    seconds_all: float,
    accuracy: float,
    ci: list[float],
) -> dict[str, Any]:
    return {
        "n_pairs": n_pairs,
        "steps": steps,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "seconds_all": seconds_all,
        "pairs_per_second": n_pairs / seconds,
        "accuracy": accuracy,
        "ci": ci,
    }


def report(runs: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
    """Means over seeds, the spread of the difference, and the ratio."""
    ratios = [r["ours"]["pairs_per_second"] / r["trl"]["pairs_per_second"] for r in runs]
    whole = [r["trl"]["seconds_all"] / r["ours"]["seconds_all"] for r in runs]
    work = [r["trl"]["cpu_seconds"] / r["ours"]["cpu_seconds"] for r in runs]
    gains = [r["ours"]["accuracy"] - r["trl"]["accuracy"] for r in runs]
    print(f"\nK={arguments.k}, {arguments.turns} earlier turns, equal {arguments.match} per batch")
    for name in ("trl", "ours"):
        speed = [r[name]["pairs_per_second"] for r in runs]
        right = [r[name]["accuracy"] for r in runs]
        print(
            f"  {name:4s} {statistics.mean(speed):7.1f} pairs/s (median "
            f"{statistics.median(speed):.1f}), accuracy {statistics.mean(right):.3f} "
            f"({min(right):.3f} to {max(right):.3f})"
        )
    spread = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
    print(
        f"  ratio of speeds: median {statistics.median(ratios):.2f} ({min(ratios):.2f} to "
        f"{max(ratios):.2f}), of processor time {statistics.median(work):.2f} ({min(work):.2f} to "
        f"{max(work):.2f}), with tokenizing {statistics.median(whole):.2f}\n"
        f"  accuracy, ours minus TRL's: {statistics.mean(gains):+.3f} (standard error {spread:.3f})"
    )


if __name__ == "__main__":
    main()
