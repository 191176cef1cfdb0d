"""Rewards for the length of a response, in words."""

from collections.abc import Sequence

LONG, SHORT = 60, 5


def too_long(prompts: Sequence[object], responses: Sequence[str]) -> list[float]:
    """0 up to 60 words, then -1 for every further 60: a slope, because a step has no gradient."""
    return [-max(0, len(text.split()) - LONG) / LONG for text in responses]


def too_short(prompts: Sequence[object], responses: Sequence[str]) -> list[float]:
    """-1 for an empty response, rising to 0 at 5 words."""
    return [-max(0, SHORT - len(text.split())) / SHORT for text in responses]


def length_window(
    prompts: Sequence[object], responses: Sequence[str], *, least: int = SHORT, most: int = LONG
) -> list[float]:
    """0 from `least_words` to `most_words`; outside, minus the words missing or over as a share."""
    rewards = []
    for text in responses:
        n = len(text.split())
        rewards.append(-(max(least - n, 0) / max(least, 1) + max(n - most, 0) / max(most, 1)))
    return rewards
