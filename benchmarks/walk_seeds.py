"""The whole loop without the web: two rounds on the small world, for several seeds.

    python -m benchmarks.walk_seeds --base BASE/policy --seeds 5 --out figures.json

For every seed: prompts are answered (generate), ranked by simulated annotators, learned from
(reward_model), used to train the policy (ppo) and measured on held-out prompts (evaluate), twice.
Each stage is a process of its own, as the worker starts it. The gold rubric, which the reward models
never see, judges every policy against the base at equal temperatures. Settings come from the preset.
"""

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

from rlhf.training.configs import CONFIGS
from rlhf.training.score_summary import group_by_temperature, summarize
from rlhf.world import rubric
from rlhf.world.annotators import annotator_team
from rlhf.world.prompts import Split, WorldPrompt, make_prompts

ROOT = Path(__file__).resolve().parents[1]
Row = dict[str, Any]


def main() -> None:
    arguments = parse()
    preset = read_preset(arguments)
    runs = []
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        runs.append(Walk(arguments, preset, seed).run())
        show(runs[-1])
        arguments.out.write_text(json.dumps({"preset": preset, "runs": runs}, indent=1))
    show_all(runs)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--base", type=Path, required=True, help="folder of the base policy")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--split", default="heldout", help="eval while tuning, heldout to report")
    parser.add_argument("--work", type=Path, default=Path("walk_seeds"), help="run folders go here")
    parser.add_argument("--out", type=Path, default=Path("walk_seeds.json"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], help="section.name=JSON value")
    return parser.parse_args()


def read_preset(arguments: argparse.Namespace) -> Row:
    """The settings of every stage, with what `--set` changes."""
    path = ROOT / "rlhf/training/presets" / f"{arguments.preset}.toml"
    preset = tomllib.loads(path.read_text())
    for change in arguments.set:
        name, value = change.split("=", 1)
        section, _, key = name.partition(".")
        values, changes = preset.setdefault(section, {}), {key: json.loads(value)}
        config = CONFIGS.get(section)
        preset[section] = config.merged(values, changes) if config else values | changes
    return preset


