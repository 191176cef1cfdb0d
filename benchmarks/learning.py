"""What PPO learns for the distance that it goes, beside DPO and best-of-n; and whether it stops in time.

    python -m benchmarks.learning --base BASE/policy --seeds 5 --out learning.json

The small world's rubric is the gold scorer: it plays the annotators and grades every policy, and no
reward model sees it. Two parts, each with `--parts`:

- `frontier`: gold score against the root of the KL divergence from the base (nats per response), on
  held-out prompts at temperature 1. PPO: the policies after every few rollouts of a run for each
  weight of the KL penalty. DPO: a run for each beta and step size on the very preferences that the
  reward model learnt from. Best-of-n: the reward model chooses among n samples of the base; its KL is
  at most log n - (n - 1) / n (Stiennon et al. 2020; Beirami et al. 2024). KL of a policy is measured
  over the whole vocabulary at every position of its own samples, which has less variance than the
  log-ratio of what was sampled. A method's frontier is the best that it has for at most a distance,
  chosen on one half of the prompts and measured on the other, both ways: more points are no more luck.
- `tripwire`: a run made to over-optimise (a reward model from few rankings, no KL penalty). Where did
  the tripwire stop, and how does the gold score there compare with the best of the whole run? The
  best of many noisy means is too high by chance; so it is chosen on one half of the held-out prompts
  and measured on the other, both ways, and the share of the gain has an interval over prompts.
"""

import argparse
import itertools
import json
import math
import shutil
import statistics
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from benchmarks.walk_seeds import Row, Walk, as_rows, read_preset
from rlhf.training import sampling
from rlhf.training.configs import PPOConfig
from rlhf.training.language_models.policy import load_policy
from rlhf.training.reward_models.folder import load_reward_model
from rlhf.world import rubric

BEST_OF = (2, 4, 8, 16)


def main() -> None:
    arguments = parse()
    preset = read_preset(arguments)
    found: Row = {"seeds": []}
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        study = Study(arguments, preset, seed)
        entry: Row = {"seed": seed}
        if "frontier" in arguments.parts:
            entry["frontier"] = study.frontier()
        if "tripwire" in arguments.parts:
            entry["tripwire"] = study.tripwire()
        found["seeds"].append(entry)
        show(entry)
        arguments.out.write_text(json.dumps(found, indent=1))
    conclude(found["seeds"])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--base", type=Path, required=True, help="folder of the base policy")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--split", default="heldout")
    parser.add_argument("--parts", nargs="+", default=["frontier", "tripwire"])
    parser.add_argument("--ppo-steps", type=int, default=16)
    parser.add_argument("--ppo-kl-weights", type=float, nargs="+", default=[0.05, 0.2])
    parser.add_argument("--betas", type=float, nargs="*", default=[0.03, 0.1, 0.3])
    parser.add_argument("--rates", type=float, nargs="*", default=[1e-4, 3e-4], help="DPO's")
    parser.add_argument("--weak-rankings", type=int, default=40, help="of the train-RM")
    parser.add_argument("--test-rankings", type=int, default=40, help="of the test-RM, others")
    parser.add_argument("--weak-steps", type=int, default=40)
    parser.add_argument("--samples", type=int, default=2, help="responses to each held-out prompt")
    parser.add_argument("--work", type=Path, default=Path("learning"), help="run folders go here")
    parser.add_argument("--out", type=Path, default=Path("learning.json"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], help="section.name=JSON value")
    arguments = parser.parse_args()
    arguments.rounds = 1
    return arguments


