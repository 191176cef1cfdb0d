"""The estimated time, energy, price and memory of a round.

In order of what is believed: earlier jobs of this project, some seconds of measuring the model on the
workers' device (`Calibration`), arithmetic on its parameters. What is added up is what the stages will
do with the prompts that exist.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from annotation.models import Batch, Comparison, Project
from rlhf.forecast import memory, speeds, work
from rlhf.forecast.speeds import Speeds
from rlhf.models import Calibration, Checkpoint, Job, Round, Worker
from rlhf.round_config import SECTIONS, placeholders
from rlhf.stages.prompts import pool
from rlhf.training.model_files import ModelShape, model_key, read_shape

MEASURED_SPREAD = 1.25
"""Factor between the middle and each end of a range that earlier jobs of the project tell."""

MAX_PACE = 8.0
"""The most that earlier stages change the estimate of a stage that has not run yet."""


@dataclass(frozen=True)
class Seconds:
    """A duration with its range."""

    low: float
    likely: float
    high: float

    def __str__(self) -> str:
        low, high = in_minutes(self.low), in_minutes(self.high)
        if low == high:
            return low
        (number, _, unit), (_, _, other) = low.partition(" "), high.partition(" ")
        return f"{number} to {high}" if unit == other else f"{low} to {high}"


@dataclass(frozen=True)
class ComputingCost:
    """The computing that a round needs, without the time of the people who judge."""

    stages: Mapping[str, Seconds]
    measured: tuple[str, ...]
    """The stages whose time comes from an earlier job of this project."""
    basis: str
    """What the other stages' times rest on."""
    is_guess: bool
    """Whether nothing was measured, neither here before nor on the device."""

    @property
    def total(self) -> Seconds:
        """Of all stages; the ends of the ranges are added up, as they share their causes."""
        return Seconds(
            sum(s.low for s in self.stages.values()),
            sum(s.likely for s in self.stages.values()),
            sum(s.high for s in self.stages.values()),
        )

    @property
    def seconds(self) -> float:
        """The likely total."""
        return self.total.likely

    @property
    def watt_hours(self) -> float:
        return float(self.seconds * settings.MACHINE_WATTS / 3600)

    @property
    def sentence(self) -> str:
        hours = self.seconds / 3600
        device = f", {hours:.2g} device hours" if hours >= 0.1 else ""
        return (
            f"About {in_minutes(self.seconds)} ({self.total}){device}{_price(self.seconds)}, "
            "plus the people's time."
        )

    @property
    def evidence(self) -> str:
        stages = ", ".join(
            f"{Round.stage_name(stage)} {seconds}" for stage, seconds in self.stages.items()
        )
        parts = []
        if self.measured:
            parts.append(
                "from earlier runs of " + " and ".join(map(Round.stage_name, self.measured))
            )
        if len(self.measured) < len(self.stages):
            parts.append(self.basis)
        energy = f"about {self.watt_hours:.1f} Wh at {settings.MACHINE_WATTS:g} W"
        return f"{stages}; {energy}; {'; '.join(parts)}"

    @property
    def short(self) -> str:
        return f"about {in_minutes(self.seconds)}, {self.watt_hours:.1f} Wh"


# --- What is known -----------------------------------------------------------------------------


def calibration_of(policy: Checkpoint, machine: Mapping[str, Any]) -> Calibration | None:
    """The newest measurement of a model of this shape on a machine's device."""
    known = Calibration.objects.filter(
        model_key=model_key(policy.path), device=str(machine.get("device", ""))[:200]
    )
    return known.order_by("-created_at", "-pk").first()


def shape_of(policy: Checkpoint | None, calibration: Calibration | None) -> ModelShape | None:
    """The policy's shape: as measured, else from its folder; None for a hub's name."""
    if calibration is not None:
        return ModelShape(**calibration.figures["model"])
    return read_shape(policy.path) if policy is not None else None


