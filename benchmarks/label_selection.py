"""How many rankings a reward model needs when an ensemble says which to ask for, beside chance.

    python -m benchmarks.label_selection --base BASE/policy --seeds 5 --out label_selection.json

The base policy answers a pool of prompts K times each; nobody has ranked them yet. Both ways begin
with the same few rankings and then ask for more, some at a time: at random, or those on whose order
the members of the ensemble trained so far disagree most (what `rlhf.training.selection` writes, and
annotation hands out first), with a share at random as in a project. After every batch the reward
model is trained anew on all rankings so far and asked for the better response of every pair that
the gold rubric tells apart, on held-out prompts. The rubric is also who ranks; nobody errs.

Nothing says that doubt is a good guide. `--by error` asks by what the reward model so far gets wrong,
which nobody can know: where that saves nothing, no measure of doubt can be expected to.

In a project the first rankings are of what the base policy wrote, and doubt is used from the second
round on, about what a better policy writes, most of whose answers are alike in worth. For that:
`--policy` answers the pool and the held-out prompts, and `--earlier` rankings of the base's answers
are known before.

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
from torch.nn import functional

from benchmarks.walk_seeds import Row
from rlhf.training import reward_model, sampling
from rlhf.training.configs import RewardModelConfig
from rlhf.training.data import Judgment, Prompt
from rlhf.training.language_models.policy import load_policy
from rlhf.training.reward_data import add_prior_features, group_judgments
from rlhf.training.reward_math import disagreement, information
from rlhf.training.reward_models.model import RewardModel
from rlhf.training.reward_run import RewardRun
from rlhf.training.rundir.process import StopRequest
from rlhf.world import rubric
from rlhf.world.prompts import Split, WorldPrompt, make_prompts

AXIS = "preference"

BY = {"information": information, "deviation": disagreement}

Known = tuple[WorldPrompt, list[str], list[float]]
"""A prompt, its distinct responses and their gold scores."""


def main() -> None:
    arguments = parse()
    runs: list[Row] = []
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        study = Study(arguments, seed)
        print(f"pool of {len(study.pool)}, held out {len(study.heldout)}", flush=True)
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
    parser.add_argument("--policy", type=Path, help="who answers; the base if not given")
    parser.add_argument("--earlier", type=int, default=0, help="rankings of the base's answers")
    parser.add_argument(
        "--ties", action="store_true", help="also ask about answers that gold finds alike"
    )
    parser.add_argument("--by", choices=[*BY, "error"], default="information")
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
        base = arguments.base.resolve()
        policy = (arguments.policy or base).resolve()
        self.earlier = self.answered(base, "train", 2 * arguments.earlier, "/earlier")
        del self.earlier[arguments.earlier :]
        self.pool = self.earlier + self.answered(policy, "train", arguments.pool)
        self.heldout = self.answered(policy, "heldout", arguments.heldout)

    def answered(self, policy: Path, split: Split, n: int, name: str = "") -> list[Known]:
        """Prompts, their distinct responses and the gold scores; those that are all alike go,
        except from the pool under `--ties`."""
        if not n:
            return []
        said = load_policy(str(policy), "policy", device=torch.device("cpu"))
        seed = random.Random(f"{self.seed}/{split}{name}").getrandbits(32)
        prompts = make_prompts(split, n, seed, harmful_share=0.4)
        asked = [said.encode_prompt(p.messages, "", room=56) for p in prompts]
        with torch.inference_mode():
            answers = sampling.sample(
                said.model.eval(),
                asked,
                k=self.arguments.k,
                max_new_tokens=56,
                temperature=1.0,
                stop_ids=said.stop_ids,
                pad_id=said.pad_id,
                generator=torch.Generator().manual_seed(seed),
            )
        found = []
        for prompt, some in zip(prompts, answers, strict=True):
            texts = list(dict.fromkeys(said.decode(a.tokens) for a in some))
            gold = [rubric.judge(prompt.slots, text).preference for text in texts]
            ties = self.arguments.ties and split == "train" and len(texts) > 1
            if len(set(gold)) > 1 or ties:
                found.append((prompt, texts, gold))
        return found

    def curve(self, selected: float) -> list[Row]:
        """Held-out accuracy by number of rankings, `selected` 1 by disagreement and 0 at random."""
        arguments = self.arguments
        generator = random.Random(f"{self.seed}/ask")
        known = len(self.earlier)
        left = list(range(known, len(self.pool)))
        generator.shuffle(left)
        ranked = [*range(known), *left[: arguments.first]]
        left = left[arguments.first :]
        points: list[Row] = []
        while True:
            model = self.train(ranked)
            points.append({"n": len(ranked) - known, "accuracy": self.accuracy(model)})
            if len(ranked) - known >= arguments.most or not left:
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
            run = RewardRun(Path(folder), config, StopRequest(), 1)
            for axes, seed in reward_model.members_of(config):
                member = reward_model.new_member(
                    config, axes, seed, torch.device("cpu"), members, "train"
                )
                groups = group_judgments(member, judgments, ["rubric"])
                add_prior_features(member, groups, config.batch_size)
                reward_model.train(member, groups, 1, "train", run, config)
                members.append(member)
            run.close()
        members[0].others = members[1:]
        return members[0]

    def doubts(self, model: RewardModel, asked: list[int]) -> dict[int, float]:
        some = [self.pool[i] for i in asked]
        said = model.member_scores(
            [p.messages for p, texts, _ in some for _ in texts],
            [text for _, texts, _ in some for text in texts],
            standardized=False,
        )[AXIS]
        ends = itertools.accumulate(len(texts) for _, texts, _ in some)
        opinions = [said[end - len(t) : end] for end, (_, t, _) in zip(ends, some, strict=True)]
        if self.arguments.by == "error":
            errors = [error(o, gold) for o, (_, _, gold) in zip(opinions, some, strict=True)]
            return dict(zip(asked, errors, strict=True))
        measure = BY[self.arguments.by]
        return {i: measure(o) for i, o in zip(asked, opinions, strict=True)}

    def accuracy(self, model: RewardModel) -> float:
        """Of the pairs that gold tells apart; every prompt counts alike."""
        scores = model.score(
            [p.messages for p, texts, _ in self.heldout for _ in texts],
            [text for _, texts, _ in self.heldout for text in texts],
            standardized=False,
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


def error(opinions: torch.Tensor, gold: list[float]) -> float:
    """The loss of the members' mean opinion on the pairs that gold tells apart; 0 without any."""
    mean = opinions.mean(dim=1)
    margins = [
        mean[i] - mean[j]
        for i, j in itertools.permutations(range(len(gold)), 2)
        if gold[i] > gold[j]
    ]
    return float(-functional.logsigmoid(torch.stack(margins)).mean()) if margins else 0.0


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
