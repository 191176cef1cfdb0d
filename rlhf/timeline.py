"""Where every round stands: its stages with their times, and what waits for a person."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Count, Q, QuerySet, Sum
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from annotation.models import Batch, Comparison, Event, Project
from rlhf import charts, reading
from rlhf.models import Checkpoint, Job, Round, Worker
from rlhf.stages import STAGES

STAGE_NAMES = {
    "base": "base policy",
    "generate": "generate",
    "annotate": "annotate",
    "snapshot": "snapshot",
    "reward_model": "reward model",
    "ppo": "PPO",
    "evaluate": "evaluate",
    "verdict": "verdict",
}
WAITS_FOR_PEOPLE = (Round.State.ANNOTATE, Round.State.VERDICT)


def name_of(job: Job | None) -> str:
    """What people call the stage that a job is at."""
    return STAGE_NAMES.get(job.stage, job.stage.replace("_", " ")) if job else ""


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
    def spent(self) -> str:
        """What a worker's stage took from the wall socket: an estimate by time, and it says so."""
        if self.job is None or self.job.seconds is None:
            return ""
        hours = self.job.seconds / 3600
        text = f"about {charts.number(hours * settings.MACHINE_WATTS)} Wh"
        if settings.MACHINE_PRICE_PER_HOUR:
            text += f", cost {charts.number(hours * settings.MACHINE_PRICE_PER_HOUR)}"
        return text

    @property
    def state_word(self) -> str:
        return {
            "done": "done",
            "now": "now",
            "failed": "stopped here",
            "todo": "to come",
        }[self.state]


def stages(round: Round, jobs: Iterable[Job] = ()) -> list[Stage]:
    """The round's plan with states and times. `jobs` are the round's, newest first."""
    newest: dict[str, Job] = {}
    attempts: dict[str, int] = {}
    for job in jobs:
        newest.setdefault(job.stage, job)
        attempts[job.stage] = attempts.get(job.stage, 0) + max(job.epoch, 1)
    found = []
    plan = [str(key) for key in round.plan]
    at = round.state if not round.has_ended else round.failed_stage
    for key in plan:
        started, ended = _times(round, key)
        is_past = at in plan and plan.index(key) < plan.index(at)
        if key == round.state:
            state = "now"
        elif round.state in (Round.State.FAILED, Round.State.CANCELLED) and (
            key == round.failed_stage or (started and not ended and not round.failed_stage)
        ):
            state = "failed"
        elif round.state == Round.State.DONE or is_past or ended:
            state = "done"
        else:
            state = "todo"
        if state == "failed" and ended is None:
            ended = round.ended_at
        found.append(
            Stage(
                key,
                STAGE_NAMES.get(key, key),
                state,
                started,
                ended,
                attempts.get(key, 0),
                newest.get(key),
            )
        )
    return found


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
    """How long the stage still takes, in words; "" while that isn't known."""
    seconds = progress.get("eta_seconds")
    return duration(seconds) if isinstance(seconds, int | float) else ""


@dataclass(frozen=True)
class Need:
    """Something that waits for a person, most urgent first.

    `kind` is a badge of site.css; `act` names what the page may offer at once.
    """

    kind: str  # "no-go" | "caution" | "live"
    word: str
    text: str
    href: str = ""
    link: str = ""
    detail: str = ""
    act: str = ""
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class Line:
    """One round in mission control."""

    round: Round
    stages: list[Stage]
    need: str
    progress: dict[str, Any]
    job: Job | None
    total: str

    @property
    def eta(self) -> str:
        return eta(self.progress)

    @property
    def doing(self) -> str:
        return name_of(self.job)


@dataclass(frozen=True)
class Mission:
    """All that mission control shows."""

    lines: list[Line]
    needs: list[Need]
    workers: list[Worker]
    queued: int
    running: list[Job]
    has_base: bool
    is_building_base: bool
    open_round: Round | None
    next_number: int
    poll: str

    @property
    def at_work(self) -> list[tuple[Worker, str]]:
        """Each worker that is alive, with the stage that it is at."""
        return [(worker, name_of(worker.job)) for worker in self.workers]

    @property
    def may_launch(self) -> bool:
        return self.has_base and self.open_round is None


