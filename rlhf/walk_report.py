"""The report of a walk: one entry with measurements per round, as JSON (docs/walk.md)."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from annotation.lib.code_version import code_version
from annotation.models import Comparison, Judgment, Project
from annotation.protocols import is_mark
from rlhf.models import Job, Round
from rlhf.training.intervals import share_with_interval
from rlhf.training.rundir.files import read_jsonl
from rlhf.training.score_summary import group_by_temperature


def walk_report(project: Project, *, preset: str, seed: int) -> dict[str, Any]:
    """The walk's report: one entry per round, the base policy first."""
    entries = [
        _entry(round)
        for round in Round.objects.filter(project=project)
        .select_related("policy", "batch", "snapshot")
        .order_by("number")
    ]
    if len(entries) > 1:
        # Round 0 trains no reward model; the base policy's scores are by round 1's reward model.
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
        "gold": "the rubric that the simulated annotators follow; reward models never see it",
        "seconds": sum(sum(entry["seconds"].values()) for entry in entries),
        "code_version": code_version(),
        "rounds": entries,
    }


def _entry(round: Round) -> dict[str, Any]:
    evaluated = _last_result(round, "evaluate")
    reward_models = _last_result(round, "reward_model")
    ppo = _last_result(round, "ppo")
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
        estimate["alpha"]
        for axis, estimate in agreement.items()
        if not is_mark(axis) and estimate.get("alpha") is not None
    ]
    return {
        "round": round.number,
        "policy": round.policy.name if round.policy else None,
        "n_prompts": comparisons.count() if comparisons is not None else 0,
        "n_judgments": judgments.count() if round.batch_id else 0,
        "agreement_alpha": sum(alphas) / len(alphas) if alphas else None,
        "agreement": agreement,
        "seconds": {
            stage: stage_seconds(times) or 0.0
            for stage, times in sorted(round.stage_times.items(), key=_stage_start)
        },
        "unfinished": unfinished_shares(round.last_done("evaluate")),
        "rm": _reward_models(reward_models.get("train")),
        "rm_test": _reward_models(reward_models.get("test")),
        "ppo": {key: ppo.get(key) for key in ("steps", "reward", "kl", "samples_per_second")}
        | {key: ppo.get(key) for key in ("stop_reason", "best_step")}
        if ppo
        else None,
        "model": _hottest_first(evaluated.get("summary")),
        "gold": _hottest_first(evaluated.get("gold")),
        "verdict": round.verdict or None,
        "_round": round,
    }


def unfinished_shares(job: Job | None) -> dict[str, Any] | None:
    """The share of held-out answers that did not end within the response budget, with its interval,
    for each temperature; None where nothing was evaluated."""
    path = job.run_dir / "samples.jsonl" if job else None
    if path is None or not path.exists():
        return None
    shares = {}
    for temperature, rows in group_by_temperature(read_jsonl(path)).items():
        value, interval, n = share_with_interval(
            [float(not row["finished"]) for row in rows], [row["prompt_id"] for row in rows]
        )
        shares[temperature] = {"value": value, "ci": list(interval), "n": n}
    return shares


def _stage_start(stage: tuple[str, list[str | None]]) -> str:
    # PostgreSQL keeps the keys of a JSON object in an order of its own.
    return stage[1][0] or ""


def _hottest_first(summaries: dict[str, Any] | None) -> dict[str, Any] | None:
    if summaries is None:
        return None
    return dict(sorted(summaries.items(), key=lambda item: -float(item[0])))


def _reward_models(part: dict[str, Any] | None) -> dict[str, Any] | None:
    if not part:
        return None
    names = ("accuracy", "accuracy_ci", "ece", "n", "human_agreement")
    return {
        axis: {name: figures.get(name) for name in names}
        for axis, figures in part.items()
        if isinstance(figures, dict)
    }


def _last_result(round: Round, stage: str) -> dict[str, Any]:
    job = round.last_done(stage)
    return dict(job.metrics) if job else {}


def stage_seconds(times: list[str | None]) -> float | None:
    started, ended = times
    if started is None or ended is None:
        return None
    duration = datetime.fromisoformat(ended) - datetime.fromisoformat(started)
    return round(duration.total_seconds(), 1)


def write_report(report: dict[str, Any], path: Path) -> None:
    """The report as JSON, whole or not at all."""
    unfinished = path.with_name(f".{path.name}.new")
    unfinished.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    unfinished.replace(path)
