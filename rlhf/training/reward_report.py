"""How right a reward model is on pairs that it has not seen: accuracy, calibration, breakdowns.

Plain numbers in, the fields of `result.json` out. The published figures to hold these against are
of the same kind: accuracy by strength (Llama 2, table 8), by round and annotator (Bai et al. 2022,
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
"""What the names of programs that play annotators begin with (docs/formats.md)."""


@dataclass
class Verdict:
    """One held-out pair that one person decided, and what the reward model says of it."""

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
        """1, 0, or a half where the model can't tell the two apart."""
        return 0.5 if self.difference == 0 else float(self.difference > 0)


BREAKDOWNS = ("strength", "category", "annotator", "round")


def figures(verdicts: Sequence[Verdict], *, seed: int) -> dict[str, Any]:
    """Everything that `result.json` tells of one axis of one reward model."""
    if not verdicts:
        names = ("accuracy", "accuracy_ci", "ece", "human_agreement", "temperature", "ece_fitted")
        return dict.fromkeys(names) | {"n": 0, "by": {}}
    differences = [v.difference for v in verdicts]
    error, _ = reliability(differences)
    temperature, fitted = calibrated(verdicts, seed=seed)
    return _accuracy(verdicts, seed) | {
        "ece": error,
        "temperature": temperature,
        "ece_fitted": fitted,
        "by": {
            name: {
                value: _accuracy([v for v in verdicts if getattr(v, name) == value], seed)
                for value in sorted({getattr(v, name) for v in verdicts if getattr(v, name)})
            }
            for name in BREAKDOWNS
        },
    }


def reliability(
    differences: Sequence[float], temperature: float = 1.0
) -> tuple[float, list[dict[str, float]]]:
    """ECE and the points of the reliability diagram: how sure, how often right, how many."""
    sure = [reward_math.sigmoid(d / temperature) for d in differences]
    # The preferred side won; where both score alike, the model does not say which that is.
    won = [0.5 if d == 0 else 1.0 for d in differences]
    return reward_math.expected_calibration_error(sure, won)


def calibrated(verdicts: Sequence[Verdict], *, seed: int) -> tuple[float, float | None]:
    """The temperature that fits these pairs, and the ECE that such a temperature leaves.

    The ECE is honest: a temperature fitted on one half of the prompts is used on the other half,
    both ways. None where one half has no pair.
    """
    halves: tuple[list[float], list[float]] = ([], [])
    for v in verdicts:
        told = hashlib.sha256(f"{seed}/{v.prompt_id}".encode()).digest()
        halves[told[0] % 2].append(v.difference)
    temperature = reward_math.fit_temperature([v.difference for v in verdicts])
    if not all(halves):
        return temperature, None
    scaled: list[float] = []
    for fitted_on, used_on in (halves, halves[::-1]):
        fitted = reward_math.fit_temperature(fitted_on)
        scaled += [d / fitted for d in used_on]
    return temperature, reliability(scaled)[0]


def add_agreement(verdicts: Sequence[Verdict], pairs: Sequence[tuple[Any, bool]]) -> None:
    """Fill in `agreed`: `pairs` holds, for each verdict, which pair it is and which side won."""
    said: dict[Any, list[tuple[str, bool]]] = defaultdict(list)
    for verdict, (pair, first_won) in zip(verdicts, pairs, strict=True):
        said[verdict.axis, pair].append((verdict.annotator, first_won))
    for verdict, (pair, first_won) in zip(verdicts, pairs, strict=True):
        verdict.agreed = [
            other == first_won
            for who, other in said[verdict.axis, pair]
            if who != verdict.annotator
        ]


def agreement(verdicts: Sequence[Verdict]) -> tuple[float | None, int]:
    """How often two people who decided the same pair chose alike, and in how many cases."""
    votes = [same for v in verdicts for same in v.agreed]
    return (sum(votes) / len(votes) if votes else None), len(votes)


def suspicion(name: str, axis: str, told: dict[str, Any], *, people: bool) -> str:
    """The warning that an accuracy deserves, or nothing."""
    if told["n"] < 30:
        return f"Only {told['n']} held-out pairs measure the {name}-RM's {axis}."
    if people and told["accuracy"] > LEAKAGE:
        return (
            f"Suspected leakage: the {name}-RM is right on {told['accuracy']:.0%} of held-out "
            f"{axis} pairs, more than people agree with one another; check that no prompt is there "
            "twice in other words."
        )
    return ""


def _accuracy(verdicts: Sequence[Verdict], seed: int) -> dict[str, Any]:
    mean, interval, n_prompts = share_with_interval(
        [v.right for v in verdicts], [v.prompt_id for v in verdicts], seed=seed
    )
    human, n_human = agreement(verdicts)
    return {
        "accuracy": mean,
        "accuracy_ci": list(interval),
        "n": len(verdicts),
        "n_prompts": n_prompts,
        "human_agreement": human,
        "human_n": n_human,
    }
