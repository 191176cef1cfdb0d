"""How many spammers are found, and how many honest people are suspected.

    python -m benchmarks.spam_detection --seeds 20
    python -m benchmarks.spam_detection --seeds 20 --interface rate

Honest simulated annotators of the small world (the rubric's opinion through Plackett-Luce noise,
each with a liking for what is shown first) judge together with spammers of one kind. For each kind:
precision (suspected people who are spammers) and recall (spammers who are suspected) of
`annotation.statistics.reliability` at its own threshold, over seeds, teams and amounts of work. A second table
says how often an honest person is suspected when there is no spammer, for careful people, for
careless ones (twice the noise) and for people with a strong liking for what comes first.

With `--interface rate` nobody ranks: each response gets a mark from 1 to 7 (the rubric's helpfulness
with noise, each person being more or less severe) and a vote on safety (the rubric's violation, with
slips). Spammers there: the same mark and "safe" for everything, marks at random, the length's mark,
fast ones, and half-honest ones. "Severe" people in the second table lie two marks below the others.
"""

import argparse
import json
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from annotation.protocols import SAFE_OR_NOT, mark_on
from annotation.statistics.labels import Rating, Vote
from annotation.statistics.reliability import assess
from rlhf.world.annotators import AXES, SimulatedAnnotator, ranks_of
from rlhf.world.answers import answer, draw_style
from rlhf.world.prompts import WorldPrompt, make_prompts
from rlhf.world.rubric import judge

Ranks = dict[str, list[int]]
Spammer = Callable[[Sequence[str], random.Random], tuple[Ranks, float]]


def both(ranks: list[int]) -> Ranks:
    return dict.fromkeys(AXES, ranks)


def slowly(texts: Sequence[str], generator: random.Random) -> float:
    """As long as somebody who reads: speed must not give these away."""
    return 4 + sum(len(text.split()) for text in texts) / 4 * generator.uniform(0.8, 1.4)


def at_random(texts: Sequence[str], generator: random.Random) -> tuple[Ranks, float]:
    k = len(texts)
    return {a: generator.sample(range(1, k + 1), k) for a in AXES}, slowly(texts, generator)


def position_fixed(texts: Sequence[str], generator: random.Random) -> tuple[Ranks, float]:
    """A, B, C … nine times of ten; the tenth at random, to look alive."""
    if generator.random() < 0.1:
        return at_random(texts, generator)
    return both(list(range(1, len(texts) + 1))), slowly(texts, generator)


def always_tie(texts: Sequence[str], generator: random.Random) -> tuple[Ranks, float]:
    if generator.random() < 0.05:
        return at_random(texts, generator)
    return both([1] * len(texts)), slowly(texts, generator)


def copy_length(texts: Sequence[str], generator: random.Random) -> tuple[Ranks, float]:
    return both(ranks_of([len(text) for text in texts])), slowly(texts, generator)


def fast(texts: Sequence[str], generator: random.Random) -> tuple[Ranks, float]:
    """Reads nothing and takes a second or two: random, and too fast to have read."""
    return at_random(texts, generator)[0], generator.uniform(0.6, 2.0)


def half_honest(judge: SimulatedAnnotator) -> Callable[..., tuple[Ranks, float]]:
    """Honest on every other comparison, random on the rest: the hardest kind."""

    def act(
        texts: Sequence[str], generator: random.Random, prompt: WorldPrompt
    ) -> tuple[Ranks, float]:
        if generator.random() < 0.5:
            return at_random(texts, generator)
        said = judge.judge(prompt, texts)
        return said.ranks, said.seconds

    return act


KINDS: dict[str, Spammer | None] = {
    "random": at_random,
    "position-fixed": position_fixed,
    "always-tie": always_tie,
    "copy-length": copy_length,
    "fast": fast,
    "half-honest": None,
}


def honest(index: int, seed: int, kind: str = "careful") -> SimulatedAnnotator:
    generator = random.Random(f"{seed}/{index}/honest")
    noise, bias = generator.uniform(0.6, 1.0), generator.uniform(0.1, 0.5)
    if kind == "careless":
        noise *= 2
    if kind == "first-loving":
        bias = 1.5
    return SimulatedAnnotator(seed=seed * 1000 + index, noise=noise, position_bias=bias)


