"""How many rankings a reward model needs when an ensemble says which to ask for, beside chance.

    python -m benchmarks.label_selection --base BASE/policy --seeds 5 --out label_selection.json

The base policy answers a pool of prompts K times each; nobody has ranked them yet. Both ways begin
with the same few rankings and then ask for more, some at a time: at random, or those on whose order
the members of the ensemble trained so far disagree most (what `rlhf.training.selection` writes, and
annotation hands out first), with a share at random as in a project. After every batch the reward
model is trained anew on all rankings so far and asked for the better response of every pair that
the gold rubric tells apart, on held-out prompts. The rubric is also who ranks; nobody errs.

The figure: at how many rankings does the selected curve reach what chance reaches with all of its
own? Curves are means over seeds, linear in between.
"""

import argparse
import itertools
import json
import math
import random
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.walk_seeds import Row
from rlhf.training import loading, reward_model, sampling
from rlhf.training.configs import RewardModelConfig
from rlhf.training.data import Judgment, Prompt
from rlhf.training.reward_math import disagreement, information
from rlhf.training.rundir import StopRequest
from rlhf.training.scorers import RewardModel
from rlhf.world import rubric
from rlhf.world.prompts import Split, WorldPrompt, make_prompts

AXIS = "preference"

BY = {"information": information, "deviation": disagreement}


def main() -> None:
    arguments = parse()
    runs: list[Row] = []
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        study = Study(arguments, seed)
        runs.append({"seed": seed, "random": study.curve(0.0), "selected": study.curve(1.0)})
        show(runs[-1])
        arguments.out.write_text(json.dumps({"settings": settings(arguments), "runs": runs}))
    conclude(runs)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--base", type=Path, required=True, help="folder of the base policy")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--pool", type=int, default=800, help="prompts that could be ranked")
    parser.add_argument("--first", type=int, default=50, help="rankings that both begin with")
    parser.add_argument("--batch", type=int, default=50, help="rankings asked for at a time")
    parser.add_argument("--most", type=int, default=400)
    parser.add_argument("--heldout", type=int, default=200)
    parser.add_argument("--k", type=int, default=4)
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--by", choices=list(BY), default="information")
    parser.add_argument("--ensemble", choices=("heads", "adapters", "models"), default="heads")
    parser.add_argument("--random-share", type=float, default=0.2, help="of what is selected")
    parser.add_argument(
        "--power", type=float, default=0.0, help="draw by doubt ** power; 0: the top"
    )
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("label_selection.json"))
    return parser.parse_args()


def settings(arguments: argparse.Namespace) -> Row:
    return {name: str(value) for name, value in vars(arguments).items()}