def _waits(job: Job) -> bool:
    return job.stage in STAGES and (job.state == Job.State.QUEUED or job.is_lost)


def mission(project: Project) -> Mission:
    """Everything at once, in a number of queries that does not grow with the rounds."""
    now = timezone.now()
    rounds = list(
        Round.objects.filter(project=project)
        .select_related("start_policy", "policy", "batch", "created_by")
        .order_by("-number")
    )
    jobs = list(Job.objects.filter(project=project).order_by("-created_at", "-id"))
    by_round: dict[int, list[Job]] = {}
    for job in jobs:
        by_round.setdefault(job.round_id, []).append(job)
    progress = batch_figures([r.batch for r in rounds if r.batch and r.state == "annotate"])
    lines, needs = [], []
    for one in rounds:
        one.project = project  # its address is asked for on every line
        own = [job for job in by_round.get(one.pk, []) if job.stage in one.plan]
        active = next((job for job in own if not job.has_ended), None)
        # A failed round is news until a later one has moved on from it.
        superseded = one.state == Round.State.FAILED and one.number < rounds[0].number
        need = None if superseded else _need(one, own, progress)
        if need:
            needs.append(need)
        lines.append(
            Line(
                one,
                stages(one, own),
                need.word if need else "",
                reading.progress(active) if active else {},
                active,
                _total(one),
            )
        )
    base = Checkpoint.objects.filter(
        project=project, kind=Checkpoint.Kind.POLICY, state=Checkpoint.State.PROMOTED
    ).exists()
    open_round = next((r for r in rounds if not r.has_ended), None)
    building = any(r.number == 0 and not r.has_ended for r in rounds)
    if not base and not building:
        needs.append(
            Need(
                "live",
                "base policy",
                "There is no base policy yet. Every round starts from one: build it, once.",
                act="build_base",
            )
        )
    fresh = now - timedelta(seconds=max(15, 2 * settings.JOB_LEASE_SECONDS))
    workers = list(Worker.objects.select_related("job").order_by("name"))
    alive = [w for w in workers if w.seen_at >= fresh]
    running = [job for job in jobs if job.state == Job.State.RUNNING]
    queued = sum(job.state == Job.State.QUEUED for job in jobs)
    waiting = {STAGES[job.stage].queue for job in jobs if _waits(job)}
    served = {queue for worker in alive for queue in worker.queues.split(",")}
    if missing := sorted(waiting - served):
        of = f" of the queue {' or '.join(missing)}" if alive else ""
        needs.insert(
            0,
            Need(
                "no-go",
                "no worker",
                f"Work is waiting and no worker{of} is alive to take it. Start one with "
                "“python manage.py supervise”.",
            ),
        )
    order = {"no-go": 0, "caution": 1, "live": 2}
    needs.sort(key=lambda need: order[need.kind])
    # Machines report every second or so, people now and then, and what has ended never again.
    if running or queued:
        poll = "2s"
    elif open_round is not None:
        poll = "5s" if open_round.state != Round.State.VERDICT else ""
    else:
        poll = ""
    return Mission(
        lines=lines,
        needs=needs,
        workers=alive,
        queued=queued,
        running=running,
        has_base=base,
        is_building_base=building,
        open_round=open_round,
        next_number=max((r.number for r in rounds), default=0) + 1,
        poll=poll,
    )


def _total(round: Round) -> str:
    if round.launched_at is None:
        return ""
    return duration(((round.ended_at or timezone.now()) - round.launched_at).total_seconds())


