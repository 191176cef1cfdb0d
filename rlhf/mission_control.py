"""Mission control: every round in one line, what waits for a person, and the workers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db.models import Sum
from django.urls import reverse
from django.utils import timezone

from annotation.models import Batch, Comparison, Project
from rlhf import run_reports
from rlhf.models import Checkpoint, Job, Round, Worker
from rlhf.round_timeline import Stage, duration, eta, round_stages
from rlhf.stages import STAGES


@dataclass(frozen=True)
class Need:
    """Something that waits for a person.

    `kind` is a badge of site.css; `act` names the act that the page offers directly.
    """

    kind: str  # `no-go`, `caution` or `live`, most urgent first
    word: str
    text: str
    href: str = ""
    link: str = ""
    detail: str = ""
    act: str = ""
    done: int = 0
    total: int = 0


URGENCY = {"no-go": 0, "caution": 1, "live": 2}


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
    current: list[Line]
    """The rounds that run or wait, and the newest one if it has failed: with their stages."""
    next_number: int
    policy: Checkpoint | None

    @property
    def may_launch(self) -> bool:
        return self.has_base and self.open_round is None

    @property
    def poll(self) -> str:
        """The polling interval of the page; "" for no polling."""
        if self.running or self.queued:
            return "2s"
        if self.open_round is None or self.open_round.state == Round.State.VERDICT:
            return ""
        if self.open_round.open_hold:
            return ""
        return "5s"


def load_mission(project: Project) -> Mission:
    """Mission control of a project, in a number of queries that does not grow with its rounds."""
    rounds = list(
        Round.objects.filter(project=project)
        .select_related("start_policy", "policy", "batch", "created_by")
        .order_by("-number")
    )
    jobs = list(Job.objects.filter(project=project).order_by("-created_at", "-id"))
    lines, needs = _lines(project, rounds, jobs)
    policy = Checkpoint.objects.current_policy(project)
    has_base = policy is not None
    is_building_base = any(r.number == 0 and not r.has_ended for r in rounds)
    if not has_base and not is_building_base:
        needs.append(_policy_need(project))
    workers = _live_workers()
    if missing := _missing_worker(jobs, workers):
        needs.append(missing)
    return Mission(
        lines=lines,
        needs=sorted(needs, key=lambda need: (URGENCY[need.kind], need.word != NO_WORKER)),
        workers=workers,
        queued=sum(job.state == Job.State.QUEUED for job in jobs),
        running=[job for job in jobs if job.state == Job.State.RUNNING],
        has_base=has_base,
        is_building_base=is_building_base,
        open_round=next((r for r in rounds if not r.has_ended), None),
        current=[
            line
            for i, line in enumerate(lines)
            if not line.round.has_ended or (i == 0 and line.round.state != Round.State.DONE)
        ],
        next_number=max((r.number for r in rounds), default=0) + 1,
        policy=policy,
    )


def _policy_need(project: Project) -> Need:
    """The need for a policy that the first round starts from: the demo builds a tiny one, a real
    project names its own."""
    if project.is_demo:
        text = "There is no base policy yet. Build it once; every round starts from a policy."
        return Need("live", "base policy", text, act="build_base")
    text = "There is no model yet. Name the language model that the first round starts from."
    return Need("live", "model", text, act="name_model")


def _lines(
    project: Project, rounds: Sequence[Round], jobs: Iterable[Job]
) -> tuple[list[Line], list[Need]]:
    """A line for each round, and what the rounds need from people."""
    jobs_by_round: dict[int, list[Job]] = {}
    for job in jobs:
        jobs_by_round.setdefault(job.round_id, []).append(job)
    counts = _judgment_counts([r.batch for r in rounds if r.batch and r.state == "annotate"])
    lines, needs = [], []
    for round in rounds:
        round.project = project  # its address is asked for on every line
        own = [job for job in jobs_by_round.get(round.pk, []) if job.stage in round.plan]
        active = next((job for job in own if not job.has_ended), None)
        # A failed round is news until a later one has moved on from it.
        superseded = round.state == Round.State.FAILED and round.number < rounds[0].number
        need = None if superseded else _need(round, own, counts)
        if need:
            needs.append(need)
        lines.append(
            Line(
                round,
                round_stages(round, own),
                need.word if need else "",
                run_reports.read_progress(active) if active else {},
                active,
                _total_time(round),
            )
        )
    return lines, needs


def _total_time(round: Round) -> str:
    if round.launched_at is None:
        return ""
    return duration(((round.ended_at or timezone.now()) - round.launched_at).total_seconds())


# --- Workers ---------------------------------------------------------------------------------

NO_WORKER = "no worker"


def _live_workers() -> list[Worker]:
    fresh = timezone.now() - timedelta(seconds=max(15, 2 * settings.JOB_LEASE_SECONDS))
    return list(Worker.objects.filter(seen_at__gte=fresh).select_related("job").order_by("name"))


def _missing_worker(jobs: Iterable[Job], workers: Sequence[Worker]) -> Need | None:
    """The need for a worker, where a queue with waiting jobs has none."""
    waiting = {STAGES[job.stage].queue for job in jobs if _is_waiting(job)}
    served = {queue for worker in workers for queue in worker.queues.split(",")}
    missing = sorted(waiting - served)
    if not missing:
        return None
    for_queue = f" for the queue {' or '.join(missing)}" if workers else ""
    return Need(
        "no-go",
        NO_WORKER,
        f"Jobs are waiting, but no worker{for_queue} is running. Start one with "
        "“python manage.py supervise”.",
    )


def _is_waiting(job: Job) -> bool:
    return job.stage in STAGES and (job.state == Job.State.QUEUED or job.is_lost)


# --- What a round needs from a person --------------------------------------------------------


def _need(round: Round, jobs: Sequence[Job], counts: Mapping[int, tuple[int, int]]) -> Need | None:
    url = round.get_absolute_url()
    if round.state == Round.State.FAILED:
        reason = next((j.reason for j in jobs if j.state == Job.State.FAILED and j.reason), "")
        stage = f" in {Round.stage_name(round.failed_stage)}" if round.failed_stage else ""
        text = f"{round} failed{stage}."
        return Need("no-go", "failed", text, href=url, link="See why", detail=reason)
    if hold := round.open_hold:
        return Need(
            "caution",
            "in doubt",
            f"{round} waits: its reward models are in doubt. Train them again, or let it go on.",
            href=f"{url}?stage={hold['stage']}",
            link="Decide",
            detail=" ".join(hold["doubts"]),
        )
    if round.state == Round.State.VERDICT:
        return Need(
            "caution",
            "verdict",
            f"{round} is evaluated. Promote or reject its policy.",
            href=f"{url}?stage=verdict",
            link="Decide",
        )
    if round.state == Round.State.INSPECTION and round.policy:
        return Need(
            "caution",
            "model",
            f"{round.policy.name} is read. Look at what was understood, then use it.",
            href=reverse("own_model", args=[round.project.slug]),
            link="Look at it",
        )
    if round.state == Round.State.ANNOTATE and round.batch_id:
        judged, needed = counts.get(round.batch_id, (0, 0))
        if needed and judged >= needed:
            kind, text = "caution", f"{round}: every comparison is judged. Close the batch."
        else:
            kind, text = "live", f"{round}: {judged:,} of {needed:,} judgments."
        return Need(
            kind,
            "judging",
            text,
            href=f"{url}?stage=annotate",
            link="Open the batch",
            done=judged,
            total=needed,
        )
    return None


def _judgment_counts(batches: Sequence[Batch]) -> dict[int, tuple[int, int]]:
    """`{batch id: (judgments, judgments needed)}` of several batches in one query."""
    if not batches:
        return {}
    rows = (
        Comparison.objects.filter(batch__in=batches, gold__isnull=True)
        .values("batch_id")
        .annotate(all_judged=Sum("judged"), all_needed=Sum("needed"))
    )
    return {row["batch_id"]: (row["all_judged"] or 0, row["all_needed"] or 0) for row in rows}
