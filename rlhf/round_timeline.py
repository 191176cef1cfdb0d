"""The stages of one round with their states and times, as a rail or a timeline shows them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from rlhf.estimates import number
from rlhf.models import Job, Round


@dataclass(frozen=True)
class Stage:
    """One stage of one round, as a rail or a timeline shows it."""

    key: str
    name: str
    state: str  # "done" | "now" | "failed" | "todo"
    started: datetime | None
    ended: datetime | None
    attempts: int = 0
    job: Job | None = None

    @property
    def seconds(self) -> float | None:
        if self.started is None:
            return None
        return ((self.ended or timezone.now()) - self.started).total_seconds()

    @property
    def took(self) -> str:
        return "" if self.seconds is None else duration(self.seconds)

    @property
    def energy(self) -> str:
        """The energy of a worker's stage, estimated from its time."""
        if self.job is None or self.job.seconds is None:
            return ""
        hours = self.job.seconds / 3600
        text = f"about {number(hours * settings.MACHINE_WATTS)} Wh"
        if settings.MACHINE_PRICE_PER_HOUR:
            text += f", cost {number(hours * settings.MACHINE_PRICE_PER_HOUR)}"
        return text

    @property
    def state_word(self) -> str:
        return {
            "done": "done",
            "now": "now",
            "failed": "stopped here",
            "todo": "to come",
        }[self.state]


def round_stages(round: Round, jobs: Iterable[Job] = ()) -> list[Stage]:
    """The round's plan with states and times. `jobs` are the round's, newest first."""
    newest: dict[str, Job] = {}
    attempts: dict[str, int] = {}
    for job in jobs:
        newest.setdefault(job.stage, job)
        attempts[job.stage] = attempts.get(job.stage, 0) + max(job.epoch, 1)
    plan = [str(key) for key in round.plan]
    return [
        Stage(
            key,
            Round.stage_name(key),
            state := _state(round, plan, key),
            started,
            ended or (round.ended_at if state == "failed" else None),
            attempts.get(key, 0),
            newest.get(key),
        )
        for key in plan
        for started, ended in [_times(round, key)]
    ]


def _state(round: Round, plan: Sequence[str], key: str) -> str:
    started, ended = _times(round, key)
    current = round.failed_stage if round.has_ended else round.state
    is_past = current in plan and plan.index(key) < plan.index(current)
    was_running = bool(started) and not ended and not round.failed_stage
    if key == round.state:
        return "now"
    if round.state in (Round.State.FAILED, Round.State.CANCELLED) and (
        key == round.failed_stage or was_running
    ):
        return "failed"
    return "done" if round.state == Round.State.DONE or is_past or ended else "todo"


def _times(round: Round, key: str) -> tuple[datetime | None, datetime | None]:
    both = (round.stage_times or {}).get(key) or [None, None]
    started, ended = (parse_datetime(text) if isinstance(text, str) else None for text in both[:2])
    return started, ended


def duration(seconds: float) -> str:
    """`8 s`, `2 min 30 s`, `3 h 05 min`, `4 d 2 h`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 and whole < 600 else "")
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def eta(progress: dict[str, Any]) -> str:
    """The time that the stage still takes, in words; "" while it isn't known."""
    seconds = progress.get("eta_seconds")
    return duration(seconds) if isinstance(seconds, int | float) else ""


def focused_stage(stages: Sequence[Stage], wanted: str = "") -> Stage | None:
    """The stage to show: the wanted one, else where the round is, else the last that ran."""
    for stage in stages:
        if stage.key == wanted:
            return stage
    for state in ("now", "failed"):
        for stage in stages:
            if stage.state == state:
                return stage
    # Of a round that is over, the policy's curves are more informative than the verdict.
    trained = [s for s in stages if s.job is not None and s.key in ("ppo", "base")]
    done = [s for s in stages if s.state == "done"]
    shown = trained or done or list(stages)
    return shown[-1] if shown else None