class Study(Walk):
    """One seed: the same preferences, reward model and held-out prompts for every method."""

    def __init__(self, arguments: argparse.Namespace, preset: Row, seed: int) -> None:
        super().__init__(arguments, preset, seed)
        torch.set_num_threads(arguments.threads)
        self.reference = load_policy(self.base, "base policy", device=torch.device("cpu"))
        self.reference.model.eval()
        self.asked = [
            self.reference.encode_prompt(p.messages, str(i), room=self.length)
            for i, p in enumerate(self.heldout)
        ]
        self.rank(1, self.base)

    @property
    def length(self) -> int:
        return int(self.preset["evaluate"]["max_new_tokens"])

    # --- Parts --------------------------------------------------------------------------------

    def frontier(self) -> Row:
        rewards, _ = self.reward_model(1)
        return {
            "base": self.measure(self.reference),
            "ppo": [
                {"KL weight and step": f"{weight:g}, {step}"} | self.measure(policy)
                for weight in self.arguments.ppo_kl_weights
                for step, policy in self.ppo_trail(
                    f"1-ppo{weight:g}",
                    rewards,
                    {
                        "steps": self.arguments.ppo_steps,
                        "kl_weight": weight,
                        "tripwire_evaluations": 0,
                    },
                )
            ],
            "dpo": [
                {"beta and rate": f"{beta:g}, {rate:g}"} | self.dpo(beta, rate)
                for beta, rate in itertools.product(self.arguments.betas, self.arguments.rates)
            ],
            "best_of_n": self.best_of_n(rewards),
        }

    def tripwire(self) -> Row:
        """Twice the same run: once to its end, once with the tripwire."""
        rewards = self.weak_reward_model()
        settings = {"steps": self.arguments.weak_steps, "kl_weight": 0.0, "kl_budget": 0.0}
        trail = [
            {"step": step} | self.measure(policy)
            for step, policy in self.ppo_trail(
                "2-ppo", str(rewards), settings | {"tripwire_evaluations": 0}
            )
        ]
        # The policy that the tripwire leaves is in the run's policy/ folder.
        folder = self.run_ppo("3-ppo", str(rewards), settings)
        left = self.measure(
            load_policy(str(folder / "policy"), "policy", device=torch.device("cpu"))
        )
        result = json.loads((folder / "result.json").read_text())
        base = self.measure(self.reference)
        golds = np.array([p["by_prompt"] for p in (base, left, base, *trail)])
        everything = np.arange(golds.shape[1])
        generator = np.random.default_rng(self.seed)
        again = [kept_of(golds, generator.choice(everything, len(everything))) for _ in range(1000)]
        return {
            "base": base,
            "trail": trail,
            "best": max([base, *trail], key=lambda point: point["gold"]),
            "left": left | {k: result[k] for k in ("steps", "stop_reason", "best_step")},
            "kept": kept_of(golds, everything),
            "interval": list(np.percentile(again, [2.5, 97.5])),
        }

    # --- Methods ------------------------------------------------------------------------------

    def run_ppo(self, name: str, rewards: str, settings: Row) -> Path:
        prompts = self.prompts(
            "ppo_prompts", "train", "ppo1", float(self.size["ppo_harmful_share"])
        )
        models = {
            "policy": self.base,
            "reference": self.base,
            "reward_model": f"{rewards}/train",
            "test_reward_model": f"{rewards}/test",
            "checkpoint_every": 2,
        }
        return self.stage(
            name,
            "ppo",
            PPOConfig.merged(self.preset["ppo"], models | settings),
            prompts=as_rows(prompts),
            watch=as_rows(self.prompts("watch_prompts", "eval", "watch1")),
        )

    def ppo_trail(self, name: str, rewards: str, settings: Row) -> list[tuple[int, Any]]:
        """The policy at every checkpoint of a run, copied while it runs."""
        trail = self.folder / f"{name}-trail"
        trail.mkdir(parents=True, exist_ok=True)
        done = threading.Event()
        follower = threading.Thread(
            target=follow, args=((self.folder / name).resolve(), trail, done)
        )
        follower.start()
        try:
            self.run_ppo(name, rewards, settings)
        finally:
            done.set()
            follower.join()
        policies = []
        for path in sorted(trail.glob("*.safetensors"), key=lambda p: int(p.stem)):
            policy = load_policy(self.base, "base policy", device=torch.device("cpu"))
            policy.model.load_state_dict(load_file(path), strict=False)
            policies.append((int(path.stem), policy))
        return policies

    def weak_reward_model(self) -> Path:
        """A train-RM from `weak_rankings` prompts and a test-RM from `test_rankings` others."""
        n, others = self.arguments.weak_rankings, self.arguments.test_rankings
        everything, settings = self.preferences, self.preset["reward_model"]
        kept = list(dict.fromkeys(row["prompt_id"] for row in everything))[: n + others]
        self.preferences = [row for row in everything if row["prompt_id"] in kept]
        self.preset["reward_model"] = settings | {"test_share": others / (n + others)}
        self.folder.joinpath("2-generate").mkdir(exist_ok=True)
        for part in ("data", "responses.jsonl"):
            source, copy = self.folder / "1-generate" / part, self.folder / "2-generate" / part
            if not copy.exists():
                (shutil.copytree if source.is_dir() else shutil.copy)(source, copy)
        rewards, _ = self.reward_model(2)
        self.preferences, self.preset["reward_model"] = everything, settings
        return Path(rewards)

    def dpo(self, beta: float, rate: float) -> Row:
        # As PPO is rewarded: by safety where the prompt is harmful, by helpfulness elsewhere.
        preferences = [
            row
            | {
                "ranks": {
                    "preference": row["ranks"][
                        "safety" if row["risk"] == "harmful" else "helpfulness"
                    ]
                }
            }
            for row in self.preferences
        ]
        folder = self.stage(
            f"1-dpo{beta}-{rate}",
            "dpo",
            {"policy": self.base, "axis": "preference", "beta": beta, "learning_rate": rate},
            preferences=preferences,
        )
        return self.measure(
            load_policy(str(folder / "policy"), "policy", device=torch.device("cpu"))
        )

    def best_of_n(self, rewards: str) -> list[Row]:
        """For each n the gold score of what the reward model likes best among n of the base's."""
        most = max(BEST_OF)
        answers = self.sample(self.reference, most)
        model = load_reward_model(f"{rewards}/train")
        conversations = [p.messages for p in self.heldout for _ in range(most)]
        risks = [p.risk for p in self.heldout for _ in range(most)]
        texts = [self.reference.decode(a.tokens) for row in answers for a in row]
        scores = model.combine(model.score(conversations, texts), risks, threshold=0.15).reshape(
            len(self.heldout), most
        )
        gold = np.array([self.judge(i // most, text) for i, text in enumerate(texts)]).reshape(
            len(self.heldout), most
        )
        found = []
        for n in BEST_OF:
            # Every group of n among the samples, not one: less noise at no cost.
            groups = [range(start, start + n) for start in range(0, most, n)]
            picked = np.array(
                [
                    gold[i, max(group, key=lambda j, i=i: float(scores[i, j]))]
                    for i, group in itertools.product(range(len(gold)), groups)
                ]
            ).reshape(len(gold), -1)
            found.append(
                {
                    "n": n,
                    "kl": math.log(n) - (n - 1) / n,
                    "gold": float(picked.mean()),
                    "by_prompt": picked.mean(axis=1).round(3).tolist(),
                }
            )
        return found

    # --- Measuring ----------------------------------------------------------------------------

    def sample(self, policy: Any, k: int) -> list[list[sampling.Sampled]]:
        generator = torch.Generator().manual_seed(self.seed)
        with torch.inference_mode():
            return sampling.sample(
                policy.model.eval(),
                self.asked,
                k=k,
                max_new_tokens=self.length,
                temperature=1.0,
                stop_ids=policy.stop_ids,
                pad_id=policy.pad_id,
                generator=generator,
            )

    def judge(self, prompt: int, text: str) -> float:
        return rubric.judge(self.heldout[prompt].slots, text).preference

    @torch.inference_mode()
    def measure(self, policy: Any) -> Row:
        """Gold score and KL from the base, both means over own samples at temperature 1."""
        answers = self.sample(policy, self.arguments.samples)
        pairs = [(i, a) for i, row in enumerate(answers) for a in row]
        gold = [self.judge(i, policy.decode(a.tokens)) for i, a in pairs]
        kl = 0.0
        for start in range(0, len(pairs), 64):
            part = pairs[start : start + 64]
            texts = [self.asked[i] + a.tokens for i, a in part]
            ids = torch.zeros(len(part), max(map(len, texts)), dtype=torch.long)
            said = torch.zeros_like(ids, dtype=torch.bool)  # where the next token is the policy's
            for row, ((i, a), text) in enumerate(zip(part, texts, strict=True)):
                ids[row, : len(text)] = torch.tensor(text)
                said[row, len(self.asked[i]) - 1 : len(self.asked[i]) - 1 + len(a.tokens)] = True
            # Padded on the right, so that a causal model needs no mask before the padding.
            mine = policy.model(input_ids=ids, use_cache=False).logits[said].log_softmax(-1)
            theirs = self.reference.model(input_ids=ids, use_cache=False).logits[said]
            theirs = theirs.log_softmax(-1)
            kl += float((mine.exp() * (mine - theirs)).sum())
        by_prompt = np.array(gold).reshape(len(answers), -1).mean(axis=1)
        return {
            "gold": statistics.fmean(gold),
            "kl": kl / len(pairs),
            "by_prompt": by_prompt.round(3).tolist(),
        }


def follow(run: Path, trail: Path, done: threading.Event) -> None:
    """Copy the policy of every whole checkpoint of `run` to `trail/<step>.safetensors`."""
    while not done.wait(0.05):
        folder = run / "checkpoint"
        try:
            step = json.loads((folder / "state.json").read_text())["step"]
            if not (trail / f"{step}.safetensors").exists():
                shutil.copy(folder / "policy.safetensors", trail / "copy")
                if json.loads((folder / "state.json").read_text())["step"] == step:
                    (trail / "copy").rename(trail / f"{step}.safetensors")
        except (OSError, ValueError):
            continue  # it is being replaced


# --- Reading the results ---------------------------------------------------------------------


def above(mine: Sequence[Row], theirs: Sequence[Row], prompts: np.ndarray) -> float:
    """How far one frontier lies above another: the mean difference of gold scores over equal roots of
    the KL, as far as both go. A point is {"kl", "by_prompt": gold by prompt}; both have the base.
    """
    far = min(max(p["kl"] for p in points) for points in (mine, theirs))
    grid = np.linspace(0.2, math.sqrt(far), 20)
    return float(np.mean(frontier_at(mine, grid, prompts) - frontier_at(theirs, grid, prompts)))


def frontier_at(points: Sequence[Row], root_kls: np.ndarray, prompts: np.ndarray) -> np.ndarray:
    """The best gold score that is to be had for at most these distances (linear between points).

    Which point is the best so far is chosen by one half of the prompts and measured by the other, so
    that a method with more points is not the luckier one; no prompt is in both halves.
    """
    ordered = sorted(points, key=lambda p: p["kl"])
    xs = [math.sqrt(max(p["kl"], 0.0)) for p in ordered]
    golds = np.array([p["by_prompt"] for p in ordered])
    means = [golds[:, prompts[prompts % 2 == half]].mean(axis=1) for half in (0, 1)]
    found = []
    for chooses, measures in ((0, 1), (1, 0)):
        best = [int(means[chooses][: i + 1].argmax()) for i in range(len(ordered))]
        found.append(np.interp(root_kls, xs, means[measures][best]))
    return np.mean(found, axis=0)


def kept_of(golds: np.ndarray, prompts: np.ndarray) -> float:
    """Of the way from the base to the best of a run, how much is kept: 1 is all of it.

    `golds` is (2 + points, prompts): the base, the policy that is left, and every point of the run
    (the base among them). The best point is chosen by one half of the prompts and measured on the
    other, so that it gains nothing from having been lucky; no prompt is in both halves, also where
    `prompts` names it twice.
    """
    means = np.array([golds[:, prompts[prompts % 2 == half]].mean(axis=1) for half in (0, 1)])
    best = np.mean([means[half, 2 + means[1 - half, 2:].argmax()] for half in (0, 1)])
    base, left = means.mean(axis=0)[:2]
    return float((left - base) / max(best - base, 1e-9))


def show(entry: Row) -> None:
    print(f"\nseed {entry['seed']}")
    if found := entry.get("frontier"):
        print(f"  base: gold {found['base']['gold']:+.2f}")
        for method in ("ppo", "dpo", "best_of_n"):
            for point in found[method]:
                label = next(
                    f"{k} {point[k]}"
                    for k in ("KL weight and step", "beta and rate", "n")
                    if k in point
                )
                root = math.sqrt(max(point["kl"], 0.0))
                print(f"  {method:<10} {label:<26} sqrt(KL) {root:5.2f}  gold {point['gold']:+.2f}")
    if found := entry.get("tripwire"):
        left, best = found["left"], found["best"]
        for point in found["trail"]:
            print(
                f"  weak RM, step {point['step']:<3} KL {point['kl']:6.2f}  gold {point['gold']:+.2f}"
            )
        print(
            f"  tripwire: {left['stop_reason']} after {left['steps']} steps, step "
            f"{left['best_step']} kept: gold {left['gold']:+.2f}, best of the run "
            f"{best['gold']:+.2f}, base {found['base']['gold']:+.2f}: {found['kept']:.0%} of the gain "
            f"[{found['interval'][0]:.0%}, {found['interval'][1]:.0%}]"
        )


def conclude(seeds: list[Row]) -> None:
    """Means over the seeds, with the spread between them."""
    everything = [s["frontier"] for s in seeds if "frontier" in s]
    for other in ("dpo", "best_of_n"):
        frontiers = [found for found in everything if found[other]]
        gaps, told = [], []
        for found in frontiers:
            base = found["base"] | {"kl": 0.0}
            mine, theirs = [base, *found["ppo"]], [base, *found[other]]
            prompts = np.arange(len(base["by_prompt"]))
            generator = np.random.default_rng(0)
            again = [
                above(mine, theirs, generator.choice(prompts, len(prompts))) for _ in range(500)
            ]
            gaps.append(above(mine, theirs, prompts))
            low, high = np.percentile(again, [2.5, 97.5])
            told.append(f"{gaps[-1]:+.2f} [{low:+.2f}, {high:+.2f}]")
        if gaps:
            print(
                f"\nPPO above {other} by {statistics.fmean(gaps):+.2f} gold on average over equal "
                f"sqrt(KL); per seed {', '.join(told)}"
            )
        top = [
            max(p["gold"] for p in f["ppo"]) - max(p["gold"] for p in f[other]) for f in frontiers
        ]
        if top:
            print(f"best PPO above best {other} by {statistics.fmean(top):+.2f}")
    kept = [s["tripwire"]["kept"] for s in seeds if "tripwire" in s]
    if kept:
        print(f"\nkept by the tripwire: {', '.join(f'{share:.0%}' for share in kept)}")


if __name__ == "__main__":
    main()