class Shown(NamedTuple):
    """One comparison as one person gets it: which responses, in which order, and their texts."""

    who: str
    unit: int
    prompt: WorldPrompt
    order: tuple[int, ...]
    texts: list[str]

    @property
    def lengths(self) -> tuple[int, ...]:
        return tuple(len(text) for text in self.texts)


def handed_out(
    names: Sequence[str], seed: int, each: int, k: int, overlap: int, generator: random.Random
) -> Iterator[Shown]:
    """What people are given in one project: about `each` comparisons for everybody."""
    done = dict.fromkeys(names, 0)
    n = math.ceil(each * len(names) / overlap)
    for unit, prompt in enumerate(make_prompts("train", min(n, 2500), seed)):
        texts = [
            answer(prompt.slots, draw_style(prompt.slots, generator, "mix"), generator)
            for _ in range(k)
        ]
        for who in sorted(names, key=lambda name: (done[name], generator.random()))[:overlap]:
            done[who] += 1
            order = generator.sample(range(k), k)
            yield Shown(who, unit, prompt, tuple(order), [texts[i] for i in order])


def votes(
    seed: int, people: int, spammers: int, kind: str, each: int, k: int, overlap: int,
    temper: str = "careful",
) -> Iterator[Vote]:  # fmt: skip
    """Rankings of one project."""
    generator = random.Random(f"{seed}/{kind}/{people}/{each}/{k}")
    team = {f"person {i}": honest(i, seed, temper) for i in range(people)}
    names = [*team, *(f"spammer {i}" for i in range(spammers))]
    for one in handed_out(names, seed, each, k, overlap, generator):
        ranks, seconds = said(one.who, team, kind, one.prompt, one.texts, generator, seed)
        for axis in AXES:
            ranked = tuple(ranks[axis])
            yield Vote(one.who, one.unit, one.order, ranked, one.lengths, seconds, axis)


def said(
    who: str, team: dict[str, SimulatedAnnotator], kind: str, prompt: WorldPrompt,
    shown: Sequence[str], generator: random.Random, seed: int,
) -> tuple[Ranks, float]:  # fmt: skip
    if who in team:
        judged = team[who].judge(prompt, shown)
        return judged.ranks, judged.seconds
    spammer = KINDS[kind]
    if spammer is None:
        return half_honest(honest(99, seed))(shown, generator, prompt)
    return spammer(shown, generator)


# --- A project that rates ------------------------------------------------------------------------------

Said = tuple[list[int], list[int], float]
"""Marks from 1 to 7, votes (1 is safe), seconds."""


def random_marks(texts: Sequence[str], generator: random.Random) -> Said:
    marks = [generator.randint(1, 7) for _ in texts]
    return marks, [generator.randint(0, 1) for _ in texts], slowly(texts, generator)


def constant_marks(texts: Sequence[str], generator: random.Random) -> Said:
    if generator.random() < 0.05:
        return random_marks(texts, generator)
    return [5] * len(texts), [1] * len(texts), slowly(texts, generator)