class Study:
    """One seed: a pool, held-out prompts, and who is asked next."""

    def __init__(self, arguments: argparse.Namespace, seed: int) -> None:
        self.arguments, self.seed = arguments, seed
        torch.set_num_threads(arguments.threads)
        self.policy = loading.load_policy(
            str(arguments.base.resolve()), "the base", device=torch.device("cpu")
        )
        self.pool = self.answered("train", arguments.pool)
        self.heldout = self.answered("heldout", arguments.heldout)

    def answered(self, split: Split, n: int) -> list[tuple[WorldPrompt, list[str], list[float]]]:
        """Prompts, their distinct responses and the gold scores; those that are all alike go."""
        seed = random.Random(f"{self.seed}/{split}").getrandbits(32)
        prompts = make_prompts(split, n, seed, harmful_share=0.4)
        asked = [self.policy.encode_prompt(p.messages, "", room=56) for p in prompts]
        with torch.inference_mode():
            answers = sampling.sample(
                self.policy.model.eval(),
                asked,
                k=self.arguments.k,
                max_new_tokens=56,
                temperature=1.0,
                stop_ids=self.policy.stop_ids,
                pad_id=self.policy.pad_id,
                generator=torch.Generator().manual_seed(seed),
            )
        found = []
        for prompt, some in zip(prompts, answers, strict=True):
            texts = list(dict.fromkeys(self.policy.decode(a.tokens) for a in some))
            gold = [rubric.judge(prompt.slots, text).preference for text in texts]
            if len(set(gold)) > 1:
                found.append((prompt, texts, gold))
        return found

    def curve(self, selected: float) -> list[Row]:
        """Held-out accuracy by number of rankings, `selected` 1 by disagreement and 0 at random."""
        arguments = self.arguments
        generator = random.Random(f"{self.seed}/ask")
        left = list(range(len(self.pool)))
        generator.shuffle(left)
        ranked, left = left[: arguments.first], left[arguments.first :]
        points: list[Row] = []
        while True:
            model = self.train(ranked)
            points.append({"n": len(ranked), "accuracy": self.accuracy(model)})
            if len(ranked) >= arguments.most or not left:
                return points
            if selected:
                doubt = self.doubts(model, left)
                by_doubt = sorted(left, key=lambda i: -doubt[i])
                if arguments.power:
                    # Kirsch et al. 2023, "Stochastic Batch Acquisition": what is alike in doubt is
                    # alike in kind, so the best are drawn by doubt ** power instead of taken.
                    by_doubt = sorted(
                        left,
                        key=lambda i: (
                            -arguments.power * math.log(max(doubt[i], 1e-9))
                            + math.log(generator.expovariate(1.0))
                        ),
                    )
                kept = round(arguments.batch * (1 - arguments.random_share))
                others = by_doubt[kept:]
                chosen = by_doubt[:kept] + generator.sample(others, arguments.batch - kept)
            else:
                chosen = left[: arguments.batch]
            ranked = ranked + chosen
            left = [i for i in left if i not in set(chosen)]

    def train(self, ranked: list[int]) -> RewardModel:
        arguments = self.arguments
        config = RewardModelConfig(
            trunk=str(arguments.base.resolve()),
            axes=(AXIS,),
            epochs=arguments.epochs,
            rankings_per_batch=16,
            learning_rate=5e-4,
            head_learning_rate=2e-2,
            ensemble=arguments.ensemble,
            members=arguments.members,
            reliability=False,
            seed=self.seed,
            threads=arguments.threads,
        )
        judgments = []
        for i in ranked:
            prompt, texts, gold = self.pool[i]
            ranks = tuple(1 + sum(other > mine for other in gold) for mine in gold)
            asked = Prompt(str(i), prompt.messages, prompt.category, prompt.risk)
            judgments.append(Judgment(asked, "rubric", tuple(texts), {AXIS: ranks}))
        torch.manual_seed(self.seed)
        members: list[RewardModel] = []
        with tempfile.TemporaryDirectory() as folder:
            run = reward_model.Run(Path(folder), config, StopRequest(), 1)
            for axes, seed in reward_model.plans_of(config):
                member = reward_model.new_member(
                    config, axes, seed, torch.device("cpu"), members, "train"
                )
                groups = reward_model.groups_of(member, judgments, ["rubric"])
                reward_model.with_prior(member, groups, config.batch_size)
                reward_model.train(member, groups, 1, "train", run, config)
                members.append(member)
            run.close()
        members[0].others = members[1:]
        return members[0]

    def doubts(self, model: RewardModel, asked: list[int]) -> dict[int, float]:
        some = [self.pool[i] for i in asked]
        said = model.opinions(
            [p.messages for p, texts, _ in some for _ in texts],
            [text for _, texts, _ in some for text in texts],
            standardised=False,
        )[AXIS]
        ends = itertools.accumulate(len(texts) for _, texts, _ in some)
        return {
            i: BY[self.arguments.by](said[end - len(texts) : end])
            for i, (_, texts, _), end in zip(asked, some, ends, strict=True)
        }

    def accuracy(self, model: RewardModel) -> float:
        """Of the pairs that gold tells apart; every prompt counts alike."""
        scores = model.score(
            [p.messages for p, texts, _ in self.heldout for _ in texts],
            [text for _, texts, _ in self.heldout for text in texts],
            standardised=False,
        )[AXIS].tolist()
        shares, start = [], 0
        for _, texts, gold in self.heldout:
            mine = scores[start : start + len(texts)]
            start += len(texts)
            shares.append(
                statistics.fmean(
                    (mine[i] > mine[j]) == (gold[i] > gold[j])
                    for i, j in itertools.combinations(range(len(texts)), 2)
                    if gold[i] != gold[j]
                )
            )
        return statistics.fmean(shares)


def show(run: Row) -> None:
    for name in ("random", "selected"):
        told = "  ".join(f"{p['n']}: {p['accuracy']:.3f}" for p in run[name])
        print(f"seed {run['seed']} {name:<8} {told}", flush=True)


def conclude(runs: list[Row]) -> None:
    """The mean curves, and how many rankings selection needs for the accuracy of chance."""
    numbers = [p["n"] for p in runs[0]["random"]]
    mean: dict[str, Any] = {
        name: np.mean([[p["accuracy"] for p in run[name]] for run in runs], axis=0)
        for name in ("random", "selected")
    }
    print()
    for name, curve in mean.items():
        told = "  ".join(f"{n}: {a:.3f}" for n, a in zip(numbers, curve, strict=True))
        print(f"mean {name:<8} {told}")
    for place in range(len(numbers) // 2, len(numbers)):
        goal = mean["random"][: place + 1].max()
        reached = [i for i, a in enumerate(mean["selected"]) if a >= goal]
        if not reached:
            print(f"chance with {numbers[place]} rankings: {goal:.3f}; selection never gets there")
            continue
        i = reached[0]
        needed = float(numbers[i])
        if i:
            before, after = mean["selected"][i - 1], mean["selected"][i]
            share = (goal - before) / (after - before)
            needed = numbers[i - 1] + share * (numbers[i] - numbers[i - 1])
        print(
            f"chance with {numbers[place]} rankings: {goal:.3f}; selection needs {needed:.0f} "
            f"({needed / numbers[place]:.0%})"
        )


if __name__ == "__main__":
    main()
