"""A reward model's evaluation on unseen pairs: accuracy, calibration, breakdowns.

Plain numbers in, the fields of `result.json` out. Published figures to compare with are of the same
kind: accuracy by strength (Llama 2, table 8), by round and annotator (Bai et al. 2022,
sections 4.1 and 4.5), calibration (ibid., section 3.3).
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rlhf.training import reward_math
from rlhf.training.intervals import share_with_interval

LEAKAGE = 0.8
"""Accuracy on people's held-out pairs above which the split is suspected to have leaked: people
agree with one another on 63 % to 77 % of such pairs (HH, InstructGPT, Stiennon et al. 2020), and
models of 0.8 to 70 B parameters end at 72 % to 75 % on HH."""

SIMULATED = "simulated"
"""The name prefix of simulated annotators (docs/formats.md)."""


@dataclass
class ScoredPair:
    """One pair that one person decided, and how the reward model scores it."""

    axis: str
    prompt_id: str
    difference: float
    """Score of the response that the person preferred, minus the other's."""
    category: str = ""
    annotator: str = ""
    round: str = ""
    strength: str = ""
    agreed: list[bool] = field(default_factory=list)
    """Whether each other person who decided this very pair chose the same."""

    @property
    def right(self) -> float:
        """1, 0, or one half if both scores are equal."""
        return 0.5 if self.difference == 0 else float(self.difference > 0)


BREAKDOWNS = ("strength", "category", "annotator", "round")


def figures(pairs: Sequence[ScoredPair], *, seed: int) -> dict[str, Any]:
    """Everything that `result.json` holds about one axis of one reward model."""
    if not pairs:
        names = ("accuracy", "accuracy_ci", "ece", "human_agreement", "temperature", "ece_fitted")
        return dict.fromkeys(names) | {"n": 0, "by": {}}
    error, _ = calibration([pair.difference for pair in pairs])
    temperature, fitted = fitted_temperature(pairs, seed=seed)
    return _accuracy(pairs, seed) | {
        "ece": error,
        "temperature": temperature,
        "ece_fitted": fitted,
        "by": {
            name: {
                value: _accuracy([pair for pair in pairs if getattr(pair, name) == value], seed)
                for value in sorted({getattr(pair, name) for pair in pairs if getattr(pair, name)})
            }
            for name in BREAKDOWNS
        },
    }


def reliability_diagram(pairs: Sequence[ScoredPair]) -> list[dict[str, float]]:
    """The points of the reliability diagram: confidence, accuracy, number of pairs."""
    return calibration([pair.difference for pair in pairs])[1]


def calibration(
    differences: Sequence[float], temperature: float = 1.0
) -> tuple[float, list[dict[str, float]]]:
    """Expected calibration error of score differences, and the points of the reliability diagram."""
    confidences = [reward_math.sigmoid(d / temperature) for d in differences]
    # The preferred side won. If both scores are equal, the model's prediction is undefined.
    won = [0.5 if d == 0 else 1.0 for d in differences]
    return reward_math.expected_calibration_error(confidences, won)


def fitted_temperature(pairs: Sequence[ScoredPair], *, seed: int) -> tuple[float, float | None]:
    """The temperature that fits these pairs, and the ECE that such a temperature leaves.

    The ECE is of unseen pairs: a temperature fitted on one half of the prompts is used on the other
    half, both ways. None where one half has no pair.
    """
    halves: tuple[list[float], list[float]] = ([], [])
    for pair in pairs:
        digest = hashlib.sha256(f"{seed}/{pair.prompt_id}".encode()).digest()
        halves[digest[0] % 2].append(pair.difference)
    temperature = reward_math.fit_temperature([pair.difference for pair in pairs])
    if not all(halves):
        return temperature, None
    scaled: list[float] = []
    for fitted_on, used_on in (halves, halves[::-1]):
        fitted = reward_math.fit_temperature(fitted_on)
        scaled += [d / fitted for d in used_on]
    return temperature, calibration(scaled)[0]


def add_agreement(pairs: Sequence[ScoredPair], keys: Sequence[tuple[Any, bool]]) -> None:
    """Fill in `agreed`: `keys` holds, for each pair, a key of it and whether its first side won."""
    decisions: dict[Any, list[tuple[str, bool]]] = defaultdict(list)
    for pair, (key, first_won) in zip(pairs, keys, strict=True):
        decisions[pair.axis, key].append((pair.annotator, first_won))
    for pair, (key, first_won) in zip(pairs, keys, strict=True):
        pair.agreed = [
            decision == first_won
            for annotator, decision in decisions[pair.axis, key]
            if annotator != pair.annotator
        ]


def agreement(pairs: Sequence[ScoredPair]) -> tuple[float | None, int]:
    """The agreement rate of two people on the same pair, and the number of such cases."""
    votes = [same for pair in pairs for same in pair.agreed]
    return (sum(votes) / len(votes) if votes else None), len(votes)


def warnings(name: str, axis: str, measured: dict[str, Any], *, by_people: bool) -> list[str]:
    """Warnings about one axis of `figures`: too few pairs, or an accuracy that is too good."""
    if measured["n"] < 30:
        return [f"Only {measured['n']} held-out pairs measure the {name}-RM's {axis}."]
    if by_people and measured["accuracy"] > LEAKAGE:
        warning = (
            f"Suspected leakage: the {name}-RM is right on {measured['accuracy']:.0%} of held-out "
            f"{axis} pairs, more than people agree with one another; check that no prompt is there "
            "twice in other words."
        )
        return [warning]
    return []


def _accuracy(pairs: Sequence[ScoredPair], seed: int) -> dict[str, Any]:
    mean, interval, n_prompts = share_with_interval(
        [pair.right for pair in pairs], [pair.prompt_id for pair in pairs], seed=seed
    )
    human, n_human = agreement(pairs)
    return {
        "accuracy": mean,
        "accuracy_ci": list(interval),
        "n": len(pairs),
        "n_prompts": n_prompts,
        "human_agreement": human,
        "human_n": n_human,
    }