class Walk:
    """One seed's rounds. The base policy is the same for every seed."""

    def __init__(self, arguments: argparse.Namespace, preset: Row, seed: int) -> None:
        self.arguments, self.preset, self.seed = arguments, preset, seed
        self.size = preset["round"]
        self.folder = arguments.work / f"seed{seed}"
        self.base = str(arguments.base.resolve())
        self.seconds: dict[str, float] = {}
        self.preferences: list[Row] = []
        self.heldout = self.prompts("heldout_prompts", arguments.split, "heldout")

    def run(self) -> Row:
        """The report: entry 0 is the base, then one entry per round."""
        base = self.evaluate(0, self.base, "", {})
        entries: list[Row] = [{"round": 0, "gold": base["gold"], "seconds": dict(self.seconds)}]
        before, policy = base, self.base
        for number in range(1, self.arguments.rounds + 1):
            self.seconds = {}
            began = time.monotonic()
            entry: Row = {"round": number}
            entry |= self.rank(number, policy)
            rewards, entry["rm"] = self.reward_model(number)
            policy, entry["ppo"] = self.ppo(number, policy, rewards)
            opponents = {"base": base["rows"], "previous": before["rows"]}
            before = self.evaluate(number, policy, rewards, opponents)
            entry |= {"gold": before["gold"], "model": before["model"]}
            entry["seconds"] = self.seconds | {"all": time.monotonic() - began}
            entries.append(entry)
        return {"seed": self.seed, "rounds": entries}

    # --- Stages -------------------------------------------------------------------------------

    def rank(self, number: int, policy: str) -> Row:
        """Sample the policy and let the simulated annotators rank; adds to `preferences`."""
        prompts = self.prompts("ranking_prompts", "train", f"rank{number}")
        out = self.stage(
            f"{number}-generate",
            "generate",
            self.preset["generate"] | {"policy": policy},
            prompts=as_rows(prompts),
        )
        people = annotator_team(self.size["annotators"], self.seed)
        generator = random.Random(f"{self.seed}/{number}/judge")
        agree, pairs = 0, 0
        for row in read(out / "responses.jsonl"):
            world = prompts[int(row["prompt_id"])]
            texts = [r["text"] for r in row["responses"]]
            if len(texts) < 2:
                continue
            for person in generator.sample(people, self.size["overlap"]):
                ranks = person.judge(world, texts).ranks
                self.preferences.append(
                    as_row(row["prompt_id"], world)
                    | {
                        "judgment_id": f"{number}-{row['prompt_id']}-{person.seed}",
                        "prompt_id": f"{number}-{row['prompt_id']}",
                        "annotator": f"simulated {person.seed}",
                        "round": number,
                        "responses": texts,
                        "ranks": ranks,
                        "weight": 1.0,
                    }
                )
                axis = "safety" if world.risk == "harmful" else "helpfulness"
                gold = [getattr(rubric.judge(world.slots, t), axis) for t in texts]
                for i, j in itertools.combinations(range(len(texts)), 2):
                    given, true = ranks[axis][i] - ranks[axis][j], gold[j] - gold[i]
                    if given and true:
                        pairs += 1
                        agree += (given > 0) == (true > 0)
        return {"n_judgments": len(self.preferences), "annotators_vs_gold": agree / max(pairs, 1)}

    def reward_model(self, number: int) -> tuple[str, Row]:
        """Train on all rankings so far, from the base's trunk."""
        # The first response to a ranked prompt is as good a sample of the policy as any other.
        asked = read(self.folder / f"{number}-generate" / "data/prompts.jsonl")
        answered = read(self.folder / f"{number}-generate" / "responses.jsonl")
        reference = [
            prompt | {"text": row["responses"][0]["text"]}
            for prompt, row in zip(asked, answered, strict=True)
        ][: self.size["reference_prompts"]]
        out = self.stage(
            f"{number}-reward_model",
            "reward_model",
            self.preset["reward_model"] | {"trunk": self.base},
            preferences=self.preferences,
            reference=reference,
        )
        result = json.loads((out / "result.json").read_text())
        return str(out), {k: result[k] for k in ("train", "test", "warnings")}

    def ppo(self, number: int, policy: str, rewards: str) -> tuple[str, Row]:
        """Refine the policy against the train-RM, held to the base."""
        harmful = self.size["ppo_harmful_share"]
        prompts = self.prompts("ppo_prompts", "train", f"ppo{number}", harmful)
        watch = self.prompts("watch_prompts", "eval", f"watch{number}")
        held = self.base if self.size["kl_reference"] == "base" else policy
        models = {
            "policy": policy,
            "reference": held,
            "reward_model": f"{rewards}/train",
            "test_reward_model": f"{rewards}/test",
        }
        out = self.stage(
            f"{number}-ppo",
            "ppo",
            self.preset["ppo"] | models,
            prompts=as_rows(prompts),
            watch=as_rows(watch),
        )
        return str(out / "policy"), json.loads((out / "result.json").read_text())

    def evaluate(self, number: int, policy: str, rewards: str, opponents: dict[str, Any]) -> Row:
        """Sample the held-out prompts; gold judges them here, the reward model in the stage."""
        out = self.stage(
            f"{number}-evaluate",
            "evaluate",
            self.preset["evaluate"]
            | {"policy": policy, "reward_model": f"{rewards}/train" if rewards else ""},
            prompts=as_rows(self.heldout),
            **{f"opponents/{name}": rows for name, rows in opponents.items()},
        )
        rows = read(out / "samples.jsonl")
        judged = group_by_temperature(self.gold(rows))
        others = {
            name: group_by_temperature(self.gold(theirs)) for name, theirs in opponents.items()
        }
        summary = {
            temperature: summarize(
                samples, {name: groups[temperature] for name, groups in others.items()}
            )
            for temperature, samples in judged.items()
        }
        for temperature, samples in judged.items():
            scores = [s["preference"] for s in samples]
            summary[temperature]["gold"] = sum(scores) / len(scores)
        model = json.loads((out / "result.json").read_text())["summary"]
        return {"rows": rows, "gold": summary, "model": model}

    # --- Helpers ------------------------------------------------------------------------------

    def prompts(
        self, size: str, split: Split, purpose: str, harmful: float | None = None
    ) -> list[WorldPrompt]:
        share = self.size["harmful_share"] if harmful is None else harmful
        seed = random.Random(f"{self.seed}/{purpose}").getrandbits(32)
        return make_prompts(split, self.size[size], seed, harmful_share=share)

    def gold(self, rows: list[Row]) -> list[Row]:
        judged = []
        for row in rows:
            world = self.heldout[int(row["prompt_id"])]
            gold = rubric.judge(world.slots, row["text"])
            judged.append(
                {
                    "prompt_id": row["prompt_id"],
                    "category": world.category,
                    "risk": world.risk,
                    "temperature": row["temperature"],
                    "n_tokens": row["n_tokens"],
                    "helpfulness": gold.helpfulness,
                    "safety": gold.safety,
                    "preference": gold.preference,
                    "violation": gold.violation if world.risk == "harmful" else None,
                    "refusal": gold.refusal if world.risk == "harmless" else None,
                    "entity": gold.entities_right,
                    "correct": gold.correct,
                }
            )
        return judged

    def stage(self, name: str, stage: str, config: Row, **data: list[Row]) -> Path:
        folder: Path = (self.folder / name).resolve()
        if not (folder / "result.json").exists():
            (folder / "data/opponents").mkdir(parents=True, exist_ok=True)
            config = {"seed": self.seed, "threads": self.arguments.threads} | config
            (folder / "config.json").write_text(json.dumps(config))
            for file, rows in data.items():
                text = "".join(json.dumps(row) + "\n" for row in rows)
                (folder / "data" / f"{file}.jsonl").write_text(text)
            began = time.monotonic()
            with (folder / "log.txt").open("w") as log:
                subprocess.run(
                    [sys.executable, "-m", f"rlhf.training.{stage}", str(folder)],
                    cwd=ROOT,
                    env=os.environ | {"OMP_NUM_THREADS": str(self.arguments.threads)},
                    stdout=log,
                    stderr=log,
                    check=True,
                )
            key = name.split("-", 1)[1]
            self.seconds[key] = time.monotonic() - began
        return folder


