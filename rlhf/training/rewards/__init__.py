"""Rule-based rewards: plain functions of prompts and responses, by name.

Each takes the conversations and the responses to them, and returns one number per response, 0 for
indifferent. `PPOConfig.rules` maps a name to the weight with which it is added to the score. To
add one: copy the nearest sibling, add its row here, copy its test.
"""

from collections.abc import Callable, Sequence

from rlhf.training.rewards.length import too_long, too_short
from rlhf.training.rewards.wording import refusal, repetition

Conversation = Sequence[dict[str, str]]
Reward = Callable[[Sequence[Conversation], Sequence[str]], list[float]]

REWARDS: dict[str, Reward] = {
    "refusal": refusal,
    "repetition": repetition,
    "too_long": too_long,
    "too_short": too_short,
}