def length_marks(texts: Sequence[str], generator: random.Random) -> Said:
    marks = [max(1, min(7, len(text) // 25)) for text in texts]
    return marks, [1] * len(texts), slowly(texts, generator)


def fast_marks(texts: Sequence[str], generator: random.Random) -> Said:
    marks, safe, _ = random_marks(texts, generator)
    return marks, safe, generator.uniform(0.6, 2.0)


def honest_marks(
    who: str, seed: int, temper: str, prompt: WorldPrompt, shown: Sequence[str],
    generator: random.Random,
) -> Said:  # fmt: skip
    own = random.Random(f"{seed}/{who}/honest")
    noise, lean = own.uniform(0.6, 1.0), own.gauss(0, 0.5)
    noise *= 2 if temper == "careless" else 1
    lean -= 2 if temper == "severe" and who == "person 0" else 0
    golds = [judge(prompt.slots, text) for text in shown]
    marks = [
        max(1, min(7, round(3 + gold.helpfulness + lean + generator.gauss(0, noise))))
        for gold in golds
    ]
    slip = noise / 20
    safe = [int(gold.violation == (generator.random() < slip)) for gold in golds]
    return marks, safe, slowly(shown, generator)


MARK_KINDS: dict[str, Callable[[Sequence[str], random.Random], Said] | None] = {
    "random": random_marks,
    "constant": constant_marks,
    "copy-length": length_marks,
    "fast": fast_marks,
    "half-honest": None,
}


def ratings(
    seed: int, people: int, spammers: int, kind: str, each: int, k: int, overlap: int,
    temper: str = "careful",
) -> Iterator[Rating]:  # fmt: skip
    """Ratings and safety votes of one project."""
    generator = random.Random(f"{seed}/{kind}/{people}/{each}/{k}/rate")
    names = [f"person {i}" for i in range(people)] + [f"spammer {i}" for i in range(spammers)]
    for one in handed_out(names, seed, each, k, overlap, generator):
        spam = MARK_KINDS.get(kind) if one.who.startswith("spammer") else None
        if one.who.startswith("spammer") and spam is None and generator.random() < 0.5:
            spam = random_marks
        marks, safe, seconds = (
            spam(one.texts, generator)
            if spam
            else honest_marks(one.who, seed, temper, one.prompt, one.texts, generator)
        )
        given = {mark_on("quality"): tuple(marks), SAFE_OR_NOT: tuple(safe)}
        yield Rating(one.who, one.unit, one.order, given, one.lengths, seconds)


def suspected(interface: str, seeds: int, *of: Any, temper: str = "careful") -> Counter[str]:
    """How many honest people ("person") and spammers ("spammer") are suspected over these seeds."""
    found: Counter[str] = Counter()
    for seed in range(seeds):
        quality = (
            assess([], ratings(seed, *of, temper=temper))
            if interface == "rate"
            else assess(votes(seed, *of, temper=temper))
        )
        found.update(str(who).split()[0] for who, p in quality.profiles.items() if p.is_suspect)
    return found


def row(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def head(*columns: str) -> None:
    row(*columns)
    print("|" + "---|" * len(columns))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--people", type=int, default=8, help="honest ones")
    parser.add_argument("--spammers", type=int, default=2)
    parser.add_argument("--each", type=int, nargs="+", default=[20, 50, 150])
    parser.add_argument("--overlap", type=int, default=2)
    parser.add_argument("--k", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--interface", choices=("rank", "rate"), default="rank")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    rates = asked.interface == "rate"
    sizes = [(k, each) for k in asked.k for each in asked.each]
    of, n_honest = asked.seeds * asked.spammers, asked.seeds * asked.people
    found = []
    print(f"{asked.people} honest, {asked.spammers} spammers, overlap {asked.overlap}, "
          f"{asked.seeds} seeds")  # fmt: skip
    head("kind", "K", "judged each", "precision", "recall", "suspected honest")
    for kind in MARK_KINDS if rates else KINDS:
        for k, each in sizes:
            team = (asked.people, asked.spammers, kind, each, k, asked.overlap)
            wrong = suspected(asked.interface, asked.seeds, *team)
            hits, false = wrong["spammer"], wrong["person"]
            precision = hits / (hits + false) if hits + false else float("nan")
            found.append(
                {"kind": kind, "k": k, "each": each, "precision": precision,
                 "recall": hits / of, "hits": hits, "false": false, "of": of}
            )  # fmt: skip
            recall = f"{hits / of:.3f} ({hits}/{of})"
            row(kind, k, each, f"{precision:.3f}", recall, f"{false}/{n_honest}")
    hits, false = sum(cell["hits"] for cell in found), sum(cell["false"] for cell in found)
    print(
        f"all: precision {hits / max(1, hits + false):.3f}, recall {hits / (of * len(found)):.3f}"
    )
    print("\nNo spammer: honest people suspected")
    head("people", "K", "judged each", "suspected")
    for temper in ("careful", "careless", "severe" if rates else "first-loving"):
        for k, each in sizes:
            team = (asked.people, 0, "none", each, k, asked.overlap)
            wrong = suspected(asked.interface, asked.seeds, *team, temper=temper)
            row(temper, k, each, f"{wrong.total()}/{n_honest}")
    if asked.out:
        asked.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"{time.perf_counter() - started:.0f} s")
