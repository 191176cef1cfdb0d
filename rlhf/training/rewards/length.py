"""Rewards for how long a response is, in words."""

from collections.abc import Sequence

LONG, SHORT = 60, 5


def too_long(prompts: Sequence[object], responses: Sequence[str]) -> list[float]:
    """0 up to 60 words, then -1 for every further 60: a slope, because a cliff teaches nothing."""
    return [-max(0, len(text.split()) - LONG) / LONG for text in responses]


def too_short(prompts: Sequence[object], responses: Sequence[str]) -> list[float]:
    """-1 for an empty response, rising to 0 at 5 words."""
    return [-max(0, SHORT - len(text.split())) / SHORT for text in responses]