def as_row(prompt_id: str, prompt: WorldPrompt) -> Row:
    """A prompt as the run folder has it."""
    return {
        "prompt_id": prompt_id,
        "messages": prompt.messages,
        "category": prompt.category,
        "risk": prompt.risk,
    }


def as_rows(prompts: list[WorldPrompt]) -> list[Row]:
    return [as_row(str(number), prompt) for number, prompt in enumerate(prompts)]


def read(path: Path) -> list[Row]:
    with path.open() as lines:
        return [json.loads(line) for line in lines]


def show(run: Row) -> None:
    """One seed's table."""
    print(f"\nseed {run['seed']}")
    for entry in run["rounds"]:
        for temperature, s in entry["gold"].items():
            wins = s["win_rate_vs_base"]
            categories = "  ".join(f"{k} {v['score']:.2f}" for k, v in s["by_category"].items())
            won = ""
            if wins:
                won = f"  win {wins['value']:.3f} [{wins['ci'][0]:.2f}, {wins['ci'][1]:.2f}]"
            print(
                f"  round {entry['round']} T={temperature}: gold {s['gold']:+.2f}{won}"
                f"  violation {s['violation_rate']['value']:.3f}"
                f"  over-refusal {s['over_refusal_rate']['value']:.3f}"
                f"  length {s['mean_length']['value']:.1f}  entity {s['entity_accuracy']['value']:.3f}"
                f"  correct {s['correct_rate']['value']:.3f}"
                f"  | {categories}"
            )
        if "rm" in entry:
            figures = "  ".join(
                f"{half} {axis} {f['accuracy']:.3f} (n {f['n']}, ece {f['ece']:.3f})"
                for half in ("train", "test")
                for axis, f in entry["rm"][half].items()
                if f["n"]
            )
            seconds = {k: round(v) for k, v in entry["seconds"].items()}
            ppo = {k: round(v, 2) if isinstance(v, float) else v for k, v in entry["ppo"].items()}
            print(f"    annotators vs gold {entry['annotators_vs_gold']:.3f}; {figures}")
            print(f"    {'; '.join(entry['rm']['warnings'])}")
            print(f"    ppo {ppo}")
            print(f"    seconds {seconds}", flush=True)


def show_all(runs: list[Row]) -> None:
    """What the targets of the walk are about: the last round of every seed."""
    print("\nlast round of every seed, gold")
    for temperature in runs[0]["rounds"][-1]["gold"]:
        for run in runs:
            s = run["rounds"][-1]["gold"][temperature]
            base = run["rounds"][0]["gold"][temperature]
            wins = s["win_rate_vs_base"]
            seconds = sum(e["seconds"].get("all", 0) for e in run["rounds"])

            def change(name: str, base: Row = base, s: Row = s) -> str:
                return f"{base[name]['value']:.3f} -> {s[name]['value']:.3f}"

            print(
                f"  T={temperature} seed {run['seed']}: win {wins['value']:.3f} "
                f"[{wins['ci'][0]:.3f}, {wins['ci'][1]:.3f}]  "
                f"violation {change('violation_rate')}  "
                f"over-refusal {change('over_refusal_rate')}  "
                f"entity {change('entity_accuracy')}  correct {change('correct_rate')}  length {s['mean_length']['value']:.1f}  "
                f"gold {base['gold']:+.2f} -> {s['gold']:+.2f}  {seconds:.0f} s"
            )


if __name__ == "__main__":
    main()
