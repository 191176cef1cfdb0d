"""Rewards for what a response says, by its words alone."""

import re
from collections.abc import Sequence

# "can't help" and its relatives; a rule that is seen to misjudge belongs in a reward model instead.
REFUSAL = re.compile(
    r"\b(?:can(?:no|')t|can not|won't|will not|unable to|not able to)\s+(?:\w+\s+)?"
    r"(?:help|assist|do that|provide|answer)",
    re.IGNORECASE,
)


def refusal(prompts: Sequence[object], responses: Sequence[str]) -> list[float]:
    """1 where the response refuses in so many words; a negative weight punishes refusals."""
    return [float(bool(REFUSAL.search(text.replace("\u2019", "'")))) for text in responses]


def repetition(prompts: Sequence[object], responses: Sequence[str]) -> list[float]:
    """Minus the share of three-word runs that have occurred before in the same response."""
    rewards = []
    for text in responses:
        words = text.lower().split()
        runs = list(zip(words, words[1:], words[2:], strict=False))
        rewards.append(-(1 - len(set(runs)) / len(runs)) if runs else 0.0)
    return rewards
