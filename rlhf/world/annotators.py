"""Simulated annotators: the rubric's judgment with noise.

They stand in for people in the demo, in tests and in benchmarks, and are labeled as simulated
wherever their judgments appear. Each has Plackett-Luce noise (a Gumbel variate added to the
rubric's points of each response) and a bias for the response shown first; one of them ranks at
random.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rlhf.world import everyday
from rlhf.world.prompts import Slots, WorldPrompt, parse_prompt
from rlhf.world.rubric import Gold, judge

AXES = ("helpfulness", "safety")
EVERYDAY_SCALE = 0.6
"""Of noise and position bias where an everyday question is judged, whose rule tells fewer responses
apart than the world's rubric. At .6 two annotators agree on about three of four pairs, as people do
(72.6 %: Ouyang et al. 2022, section 3.4)."""


@dataclass(frozen=True)
class Flag:
    """Something that is wrong with one response."""

    kind: Literal["unsafe", "wrong", "off_topic", "rude"]
    category: str = ""
    """For unsafe: theft, damage, spying, cheating or bullying; the category of an everyday
    question."""


@dataclass(frozen=True)
class SimulatedJudgment:
    """An annotator's judgment of the responses, in the order in which they were shown."""

    ranks: dict[str, list[int]]
    """Per axis one rank per response: 1 is best, equal numbers are ties (1, 2, 2, 4)."""
    flags: list[list[Flag]]
    seconds: float
    """The simulated duration of the judgment; the simulation does not wait."""


@dataclass(frozen=True)
class SimulatedAnnotator:
    """One simulated person. The same seed, prompt and responses always get the same judgment.

    noise: scale of the Gumbel variate, in points of the rubric. position_bias: bonus points of the
    response shown first. tie_width: responses closer than this (points, after noise) are given the
    same rank. spammer: ranks at random and flags nothing.
    """

    seed: int
    noise: float = 0.8
    position_bias: float = 0.3
    tie_width: float = 0.25
    spammer: bool = False

    def judge(
        self, prompt: str | Slots | WorldPrompt, responses: Sequence[str]
    ) -> SimulatedJudgment:
        """Rank the responses as shown. ValueError for a prompt outside the world that is no everyday
        question either."""
        question = everyday.find(prompt)
        subject: Slots | everyday.Question = question or _slots(prompt)
        generator = random.Random(f"{self.seed}/{subject}/{list(responses)}")
        n_words = sum(len(response.split()) for response in responses)
        if self.spammer:
            return SimulatedJudgment(
                ranks={axis: _shuffled_ranks(len(responses), generator) for axis in AXES},
                flags=[[] for _ in responses],
                seconds=round(generator.uniform(1.5, 4.0), 1),
            )
        scale = EVERYDAY_SCALE if question else 1.0
        golds = [
            everyday.judge(subject, response)
            if isinstance(subject, everyday.Question)
            else judge(subject, response)
            for response in responses
        ]
        ranks = {
            axis: self._rank([getattr(gold, axis) for gold in golds], responses, generator, scale)
            for axis in AXES
        }
        category = question.category if question else _slots(prompt).harm_category
        flags = [self._flag(category, gold, generator) for gold in golds]
        seconds = round(4 + n_words / 4 * generator.uniform(0.8, 1.4), 1)
        return SimulatedJudgment(ranks, flags, seconds)

    def _rank(
        self,
        points: Sequence[float],
        responses: Sequence[str],
        generator: random.Random,
        scale: float,
    ) -> list[int]:
        if len(set(points)) == 1 and self._attentive(generator):
            # All are equal (for example four harmless answers on safety): an attentive person ties them.
            return [1] * len(points)
        seen: dict[str, float] = {}
        for place, (point, response) in enumerate(zip(points, responses, strict=True)):
            if response not in seen:  # a person notices that two texts are the same
                bias = self.position_bias if place == 0 else 0.0
                noise = self.noise * _gumbel(generator)
                seen[response] = point + scale * (bias + noise)
        return ranks_of([seen[response] for response in responses], self.tie_width)

    def _flag(self, category: str, gold: Gold, generator: random.Random) -> list[Flag]:
        flags = []
        if gold.violation:
            flags.append(Flag("unsafe", category))
        if gold.wrong:
            flags.append(Flag("wrong"))
        if gold.off_topic:
            flags.append(Flag("off_topic"))
        if gold.rude:
            flags.append(Flag("rude"))
        return [flag for flag in flags if self._attentive(generator)]

    def _attentive(self, generator: random.Random) -> bool:
        return generator.random() < 1 - min(0.5, self.noise / 10)


def annotator_team(size: int, seed: int) -> list[SimulatedAnnotator]:
    """The demo's team: the last annotator is a spammer, the others differ in noise and position
    bias.

    ValueError for fewer than two: judgments by spammers alone are useless.
    """
    if size < 2:
        raise ValueError(f"A simulated team needs at least 2 annotators, got {size}")
    generator = random.Random(f"{seed}/team")
    team = [
        SimulatedAnnotator(
            seed=seed * 1000 + index,
            noise=round(generator.uniform(0.6, 1.0), 2),
            position_bias=round(generator.uniform(0.1, 0.5), 2),
        )
        for index in range(size - 1)
    ]
    return [*team, SimulatedAnnotator(seed=seed * 1000 + size - 1, spammer=True)]


def ranks_of(points: Sequence[float], tie_width: float = 0.0) -> list[int]:
    """Competition ranks (1, 2, 2, 4), the highest first.

    A response ties with the group above it when it is within `tie_width` of that group's best.
    """
    order = sorted(range(len(points)), key=lambda index: -points[index])
    ranks = [0] * len(points)
    rank, best = 0, math.inf
    for place, index in enumerate(order, start=1):
        if best - points[index] > tie_width:
            rank, best = place, points[index]
        ranks[index] = rank
    return ranks


def _shuffled_ranks(n: int, generator: random.Random) -> list[int]:
    ranks = list(range(1, n + 1))
    generator.shuffle(ranks)
    return ranks


def _gumbel(generator: random.Random) -> float:
    """A standard Gumbel variate: sorting by utility plus this is Plackett-Luce sampling."""
    return -math.log(-math.log(generator.uniform(1e-12, 1 - 1e-12)))


def _slots(prompt: str | Slots | WorldPrompt) -> Slots:
    if isinstance(prompt, WorldPrompt):
        return prompt.slots
    if isinstance(prompt, Slots):
        return prompt
    slots = parse_prompt(prompt)
    if slots is None:
        raise ValueError(f"The world doesn't know the prompt {prompt[:80]!r}")
    return slots
