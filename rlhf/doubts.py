"""Doubts about a round's reward models: what holds the round before PPO until a person decides.

PPO optimizes whatever the train-RM says, and the verdict rests on the test-RM. Both have to be better than
chance on prompts that they were not trained on.
"""

from typing import Any

from rlhf.estimates import estimate_from, in_words, is_number
from rlhf.models import Round

CHANCE = 0.5
"""The accuracy of a model that knows nothing, on pairs of which one side was preferred."""

FEW_UPDATES = 8
"""With fewer updates than this a reward model is in doubt whatever it measures. The learning rate rises
over up to a quarter of the updates and then falls to 0, so that seven of them move a weight about as far
as three or four at the full rate do."""

SIDES = (("train", "train-RM"), ("test", "test-RM"))


def doubts_about(result: dict[str, Any]) -> list[str]:
    """A sentence for each reason not to trust the reward models of a `reward_model` result; [] if
    there is none."""
    doubts = []
    for side, name in SIDES:
        updates = (result.get("updates") or {}).get(side)
        if is_number(updates) and updates < FEW_UPDATES:
            doubts.append(
                f"The {name} was trained by {count_of(int(updates))} only; fewer than "
                f"{FEW_UPDATES} hardly move it from its random start."
            )
        for axis, figures in (result.get(side) or {}).items():
            accuracy = estimate_from(figures, "accuracy", "accuracy_ci", "n")
            if accuracy is None:
                doubts.append(
                    f"The {name}'s {axis} was not measured: no held-out pair was decided on it."
                )
            elif (accuracy.value if accuracy.low is None else accuracy.low) <= CHANCE:
                words = in_words(accuracy, percent=True)
                doubts.append(
                    f"The {name}'s {axis} is not clearly better than chance on held-out pairs: "
                    f"{words} pairs."
                )
    return doubts


def decisions_in_doubt(round: Round) -> list[str]:
    """A sentence for each time that a person let the round go on with reward models in doubt."""
    return [
        f"The reward models were in doubt: {' '.join(hold['doubts'])} {hold['by'] or 'Somebody'} let "
        f"the round go on: “{hold['note']}”"
        for hold in round.holds
        if hold["decision"] == "continued"
    ]


def count_of(updates: int) -> str:
    """`1 update`, `7 updates`."""
    return f"{updates:,} update{'' if updates == 1 else 's'}"


def expected_updates(n_prompts: int, settings: Any) -> dict[str, int]:
    """About how many updates the train-RM and the test-RM get from rankings of so many prompts, by the
    settings of the stage `reward_model`."""
    n_test = min(max(round(n_prompts * settings.test_share), 1), max(n_prompts - 1, 1))
    return {
        side: settings.epochs * max(1, -(-n // settings.rankings_per_batch))
        for side, n in (("train", n_prompts - n_test), ("test", n_test))
    }
