"""The project's models with their lineage, and the button that rolls a promotion back."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST

from annotation.access import CAN_READ_DATA, CAN_RUN, project_view
from annotation.lib.languages import english_only
from annotation.models import Project
from annotation.request import who_asks
from rlhf import rounds
from rlhf.dashboard.lineage import project_models
from rlhf.errors import RoundError
from rlhf.models import Checkpoint
from rlhf.pages.lookup import may_run


@english_only
@project_view(*CAN_READ_DATA)
def models(request: HttpRequest, project: Project) -> HttpResponse:
    """Every model with its lineage; only those who run rounds see where its files are."""
    rows = project_models(project)
    context = {
        "models": rows,
        "may_run": may_run(request),
        "may_retire": may_run(request) and sum(model.is_promoted for model in rows) > 1,
    }
    return render(request, "rlhf/models.html", context)


@english_only
@project_view(*CAN_RUN)
@require_POST
def retire_policy(request: HttpRequest, project: Project) -> HttpResponse:
    """Roll a promotion back: the next round starts from the policy promoted before it."""
    uid, note = request.POST.get("model", ""), request.POST.get("note", "")[:2000]
    checkpoints = project.checkpoints.all()
    policy = next((row for row in checkpoints if str(row.uid) == uid), None)
    if policy is None:
        messages.error(request, "There is no such model in this project.")
        return redirect("models", project.slug)
    try:
        rounds.retire_policy(policy, note, who_asks(request))
    except RoundError as error:
        messages.error(request, str(error))
    else:
        start = Checkpoint.objects.current_policy(project)
        messages.success(request, f"{policy} is retired; the next round starts from {start}.")
    return redirect("models", project.slug)
