"""The few figures of a stage's `result.json` that the round's page shows."""

from typing import Any

from rlhf.estimates import is_number, number

# {stage: (field of result.json, name, unit)}. Estimates with intervals have their own tables.
FACTS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "base": (
        ("n_parameters", "parameters", ""),
        ("loss", "training loss", "nats per token"),
        ("steps", "steps", ""),
    ),
    "generate": (
        ("n_prompts", "prompts", ""),
        ("n_responses", "responses", ""),
        ("tokens_per_second", "throughput", "tokens/s"),
    ),
    "ppo": (
        ("steps", "steps", ""),
        ("stop_reason", "stop reason", ""),
        ("best_step", "best step (test reward)", ""),
        ("kl", "KL at the end", "nats"),
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
    return rows
