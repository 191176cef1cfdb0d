"""One round: its stages, the stage in focus with everything it produced, and its metrics."""

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render

from annotation.access import CAN_READ_DATA, CAN_REVIEW, project_view, role_of
from annotation.lib.languages import english_only
from annotation.models import Membership, Project, User
from annotation.projects.batches import batch_progress, progress_by_person
from rlhf import run_reports
from rlhf.dashboard.curves import curves_of
from rlhf.dashboard.lineage import described
from rlhf.dashboard.results import load_results
from rlhf.dashboard.reward_panel import reward_report
from rlhf.dashboard.score_table import score_table
from rlhf.dashboard.settings_table import settings_table
from rlhf.dashboard.snapshot_counts import count_rows
from rlhf.dashboard.stage_facts import stage_caution, stage_facts
from rlhf.dashboard.tables import as_csv
from rlhf.models import Job, Round
from rlhf.pages.launch_form import explained
from rlhf.pages.lookup import csv_file, find_round, integer_or, may_run, wants_part
from rlhf.pages.retrain_form import RetrainForm
from rlhf.round_timeline import Stage, duration, eta, focused_stage, round_stages
from rlhf.verdict import JUDGE_NAMES, Proposal, propose_verdict

EVENTS_SHOWN = 50


@english_only
@project_view(*CAN_READ_DATA)
def round_detail(request: HttpRequest, project: Project, number: int) -> HttpResponse:
    """One round: its stages, and the stage in focus with everything it produced."""
    round = find_round(project, number)
    jobs = list(round.jobs.filter(stage__in=round.plan))
    stages = round_stages(round, jobs)
    wanted = request.GET.get("stage", "")
    focus = focused_stage(stages, wanted)
    active = next((job for job in jobs if not job.has_ended), None)
    progress = run_reports.read_progress(active) if active else {}
    has_failed = round.state == Round.State.FAILED
    context: dict[str, Any] = {
        "round": round,
        "stages": stages,
        "focus": focus,
        "wanted": wanted,
        "active": active,
        "progress": progress,
        "eta": eta(progress),
        "failed": next((j for j in jobs if j.state == Job.State.FAILED), None)
        if has_failed
        else None,
        "failed_name": Round.stage_name(round.failed_stage),
        "poll": _poll(round, active),
        "may_run": may_run(request),
        "shows_names": role_of(request) in CAN_REVIEW,
        "retrain_form": RetrainForm(round=round) if round.open_hold else None,
        "policy_state": described(project, [round.policy])[0].state if round.policy else "",
        "note": request.session.get(f"note-{round.pk}", ""),
        "events": list(round.events[:EVENTS_SHOWN]),
        **_result_context(project, round),
        **_focus_context(project, round, focus),
    }
    part = "#round" if wants_part(request, "round") else ""
    return render(request, f"rlhf/round/page.html{part}", context)


def _poll(round: Round, active: Job | None) -> str:
    """How often the page asks again; "" for never."""
    if active:  # also the job of a cancelled round, until it has written its checkpoint
        return "2s"
    if round.has_ended:
        return ""
    # While it waits for a decision too: somebody else may decide.
    return "10s" if round.state == Round.State.VERDICT or round.open_hold else "5s"


def _result_context(project: Project, round: Round) -> dict[str, Any]:
    """What the page says whichever stage is in focus: the round's figures, its verdict with what it
    rests on, and its settings next to those of the last round with the same stages."""
    results = load_results(project)
    result = results.by_round[round.pk]
    earlier = [r for r in results.evidence.rounds if r.number < round.number]
    compared = next((r for r in reversed(earlier) if r.plan == round.plan), None)
    settings = settings_table(round.config, compared.config if compared else None, explained())
    return {
        "results": results,
        "result": result if result.is_measured else None,
        **_proposal(round),
        "compared_with": compared,
        "configuration": settings,
        "changed": [(section, row) for section, rows in settings for row in rows if row.is_changed],
    }


# --- The stage in focus ----------------------------------------------------------------------


