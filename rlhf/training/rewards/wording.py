"""Rewards for the wording of a response."""

import re
from collections.abc import Sequence

# "can't help" and the like. What needs more than a pattern belongs in a reward model.
REFUSAL = re.compile(
    r"\b(?:can(?:no|')t|can not|won't|will not|unable to|not able to)\s+(?:\w+\s+)?"
    r"(?:help|assist|do that|provide|answer)",
    re.IGNORECASE,
)


def refusal(prompts: Sequence[object], responses: Sequence[str]) -> list[float]:
    """1 where the response refuses explicitly; a negative weight punishes refusals."""
    return [float(refuses(text)) for text in responses]


def refuses(text: str) -> bool:
    """Whether a text is an explicit refusal."""
    return bool(REFUSAL.search(text.replace("\u2019", "'")))


def must_not_say(
    prompts: Sequence[object], responses: Sequence[str], *, phrases: Sequence[str] = ()
) -> list[float]:
    """-1 for each of `forbidden_phrases` that a response contains as whole words, in any case."""
    patterns = [
        re.compile(rf"(?<!\w){re.escape(phrase)}(?!\w)", re.IGNORECASE) for phrase in phrases
    ]
    return [-float(sum(bool(pattern.search(text)) for pattern in patterns)) for text in responses]


def in_format(
    prompts: Sequence[object], responses: Sequence[str], *, pattern: str = ""
) -> list[float]:
    """1 where the whole response matches the regular expression `format_pattern`, else 0."""
    form = re.compile(pattern, re.DOTALL)
    return [float(bool(form.fullmatch(text))) for text in responses]


def repetition(prompts: Sequence[object], responses: Sequence[str]) -> list[float]:
    """Minus the share of three-word runs that have occurred before in the same response."""
    rewards = []
    for text in responses:
        words = text.lower().split()
        runs = list(zip(words, words[1:], words[2:], strict=False))
        rewards.append(-(1 - len(set(runs)) / len(runs)) if runs else 0.0)
    return rewards
