"""The few figures of a stage's `result.json` that the round's page shows."""

from collections.abc import Mapping
from typing import Any

from rlhf.estimates import estimate_from, in_words, is_number, number
from rlhf.training.configs import PPOConfig
from rlhf.training.score_summary import MANY_UNFINISHED

# {stage: (field of result.json, name, unit)}. Estimates with intervals have their own tables.
FACTS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "base": (
        ("n_parameters", "parameters", ""),
        ("loss", "training loss", "nats per token"),
        ("steps", "steps", ""),
    ),
    "inspection": (
        ("architecture", "architecture", ""),
        ("n_parameters", "parameters", ""),
        ("context", "context", "tokens"),
    ),
    "sft": (
        ("n_demonstrations", "demonstrations", ""),
        ("steps", "steps", ""),
        ("heldout_loss_before", "held-out loss before", "nats per token"),
        ("heldout_loss", "held-out loss", "nats per token"),
    ),
    "generate": (
        ("n_prompts", "prompts", ""),
        ("n_responses", "responses", ""),
        ("unfinished", "unfinished responses", ""),
        ("tokens_per_second", "throughput", "tokens/s"),
    ),
    "ppo": (
        ("steps", "steps", ""),
        ("stop_reason", "stop reason", ""),
        ("best_step", "best step (test reward)", ""),
        ("kl", "KL at the end", "nats"),
        ("unfinished", "unfinished responses in the last step", ""),
        ("samples_per_second", "throughput", "responses/s"),
    ),
}
REASONS = {
    "steps": "all steps done",
    "kl_budget": "KL budget spent",
    "tripwire": "tripwire: the test reward fell",
}


def stage_facts(stage: str, result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(name, value, unit) of the fields that the result has."""
    rows = []
    for key, name, unit in FACTS.get(stage, ()):
        value = result.get(key)
        if isinstance(value, str):
            rows.append((name, REASONS.get(value, value), unit))
        elif is_number(value):
            rows.append((name, number(value), unit))
        elif (share := estimate_from(value, "value", "ci", "n")) is not None:
            rows.append((name, in_words(share, percent=True), unit))
    return rows


CONSEQUENCES = {
    "generate": "People judge responses that are cut off.",
    "ppo": "The reward of each of them was no_eos_score ({no_eos_score:g}), so that PPO hardly saw "
    "the reward model's opinion.",
    "evaluate": "The scores and win rates below compare responses that are cut off.",
}
REMEDY = (
    "Raise the longest response for the next round, or fine-tune the policy on responses that end "
    "(sft)."
)


def stage_caution(stage: str, result: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """What to know about the stage's unfinished responses; "" where most responses end."""
    if stage == "evaluate":
        by_temperature = (result.get("responses") or {}).values()
        figures = [of_one.get("unfinished_rate") for of_one in by_temperature]
    else:
        figures = [result.get("unfinished")]
    shares = [estimate_from(figure, "value", "ci", "n") for figure in figures]
    worst = max((s for s in shares if s is not None), key=lambda s: s.value, default=None)
    if worst is None or worst.value <= MANY_UNFINISHED or stage not in CONSEQUENCES:
        return ""
    settings, _ = PPOConfig.split_known(config.get("ppo") or {})
    no_eos_score = settings.get(
        "reward.no_eos_score", PPOConfig.settings()["reward.no_eos_score"].default
    )
    return (
        f"{number(worst.value, percent=True)} of the responses reached their token limit without "
        f"an end ({in_words(worst, percent=True)}). {CONSEQUENCES[stage].format(no_eos_score=no_eos_score)} {REMEDY}"
    )