def _need(round: Round, jobs: Sequence[Job], progress: dict[int, dict[str, int]]) -> Need | None:
    """What this round asks of a person, if anything."""
    href = round.get_absolute_url()
    if round.state == Round.State.FAILED:
        reason = next((j.reason for j in jobs if j.state == Job.State.FAILED and j.reason), "")
        stage = STAGE_NAMES.get(round.failed_stage, round.failed_stage)
        return Need(
            "no-go",
            "failed",
            f"{round} failed" + (f" in {stage}." if stage else "."),
            href=href,
            link="See why",
            detail=reason,
        )
    if round.state == Round.State.VERDICT:
        return Need(
            "caution",
            "verdict",
            f"{round} is measured. Promote its policy, or refuse it.",
            href=f"{href}?stage=verdict",
            link="Give the verdict",
        )
    if round.state == Round.State.ANNOTATE and round.batch_id:
        figures = progress.get(round.batch_id, {"judged": 0, "needed": 0})
        judged, needed = figures["judged"], figures["needed"]
        if needed and judged >= needed:
            text, kind = (
                f"{round}: every comparison is judged. Close the batch to go on.",
                "caution",
            )
        else:
            text = f"{round} waits for judgments: {judged:,} of {needed:,} are in."
            kind = "live"
        return Need(
            kind,
            "judging",
            text,
            href=f"{href}?stage=annotate",
            link="Open the batch",
            done=judged,
            total=needed,
        )
    return None


def batch_figures(batches: Iterable[Batch]) -> dict[int, dict[str, int]]:
    """`{batch id: {judged, needed, comparisons}}` of several batches in one query."""
    ids = [batch.pk for batch in batches]
    if not ids:
        return {}
    rows = (
        Comparison.objects.filter(batch_id__in=ids, gold__isnull=True)
        .values("batch_id")
        .annotate(all_judged=Sum("judged"), all_needed=Sum("needed"), comparisons=Count("id"))
    )
    return {
        row["batch_id"]: {
            "judged": row["all_judged"] or 0,
            "needed": row["all_needed"] or 0,
            "comparisons": row["comparisons"],
        }
        for row in rows
    }


def focus(round: Round, timeline: Sequence[Stage], wanted: str = "") -> Stage | None:
    """The stage to show: the one asked for, else where the round is, else the last that ran."""
    for stage in timeline:
        if stage.key == wanted:
            return stage
    for state in ("now", "failed"):
        for stage in timeline:
            if stage.state == state:
                return stage
    # Of a round that is over, the policy's curves say more than the verdict's form.
    telling = [s for s in timeline if s.job is not None and s.key in ("ppo", "base")]
    passed = [s for s in timeline if s.state == "done"]
    shown = telling or passed or list(timeline)
    return shown[-1] if shown else None


@dataclass(frozen=True)
class Setting:
    """One line of a frozen configuration."""

    name: str
    value: str
    before: str
    is_changed: bool
    help: str


def settings_table(
    config: dict[str, Any], before: dict[str, Any] | None, explained: dict[str, dict[str, str]]
) -> list[tuple[str, list[Setting]]]:
    """A round's configuration by section, each value beside that of the round before."""
    sections = []
    order = ["round", *STAGE_NAMES]
    known_first = sorted(
        config.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)
    )
    for section, values in known_first:
        if not isinstance(values, dict):
            values = {"value": values}
            section_before: Any = {"value": (before or {}).get(section)}
        else:
            section_before = (before or {}).get(section) or {}
        rows = []
        for name, value in values.items():
            was = section_before.get(name) if isinstance(section_before, dict) else None
            known = (
                before is not None and isinstance(section_before, dict) and name in section_before
            )
            rows.append(
                Setting(
                    str(name),
                    shown(value),
                    shown(was) if known else "",
                    known and was != value,
                    explained.get(section, {}).get(name, ""),
                )
            )
        sections.append((section, rows))
    return sections


def shown(value: Any) -> str:
    """A setting's value for reading."""
    if value is True or value is False:
        return "yes" if value else "no"
    if value is None or value == "":
        return "–"
    if isinstance(value, list | tuple):
        return ", ".join(shown(item) for item in value) or "–"
    if isinstance(value, dict):
        # By name: PostgreSQL keeps the keys of a JSON object in an order of its own.
        return ", ".join(f"{key} {shown(value[key])}" for key in sorted(value)) or "–"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, int) and abs(value) >= 10_000:
        return f"{value:,}"
    return str(value)


def history(round: Round) -> QuerySet[Event]:
    """The audit log's lines about this round, newest first."""
    name = str(round)
    about = Q(target=name) | Q(target__startswith=f"{name} ") | Q(target__startswith=f"{name}:")
    about |= Q(target__endswith=f" of {name}") | Q(data__round=round.number)
    return (
        Event.objects.filter(about, project_id=round.project_id)
        .select_related("actor")
        .order_by("-at", "-id")
    )
