"""Pace, remaining work, expected completion and cost per judgment."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, Min
from django.utils import timezone

from annotation.models import Batch, Judgment, Project
from annotation.projects.batches import Progress, batch_progress
from annotation.quality.people import Person

WEEK = timedelta(days=7)


@dataclass(frozen=True)
class Forecast:
    """When an open batch will be done, and what that estimate is based on."""

    batch: Batch
    left: int
    done_at: datetime | None
    pace_n: int
    is_pace_of_week: bool


@dataclass(frozen=True)
class Throughput:
    """Pace, remaining work and cost of a project."""

    n_judgments: int
    hours: float
    per_hour_of_work: float | None
    per_day: float | None
    cost_each: float | None
    cost_so_far: float | None
    left: int
    hours_left: float | None
    done_at: datetime | None
    """Of the last of the open batches; None where one of them has no pace."""
    batches: tuple[Forecast, ...]
    """Open batches with work left."""


def throughput(project: Project, people: list[Person]) -> Throughput:
    """`people` are those of `people_of(project)`, whose hours and judgments are added up."""
    n_judgments, hours = sum(p.n_judgments for p in people), sum(p.hours for p in people)
    per_hour = n_judgments / hours if hours > 0 else None
    pay = float(project.pay_per_hour) if project.pay_per_hour is not None else None
    open_batches = project.batches.filter(state=Batch.State.OPEN, qualification__isnull=True)
    forecasts = [forecast(batch, batch_progress(batch)) for batch in open_batches]
    forecasts = [batch for batch in forecasts if batch.left]
    left = sum(batch.left for batch in forecasts)
    done = [batch.done_at for batch in forecasts if batch.done_at is not None]
    return Throughput(
        n_judgments=n_judgments,
        hours=hours,
        per_hour_of_work=per_hour,
        per_day=_per_day(project),
        cost_each=pay / per_hour if pay is not None and per_hour else None,
        cost_so_far=pay * hours if pay is not None else None,
        left=left,
        hours_left=left / per_hour if per_hour else None,
        done_at=max(done) if done and len(done) == len(forecasts) else None,
        batches=tuple(forecasts),
    )


def _per_day(project: Project) -> float | None:
    """Judgments per day over the last week; None with fewer than two."""
    recent = (
        Judgment.objects.current()
        .votes()
        .of_project(project)
        .filter(created_at__gte=timezone.now() - WEEK)
        .aggregate(n=Count("pk"), first=Min("created_at"))
    )
    if recent["n"] < 2:
        return None
    days = max((timezone.now() - recent["first"]).total_seconds() / 86_400, 1.0)
    return float(recent["n"] / days)


def forecast(batch: Batch, progress: Progress) -> Forecast:
    """When a batch will be done if people go on at their pace."""
    eta = progress["eta_seconds"]
    return Forecast(
        batch,
        max(0, progress["needed"] - progress["judged"]),
        timezone.now() + timedelta(seconds=eta) if eta is not None else None,
        progress["pace_n"],
        progress["is_pace_of_week"],
    )
