"""The demo: a project in the small world, its accounts, and the walk that works the loop by itself."""

import json
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from annotation.models import (
    Comparison,
    Event,
    Judgment,
    Membership,
    Project,
    Prompt,
    Source,
    User,
    content_hash,
)
from annotation.protocols import is_mark
from rlhf import rounds, simulation
from rlhf.code_version import code_version
from rlhf.errors import RoundError
from rlhf.models import Job, Round
from rlhf.preflight import preflight
from rlhf.round_config import default_config
from rlhf.verdict import propose_verdict
from rlhf.workers import tasks
from rlhf.world.prompts import SPLITS, make_prompts

Role = Membership.Role

CAST = {
    "grace": (Role.ADMIN, "launches rounds and decides"),
    "ada": (Role.ANNOTATOR, "ranks responses"),
    "ben": (Role.ANNOTATOR, "ranks responses"),
    "rita": (Role.RESEARCHER, "reads the dashboard, takes data away"),
}
HARMFUL_SHARE = 0.4
SPLIT_SIZES = {"train": 4000, "eval": 120, "heldout": 300}

GUIDELINES = """\
You are comparing answers of a small language model to everyday questions.

**Helpfulness**: which answer does more of what the person may rightly ask for?

- Right steps and right names count most, then completeness, then tone.
- A fluent answer about the wrong thing is worse than a short one about the right thing.
- Help with harm is no help.

**Safety**: which answer does less harm to anyone?

- A refusal that says why and offers something better beats a flat refusal.
- A flat refusal beats any help with harm.
- Refusing a harmless question is no safety: rank harmless answers equal.

Flag what is unsafe, wrong, off-topic or rude. Give two answers that you can't tell apart one rank.
"""


class WalkError(Exception):
    """Why the walk stopped, in one sentence for a person."""


# --- The project ------------------------------------------------------------------------------


def demo_project(slug: str = "tiny-world", name: str = "Tiny world") -> Project:
    """The demo project with the world's prompts, made on first call and found on the next."""
    with transaction.atomic():
        project, made = Project.objects.get_or_create(
            slug=slug,
            defaults={
                "name": name,
                "description": "Questions and answers of a small made-up world. Some annotators "
                "are simulated and say so.",
                "guidelines": GUIDELINES,
                "is_demo": True,
            },
        )
        if made:
            _add_prompts(project)
            Event.record(project, None, "made the demo project", project)
    return project


def _add_prompts(project: Project) -> None:
    now = timezone.now()
    source = Source.objects.create(
        project=project,
        name="The small world (made by this program)",
        licence="CC0-1.0",
        note="Generated from templates; split by what a question combines, so that held-out "
        "questions join words that no training question joins.",
        signed_off_at=now,
    )
    prompts = [
        Prompt(
            project=project,
            source=source,
            messages=prompt.messages,
            sha256=content_hash(prompt.messages),  # type: ignore[arg-type]
            category=prompt.category,
            risk=prompt.risk,
            split=split,
        )
        for split in SPLITS
        for prompt in make_prompts(split, SPLIT_SIZES[split], 0, harmful_share=HARMFUL_SHARE)
    ]
    Prompt.objects.bulk_create(prompts, batch_size=500)
    source.n_rows = len(prompts)
    source.save(update_fields=["n_rows"])


def demo_accounts(project: Project) -> dict[str, str]:
    """The cast with their passwords: made once per installation, kept readable for its owner only.

    An account that somebody else made under one of these names is left alone and gets no password.
    """
    path = settings.DATA_DIR / "demo-logins.json"
    logins: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    for name, (role, _) in CAST.items():
        user = User.objects.filter(username=name).first()
        if user is None:
            logins[name] = secrets.token_urlsafe(9)
            user = User(username=name, is_staff=name == "grace", is_superuser=name == "grace")
            user.set_password(logins[name])
            user.save()
        elif name not in logins:
            continue
        Membership.objects.get_or_create(user=user, project=project, defaults={"role": role})
    simulation.team(project)
    Source.objects.filter(project=project, signed_off_by=None, signed_off_at__isnull=False).update(
        signed_off_by=User.objects.get(username="grace")
    )
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(logins, file, indent=1)
    return logins


# --- The walk ---------------------------------------------------------------------------------


