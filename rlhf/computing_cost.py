"""The estimated time, energy and price of a round, from the project's earlier jobs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from annotation.models import Project
from rlhf.models import Job, Round
from rlhf.round_config import SECTIONS, preset

TYPICAL_SECONDS = {"generate": 20.0, "reward_model": 35.0, "ppo": 75.0, "evaluate": 30.0}
"""With the preset tiny and the demo's base policy on two CPU cores."""

WORK: dict[str, tuple[tuple[str, str, float], ...]] = {
    "generate": (
        ("round", "ranking_prompts", 360),
        ("generate", "k", 4),
        ("generate", "max_new_tokens", 64),
    ),
    "reward_model": (("round", "ranking_prompts", 360), ("reward_model", "epochs", 2)),
    "ppo": (
        ("ppo", "steps", 14),
        ("ppo", "rollout.prompts_per_step", 128),
        ("ppo", "rollout.samples_per_prompt", 1),
        ("ppo", "rollout.max_new_tokens", 64),
    ),
    "evaluate": (
        ("round", "heldout_prompts", 150),
        ("evaluate", "samples_per_prompt", 3),
        ("evaluate", "max_new_tokens", 64),
    ),
}
"""The settings that a stage's time is proportional to: (section, setting, default value)."""


@dataclass(frozen=True)
class ComputingCost:
    """The computing that a round needs, without the time of the people who judge."""

    seconds: float
    stage_seconds: Mapping[str, float]
    measured: tuple[str, ...]
    """The stages whose time comes from an earlier job of this project."""
    is_demo: bool

    @property
    def is_guess(self) -> bool:
        return not self.measured and not self.is_demo

    @property
    def watt_hours(self) -> float:
        return float(self.seconds * settings.MACHINE_WATTS / 3600)

    @property
    def sentence(self) -> str:
        return f"About {in_minutes(self.seconds)}{_price(self.seconds)}, plus the people's time."

    @property
    def evidence(self) -> str:
        stages = ", ".join(
            f"{Round.stage_name(stage)} {in_minutes(self.stage_seconds[stage])}"
            for stage in TYPICAL_SECONDS
        )
        if self.measured:
            basis = "from earlier runs of " + " and ".join(map(Round.stage_name, self.measured))
        else:
            basis = "a guess: the times of the demo's tiny policy on two CPU cores"
        energy = f"about {self.watt_hours:.1f} Wh at {settings.MACHINE_WATTS:g} W"
        return f"{stages}; {energy}; {basis}"

    @property
    def short(self) -> str:
        return f"about {in_minutes(self.seconds)}, {self.watt_hours:.1f} Wh"


def round_cost(project: Project, config: Mapping[str, Mapping[str, Any]]) -> ComputingCost:
    """The time of each stage from its last job in this project, scaled by the settings.

    A stage that has not run here yet is taken to compare with the demo's as those do that have: the
    base policy's evaluation already tells how large the model and how fast the machine is.
    """
    tiny = preset("tiny")
    seconds: dict[str, float] = {}
    paces = []
    for stage, typical in TYPICAL_SECONDS.items():
        done = Job.objects.filter(project=project, stage=stage, state=Job.State.DONE)
        job = done.select_related("round").order_by("-created_at", "-pk").first()
        if job is not None and job.seconds:
            seconds[stage] = job.seconds * _ratio(stage, job.round.config, config)
            paces.append(job.seconds / (typical * _ratio(stage, tiny, job.round.config)))
    measured = tuple(sorted(seconds))
    pace = sum(paces) / len(paces) if paces else 1.0
    for stage, typical in TYPICAL_SECONDS.items():
        seconds.setdefault(stage, typical * pace * _ratio(stage, tiny, config))
    return ComputingCost(sum(seconds.values()), seconds, measured, project.is_demo)


def selection_cost(last: Job | None, n: int) -> str:
    """What scoring `n` comparisons will take, by the last job that did it; a guess without one."""
    if last is None or not last.seconds:
        return (
            "The demo's models take about 10 s on two CPU cores; larger ones have not run here yet."
        )
    scored = max(1, int(last.metrics.get("n_comparisons", n)))
    seconds = last.seconds * max(1.0, n / scored)
    energy = seconds * settings.MACHINE_WATTS / 3600
    return f"About {in_minutes(seconds)} and {energy:.1f} Wh, as in the last run{_price(seconds)}."


def _ratio(stage: str, reference: Mapping[str, Any], config: Mapping[str, Any]) -> float:
    """How many times as much work a stage has under `config` as under `reference`."""

    def number(source: Mapping[str, Any], section: str, name: str, default: float) -> float:
        known, _ = SECTIONS[section].split_known(source.get(section, {}))
        value = known.get(name, default)
        return float(value) if isinstance(value, int | float) and value > 0 else default

    return math.prod(number(config, *size) / number(reference, *size) for size in WORK[stage])


def _price(seconds: float) -> str:
    cost = seconds / 3600 * settings.MACHINE_PRICE_PER_HOUR
    return f", {cost:.2f} at {settings.MACHINE_PRICE_PER_HOUR:g} an hour" if cost else ""


def in_minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