def counts_for(
    project: Project, config: Mapping[str, Any], round: Round | None = None
) -> work.Counts:
    """What a round will really use, or `round` has used: no more prompts than there are."""
    sizes = config["round"]

    def available(purpose: str, limit: int) -> int:
        prompts = pool(project, purpose)
        if round is not None:
            prompts = prompts.filter(created_at__lte=round.launched_at or round.created_at)
        if purpose == "ranking":
            before = Comparison.objects.filter(batch__project=project)
            if round is not None:
                before = before.filter(batch__created_at__lt=round.launched_at or round.created_at)
            prompts = prompts.exclude(pk__in=before.values("prompt_id"))
        return min(prompts.count(), limit)

    ranking = available("ranking", sizes.ranking_prompts)
    judged = Comparison.objects.filter(
        batch__project=project, batch__state=Batch.State.CLOSED, judged__gt=0
    )
    if round is not None:
        judged = judged.filter(batch__created_at__lt=round.launched_at or round.created_at)
    earlier = Round.objects.filter(project=project, plan=Round.FULL_PLAN, state=Round.State.DONE)
    return work.Counts(
        ranking=ranking,
        comparisons=max(2, ranking + judged.count()),
        ppo=available("ppo", sizes.ppo_prompts),
        watch=available("watch", sizes.watch_prompts) if sizes.watch_prompts else 0,
        heldout=available("heldout", sizes.heldout_prompts),
        axes=max(1, len(project.axis_keys)),
        has_previous=earlier.exists(),
    )


def sections_of(config: Mapping[str, Any], stages: Sequence[str] = work.STAGES) -> dict[str, Any]:
    """The sections of a stored or proposed configuration as objects, defaults for missing ones."""
    sections = {}
    for name in ("round", *stages):
        known, _ = SECTIONS[name].split_known(config.get(name, {}))
        values = known | placeholders(SECTIONS[name])
        sections[name] = SECTIONS[name].from_dict(values, stored=True)
    return sections


# --- Time --------------------------------------------------------------------------------------


def round_cost(project: Project, config: Mapping[str, Any]) -> ComputingCost:
    """The time of each stage of a round under a configuration (`FrozenConfig.to_dict`).

    A stage that has run in this project takes as long again, changed by what it will do more or less.
    Of the others, the speeds are the device's, corrected by how far they were off for those that ran.
    """
    sections = sections_of(config)
    policy, machine = Checkpoint.objects.current_policy(project), Worker.objects.compute_machine()
    calibration = calibration_of(policy, machine) if policy and machine else None
    here = speeds_for(policy, machine, calibration, sections)
    counts = counts_for(project, sections)
    seconds: dict[str, Seconds] = {}
    paces = []
    for stage in work.STAGES:
        expected = _expected(stage, sections, counts, here)
        job = _last_job(project, stage, policy, machine)
        if job is not None and job.seconds:
            before = sections_of(job.round.config)
            then = _expected(stage, before, counts_for(project, before, job.round), here)
            pace = job.seconds / then.likely
            paces.append(math.log(pace))
            likely = expected.likely * pace
            seconds[stage] = Seconds(likely / MEASURED_SPREAD, likely, likely * MEASURED_SPREAD)
    measured = tuple(stage for stage in work.STAGES if stage in seconds)
    pace = math.exp(sum(paces) / len(paces)) if paces else 1.0
    if not here.is_rough:
        pace = min(max(pace, 1 / MAX_PACE), MAX_PACE)
    for stage in work.STAGES:
        if stage not in seconds:
            own = _expected(stage, sections, counts, here)
            seconds[stage] = Seconds(own.low * pace, own.likely * pace, own.high * pace)
    in_order = {stage: seconds[stage] for stage in work.STAGES}
    return ComputingCost(in_order, measured, here.basis, here.is_rough and not measured)