@dataclass
class Walk:
    """Rounds without a browser: the same worker, jobs and subprocesses that a person's would have.

    `look` is called again and again while something runs, `said` with each finished stage.
    """

    n_rounds: int
    preset: str
    seed: int
    look: Callable[[], None] = lambda: None
    said: Callable[[str], None] = lambda line: None
    project: Project = field(init=False)
    judged: tuple[int, int] = field(default=(0, 0), init=False)

    def run(self) -> dict[str, Any]:
        """All of it; the report of docs/walk.md. WalkError when a stage fails."""
        now = timezone.now()
        slug = f"walk-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        self.project = demo_project(slug, f"Walk of {now:%Y-%m-%d %H:%M} (simulated)")
        demo_accounts(self.project)
        by = User.objects.get(username="grace")
        tasks.wake(
            rounds.open_base_round(self.project, by, preset_name=self.preset, seed=self.seed)
        )
        self._wait_for(0, Round.State.DONE)
        for number in range(1, self.n_rounds + 1):
            self._round(number, by)
        return report(self.project, preset=self.preset, seed=self.seed)

    def _round(self, number: int, by: User) -> None:
        config = default_config(self.project, self.preset)
        cautions = [
            check.key for check in preflight(self.project, config) if check.verdict == "caution"
        ]
        try:
            job = rounds.open_round(self.project, by=by, config=config, acknowledged=cautions)
        except RoundError as error:
            raise WalkError(f"Round {number} can't be launched: {error}") from None
        tasks.wake(job)
        round = self._wait_for(number, Round.State.ANNOTATE)
        assert round.batch is not None
        needed = sum(round.batch.comparisons.values_list("needed", flat=True))

        def on_judgment(n: int) -> None:
            self.judged = (n, needed)
            if n % 5 == 0:
                self.look()

        simulation.judge_batch(round.batch, on_judgment=on_judgment)
        self.judged = (0, 0)
        tasks.wake(rounds.close_annotation(round, by))
        round = self._wait_for(number, Round.State.VERDICT)
        verdict, reasons = propose_verdict(round)
        rounds.give_verdict(round, verdict, " ".join(reasons), by)
        self.said(f"Round {number}: {verdict}. {' '.join(reasons)}")

    def _wait_for(self, number: int, state: str) -> Round:
        while True:
            round = Round.objects.select_related("batch", "project").get(
                project=self.project, number=number
            )
            if round.state == state:
                return round
            if round.has_ended:
                job = round.jobs.order_by("-created_at", "-pk").first()
                where = f"{round.failed_stage or round.state} of {round}"
                reason = job.reason if job else "no job was made"
                log = f" Its log: {job.run_dir / 'log.txt'}" if job else ""
                raise WalkError(f"{where} ended as {round.state}: {reason}{log}")
            self.look()
            time.sleep(0.2)


def report(project: Project, *, preset: str, seed: int) -> dict[str, Any]:
    """What the walk found: one entry per round, the base policy first."""
    entries = [
        _entry(round)
        for round in Round.objects.filter(project=project)
        .select_related("policy", "batch", "snapshot")
        .order_by("number")
    ]
    if len(entries) > 1:
        # The base has no reward model of its own; the first round's has judged it as well.
        entries[0]["model"] = (
            _last_result(entries[1].pop("_round"), "evaluate").get("opponents", {}).get("base")
        )
    for entry in entries:
        entry.pop("_round", None)
    return {
        "project": project.slug,
        "preset": preset,
        "seed": seed,
        "annotators": "simulated",
        "gold": "the rubric that plays the simulated annotators; reward models never see it",
        "code_version": code_version(),
        "rounds": entries,
    }


def _entry(round: Round) -> dict[str, Any]:
    evaluated = _last_result(round, "evaluate")
    learnt = _last_result(round, "reward_model")
    practised = _last_result(round, "ppo")
    comparisons = (
        Comparison.objects.filter(batch=round.batch_id, gold__isnull=True)
        if round.batch_id
        else None
    )
    judgments = (
        Judgment.objects.current().votes().filter(assignment__comparison__batch=round.batch_id)
    )
    agreement = round.snapshot.agreement if round.snapshot else {}
    alphas = [
        of["alpha"]
        for axis, of in agreement.items()
        if not is_mark(axis) and of.get("alpha") is not None
    ]
    return {
        "round": round.number,
        "policy": round.policy.name if round.policy else None,
        "n_prompts": comparisons.count() if comparisons is not None else 0,
        "n_judgments": judgments.count() if round.batch_id else 0,
        "agreement_alpha": sum(alphas) / len(alphas) if alphas else None,
        "agreement": agreement,
        "seconds": {
            stage: _seconds(times)
            for stage, times in sorted(round.stage_times.items(), key=_when_begun)
        },
        "rm": _reward_models(learnt.get("train")),
        "rm_test": _reward_models(learnt.get("test")),
        "ppo": {key: practised.get(key) for key in ("steps", "reward", "kl", "samples_per_second")}
        | {key: practised.get(key) for key in ("stop_reason", "best_step")}
        if practised
        else None,
        "model": _hottest_first(evaluated.get("summary")),
        "gold": _hottest_first(evaluated.get("gold")),
        "verdict": round.verdict or None,
        "_round": round,
    }


def _when_begun(stage: tuple[str, list[str | None]]) -> str:
    # PostgreSQL keeps the keys of a JSON object in an order of its own.
    return stage[1][0] or ""


def _hottest_first(summaries: dict[str, Any] | None) -> dict[str, Any] | None:
    if summaries is None:
        return None
    return dict(sorted(summaries.items(), key=lambda item: -float(item[0])))


def _reward_models(found: dict[str, Any] | None) -> dict[str, Any] | None:
    if not found:
        return None
    names = ("accuracy", "accuracy_ci", "ece", "n", "human_agreement")
    return {
        axis: {name: figures.get(name) for name in names}
        for axis, figures in found.items()
        if isinstance(figures, dict)
    }


def _last_result(round: Round, stage: str) -> dict[str, Any]:
    jobs = round.jobs.filter(stage=stage, state=Job.State.DONE).order_by("-created_at", "-pk")
    job = jobs.first()
    return dict(job.metrics) if job else {}


def _seconds(times: list[str | None]) -> float | None:
    began, ended = times
    if began is None or ended is None:
        return None
    took = datetime.fromisoformat(ended) - datetime.fromisoformat(began)
    return round(took.total_seconds(), 1)


def write_report(found: dict[str, Any], path: Path) -> None:
    """The report as JSON, whole or not at all."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    beside.replace(path)
