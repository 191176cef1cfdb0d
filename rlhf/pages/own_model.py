"""The model that rounds start from: naming one, looking at what was understood, using it."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from annotation.access import CAN_RUN, project_view
from annotation.data.ratings_and_demonstrations import demonstrations
from annotation.lib.languages import english_only
from annotation.models import Project
from annotation.request import who_asks
from rlhf import own_models, rounds, run_reports
from rlhf.errors import RoundError
from rlhf.models import Checkpoint, Job, Round
from rlhf.pages.lookup import wants_part
from rlhf.round_timeline import eta
from rlhf.workers import tasks


@english_only
@project_view(*CAN_RUN)
@require_http_methods(["GET", "POST"])
def own_model(request: HttpRequest, project: Project) -> HttpResponse:
    """What was understood of the model that was named last; a POST names one."""
    if request.method == "POST":
        named = request.POST.get("policy", "").strip()[:500]
        waiting = _inspection(project)
        by = who_asks(request)
        try:
            if not named:
                raise RoundError("Name a model folder, a GGUF file, or a model on the hub.")
            if waiting is not None and waiting.state == Round.State.INSPECTION:
                rounds.cancel_round(waiting, by)
            tasks.wake(own_models.inspect_model(project, by, named))
        except RoundError as error:
            messages.error(request, str(error))
            return render(request, "rlhf/own_model/page.html", _context(project, named), status=422)
        return redirect("own_model", project.slug)
    part = "#model" if wants_part(request, "model") else ""
    return render(request, f"rlhf/own_model/page.html{part}", _context(project))


@english_only
@project_view(*CAN_RUN)
@require_POST
def use_model(request: HttpRequest, project: Project) -> HttpResponse:
    """Take the inspected model: it is measured, and the next round starts from it."""
    round = _inspection(project)
    if round is None or round.state != Round.State.INSPECTION:
        messages.info(request, "No model waits to be used.")
        return redirect("rounds", project.slug)
    try:
        fine_tune = request.POST.get("fine_tune") == "on"
        job = own_models.use_model(round, who_asks(request), fine_tune=fine_tune)
    except RoundError as error:
        messages.error(request, str(error))
        return redirect("own_model", project.slug)
    tasks.wake(job)
    name = round.policy.name if round.policy else ""
    if job is not None and job.stage == "sft":
        messages.success(
            request, f"{name} is being fine-tuned; the next round starts from the result."
        )
    elif job is not None:
        messages.success(request, f"{name} is being measured; the next round starts from it.")
    else:
        messages.success(request, f"The next round starts from {name}.")
    return redirect("rounds", project.slug)


@english_only
@project_view(*CAN_RUN)
@require_POST
def drop_model(request: HttpRequest, project: Project) -> HttpResponse:
    """Leave the inspected model; what the next round starts from stays as it was."""
    round = _inspection(project)
    if round is not None and round.state == Round.State.INSPECTION:
        rounds.cancel_round(round, who_asks(request))
        messages.info(request, "The model is not used.")
    return redirect("own_model", project.slug)


def _inspection(project: Project) -> Round | None:
    """The project's last round, if it is about a model of one's own that is not used yet."""
    last = Round.objects.filter(project=project).select_related("policy").first()
    if last is None or "inspection" not in last.plan:
        return None
    last.project = project
    in_inspection = last.state == Round.State.INSPECTION or last.failed_stage == "inspection"
    return last if in_inspection else None


def _context(project: Project, named: str = "") -> dict[str, Any]:
    round = _inspection(project)
    job = round.newest_job("inspection") if round else None
    progress = run_reports.read_progress(job) if job and not job.has_ended else {}
    waits = round is not None and round.state == Round.State.INSPECTION
    live = Round.objects.live(project)
    return {
        "round": round,
        "job": job,
        "policy": round.policy if round and waits else None,
        "understood": round.policy.understood if round and waits and round.policy else {},
        "failed": job if round and job and job.state == Job.State.FAILED else None,
        "named": named or (round.config["inspection"]["policy"] if round else ""),
        "progress": progress,
        "eta": eta(progress),
        "poll": "2s" if job and not job.has_ended else "",
        "current": Checkpoint.objects.current_policy(project),
        "n_demonstrations": sum(1 for _ in demonstrations(project)) if waits else 0,
        "open_round": live if live and not waits else None,
    }