def speeds_for(
    policy: Checkpoint | None,
    machine: Mapping[str, Any],
    calibration: Calibration | None,
    sections: Mapping[str, Any],
) -> Speeds:
    """What the policy costs on the workers' device: as measured, else by arithmetic."""
    lora = bool(sections["ppo"].lora.rank)
    measured = None
    if calibration is not None:
        measured = speeds.from_calibration(calibration.figures, lora=lora)
    return measured or speeds.rough(
        shape_of(policy, None),
        kind=str(machine.get("kind", "cpu")),
        device=str(machine.get("device", "an unknown device")),
        threads=int(machine.get("threads", 2)),
        lora=lora,
        budget=sections["ppo"].rollout.max_new_tokens,
    )


def _expected(
    stage: str, sections: Mapping[str, Any], counts: work.Counts, here: Speeds
) -> Seconds:
    """A stage's seconds by the device's speeds: short responses at the low end, long ones at the
    high end, each with the speeds' own spread."""

    def at(which: int) -> float:
        todo = work.work_of(stage, sections, counts, here.lengths(which))
        return here.seconds(todo, here.stop_rates[which])

    return Seconds(at(2) / here.spread, at(1), at(0) * here.spread)


def _last_job(
    project: Project, stage: str, policy: Checkpoint | None, machine: Mapping[str, Any]
) -> Job | None:
    """The stage's last finished job in this project on a model of the same base and, where it is
    known, on the same device."""
    done = Job.objects.filter(project=project, stage=stage, state=Job.State.DONE)
    root = policy.root.pk if policy else None
    for job in done.select_related("round__start_policy", "round__policy").order_by("-pk")[:5]:
        start = job.round.start_policy or job.round.policy
        device = job.metrics.get("device", "")
        if start is not None and root is not None and start.root.pk != root:
            continue
        if device and machine and device != machine.get("device"):
            continue
        return job
    return None


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


def _price(seconds: float) -> str:
    cost = seconds / 3600 * settings.MACHINE_PRICE_PER_HOUR
    return f", {cost:.2f} at {settings.MACHINE_PRICE_PER_HOUR:g} an hour" if cost else ""


def in_minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


# --- Memory and disk ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Requirements:
    """Bytes that a round needs, and those that are free on the workers' machine (None: nobody has
    reported)."""

    stages: Sequence[memory.Need]
    disk: Mapping[str, float]
    memory_free: float | None
    memory_total: float | None
    disk_free: float | None
    device: str
    is_measured: bool

    @property
    def largest(self) -> memory.Need:
        """The stage that needs the most memory."""
        return max(self.stages, key=lambda need: need.total)


def requirements(project: Project, config: Mapping[str, Any]) -> Requirements | None:
    """The memory of each stage and the disk space of a round; None if the model's size is unknown."""
    policy, machine = Checkpoint.objects.current_policy(project), Worker.objects.compute_machine()
    calibration = calibration_of(policy, machine) if policy and machine else None
    shape = shape_of(policy, calibration)
    if shape is None or not shape.n_parameters:
        return None
    sections = sections_of(config)
    is_half = _is_half(sections["ppo"].dtype, machine)
    here = speeds_for(policy, machine, calibration, sections)
    unit = memory.footprint(
        shape, is_half=is_half, measured=calibration.figures if calibration else None
    )
    counts = counts_for(project, sections)
    return Requirements(
        stages=memory.stage_needs(sections, counts, here.lengths(), unit),
        disk=memory.disk_parts(sections, shape, is_half=is_half),
        memory_free=machine.get("memory_free"),
        memory_total=machine.get("memory"),
        disk_free=machine.get("disk_free"),
        device=str(machine.get("device", "")),
        is_measured=calibration is not None,
    )


def _is_half(dtype: str, machine: Mapping[str, Any]) -> bool:
    """Whether frozen weights are in bfloat16 (`devices.choose_dtype`)."""
    return dtype == "bfloat16" or (dtype == "auto" and machine.get("kind") == "cuda")
