"""The live curves of a round's stages: which metrics share a chart, under which names and colors."""

import json
from dataclasses import dataclass
from typing import Any

from rlhf.training.configs import PPOConfig


@dataclass(frozen=True)
class Curve:
    """One live chart: `lines` are (metric of metrics.jsonl, name, color of site.css, dash)."""

    key: str
    title: str
    unit: str
    lines: tuple[tuple[str, str, str, str], ...]
    each_from_one: bool = False
    """True if the lines were measured one after the other and are drawn from step 1 each."""

    @property
    def as_json(self) -> str:
        return json.dumps(
            {"title": self.title, "unit": self.unit, "lines": self.lines, "own": self.each_from_one}
        )


CURVES: dict[str, tuple[Curve, ...]] = {
    "base": (
        Curve(
            "loss",
            "Loss",
            "nats per token",
            (("loss", "training", "accent", ""), ("heldout_loss", "held out", "ink-2", "6 4")),
        ),
        Curve("rate", "Learning rate", "", (("learning_rate", "learning rate", "accent", ""),)),
    ),
    "reward_model": (
        Curve(
            "loss",
            "Loss",
            "nats per pair",
            (
                ("train_loss", "training reward model", "accent", ""),
                ("test_loss", "test reward model", "ink-2", "6 4"),
            ),
            each_from_one=True,
        ),
        Curve(
            "accuracy",
            "Training accuracy",
            "share of pairs",
            (
                ("train_accuracy", "training reward model", "accent", ""),
                ("test_accuracy", "test reward model", "ink-2", "6 4"),
            ),
            each_from_one=True,
        ),
    ),
    "ppo": (
        Curve(
            "reward",
            "Reward of the rollout",
            "standard deviations",
            (
                ("reward", "combined", "accent", ""),
                ("helpfulness", "helpfulness", "helpfulness", "6 4"),
                ("safety", "safety", "safety", "2 3"),
            ),
        ),
        Curve(
            "watch",
            "Reward on validation prompts",
            "standard deviations",
            (
                ("watch_reward", "training reward model", "accent", ""),
                ("test_reward", "test reward model", "ink-2", "6 4"),
            ),
        ),
        Curve("kl", "KL to the reference", "nats per response", (("kl", "KL", "accent", ""),)),
        Curve("entropy", "Entropy", "nats per token", (("entropy", "entropy", "accent", ""),)),
        Curve("length", "Length", "tokens", (("length", "mean length", "accent", ""),)),
        Curve(
            "finished",
            "Responses that ended",
            "share of the rollout",
            (("finished_fraction", "ended within the token limit", "accent", ""),),
        ),
        Curve("value", "Value loss", "", (("value_loss", "value loss", "accent", ""),)),
    ),
}


def curves_of(stage: str, config: dict[str, Any]) -> tuple[Curve, ...]:
    """The curves of a stage, with those that the round's settings add: one per rule, …"""
    curves = CURVES.get(stage, ())
    if stage != "ppo":
        return curves
    settings, _ = PPOConfig.split_known(config.get("ppo") or {})
    more = []
    for rule in settings.get("rule_rewards.weights") or {}:
        line = ((f"rule_{rule}", str(rule).replace("_", " "), "accent", ""),)
        more.append(Curve(f"rule_{rule}", f"Rule: {line[0][1]}", "points per response", line))
    if settings.get("ptx.weight"):
        ptx = (("ptx_loss", "loss on demonstrations", "accent", ""),)
        more.append(Curve("ptx", "Pretraining loss (PTX)", "nats per token", ptx))
    if settings.get("reward.combine") == "lagrange":
        cost = (("cost", "mean cost", "safety", ""),)
        multiplier = (("multiplier", "multiplier", "accent", ""),)
        more.append(Curve("cost", "Cost", "standard deviations", cost))
        more.append(Curve("multiplier", "Cost multiplier", "", multiplier))
    members = (config.get("reward_model") or {}).get("members", 1)
    if isinstance(members, int) and members > 1:
        lines = tuple(
            (f"disagreement_{axis}", axis, axis, dash)
            for axis, dash in (("helpfulness", "6 4"), ("safety", "2 3"))
        )
        more.append(Curve("disagreement", "Ensemble disagreement", "standard deviations", lines))
    return (*curves, *more)
