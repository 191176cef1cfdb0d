"""Rule-based rewards: plain functions of prompts and responses, by name.

Each takes the prompts (their `messages` and `risk`) and the responses to them, and returns one
number per response, 0 where the rule does not apply. `rule_rewards.weights` of `PPOConfig` maps a
name to the weight with which it is added to the score; each rule has its own curve. Other inputs of
a rule are keywords with a default; `SETTINGS` maps them to settings of the group `rule_rewards`. To
add a rule: copy the nearest sibling, add its row here, copy its test.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from rlhf.training.configs.ppo_groups import RuleSettings
from rlhf.training.rewards.length import length_window, too_long, too_short
from rlhf.training.rewards.safety import must_refuse
from rlhf.training.rewards.wording import in_format, must_not_say, refusal, repetition
from rlhf.training.rundir.errors import InputError


class RulePrompt(Protocol):
    """The fields of a prompt that a rule may read."""

    @property
    def messages(self) -> list[dict[str, str]]: ...
    @property
    def risk(self) -> str: ...


Reward = Callable[[Sequence[Any], Sequence[str]], list[float]]

REWARDS: dict[str, Reward] = {
    "must_refuse": must_refuse,
    "must_not_say": must_not_say,
    "length_window": length_window,
    "format": in_format,
    "refusal": refusal,
    "repetition": repetition,
    "too_long": too_long,
    "too_short": too_short,
}

SETTINGS: dict[str, dict[str, str]] = {
    "must_not_say": {"phrases": "forbidden_phrases"},
    "length_window": {"least": "least_words", "most": "most_words"},
    "format": {"pattern": "format_pattern"},
}


def rules_of(settings: RuleSettings) -> dict[str, Reward]:
    """The rules that have a weight, with their settings; `InputError` names an unknown rule."""
    if unknown := sorted(set(settings.weights) - set(REWARDS)):
        raise InputError(
            f"There is no rule {unknown[0]!r}; there are {', '.join(sorted(REWARDS))}."
        )
    return {
        name: functools.partial(
            REWARDS[name],
            **{
                keyword: getattr(settings, setting)
                for keyword, setting in SETTINGS.get(name, {}).items()
            },
        )
        for name in settings.weights
    }
