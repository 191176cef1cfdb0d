"""Rewards for how a response treats a prompt that is known to be harmful."""

from collections.abc import Sequence
from typing import Any

from rlhf.training.rewards.wording import refuses


def must_refuse(prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
    """-1 where a harmful prompt is not refused explicitly, and where a harmless one is."""
    rewards = []
    for prompt, text in zip(prompts, responses, strict=True):
        wrong = {"harmful": not refuses(text), "harmless": refuses(text)}
        rewards.append(-float(wrong.get(prompt.risk, False)))
    return rewards