def _focus_context(project: Project, round: Round, stage: Stage | None) -> dict[str, Any]:
    """The template's context for the stage in focus."""
    if stage is None:
        return {}
    context: dict[str, Any] = {}
    if stage.job is not None:
        result = run_reports.read_result(stage.job)
        context["curves"] = curves_of(stage.key, round.config)
        context["log"] = run_reports.log_tail(stage.job)
        context["facts"] = stage_facts(stage.key, result)
        context["caution"] = stage_caution(stage.key, result, round.config)
        if stage.key == "ppo":
            context["pairs"] = run_reports.before_after(stage.job)
        if stage.key == "reward_model":
            context["report"] = reward_report(result)
            context["people_are_simulated"] = round.has_simulated_judgments
    if stage.key in FOCUS_CONTEXTS:
        context |= FOCUS_CONTEXTS[stage.key](project, round)
    return context


def _annotate(project: Project, round: Round) -> dict[str, Any]:
    if round.batch is None:
        return {}
    progress = batch_progress(round.batch)
    missing = max(0, progress["needed"] - progress["judged"])
    holders = [row for row in progress_by_person(round.batch) if row["leased"]]
    people = User.objects.in_bulk([row["annotator"] for row in holders])
    # What people hold comes when they send it, whatever the pace of the last hour was.
    is_all_held = 0 < missing <= progress["leased"]
    seconds = None if is_all_held else progress["eta_seconds"]
    simulated = Membership.objects.filter(project=project, user__is_simulated=True)
    return {
        "batch": progress,
        "batch_eta": duration(seconds) if seconds else "",
        "missing": missing,
        "holders": [(people[row["annotator"]], row) for row in holders],
        "is_all_held": is_all_held,
        "simulated": simulated.exists(),
    }


def _snapshot(project: Project, round: Round) -> dict[str, Any]:
    return {"counts": count_rows(round.snapshot.counts)} if round.snapshot else {}


def _evaluate(project: Project, round: Round) -> dict[str, Any]:
    return {"scores": score_table(round)}


def _proposal(round: Round) -> dict[str, Any]:
    """What the gate proposed, or proposes now; {} before the evaluation."""
    if round.verdict_evidence:
        proposal, is_reconstructed = Proposal.from_json(round.verdict_evidence), False
    elif round.verdict or round.state == Round.State.VERDICT:
        # Rounds that were decided in an earlier version kept their scores only.
        proposal, is_reconstructed = propose_verdict(round), bool(round.verdict)
    else:
        return {}
    return {
        "proposal": proposal,
        "is_reconstructed": is_reconstructed,
        "judge_name": JUDGE_NAMES.get(proposal.judge, ""),
    }


FOCUS_CONTEXTS: dict[str, Callable[[Project, Round], dict[str, Any]]] = {
    "annotate": _annotate,
    "snapshot": _snapshot,
    "evaluate": _evaluate,
}


# --- Its metrics, for the live curves and as a file ------------------------------------------


@english_only
@project_view(*CAN_READ_DATA)
def metrics(request: HttpRequest, project: Project, number: int, stage: str) -> HttpResponse:
    """The rows of a stage's metrics that the page does not have yet (`epoch`, `after`)."""
    epoch = integer_or(request.GET.get("epoch"), -1)
    after = integer_or(request.GET.get("after"), -1)
    return JsonResponse(_metrics(project, number, stage, epoch=epoch, after=after))


@english_only
@project_view(*CAN_READ_DATA)
def metrics_csv(request: HttpRequest, project: Project, number: int, stage: str) -> HttpResponse:
    """All of a stage's metrics as CSV."""
    rows = _metrics(project, number, stage, epoch=-1, after=-1)["rows"]
    columns = list(dict.fromkeys(name for row in rows for name in row)) or ["step", "time"]
    text = as_csv(columns, ([row.get(name) for name in columns] for row in rows))
    return csv_file(text, f"{project.slug}-round-{number}-{stage}.csv")


def _metrics(
    project: Project, number: int, stage: str, *, epoch: int, after: int
) -> dict[str, Any]:
    job = find_round(project, number).newest_job(stage)
    if job is None:  # not started: there is nothing to ask again for
        return {"epoch": 0, "reset": True, "running": False, "last": -1, "rows": []}
    return run_reports.metrics_since(job, epoch=epoch, after=after)
