"""Live dialogue for admins: which policies answer, and the campaigns in which people talk to them."""

from typing import Any

from django.contrib import messages
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from annotation.access import CAN_RUN, project_view
from annotation.judge.dialogue_campaigns import DialogueError, open_campaign
from annotation.lib.languages import english_only
from annotation.models import Batch, DialogueCampaign, Project, Turn, User
from annotation.projects.batches import close_batch
from annotation.request import who_asks
from rlhf.models import Checkpoint
from rlhf.pages.campaign_form import CampaignForm
from rlhf.serving.candidates import EXTERNAL
from rlhf.serving.client import ServingError, external_models
from rlhf.serving.servers import health, start_serving, stop_serving

POLICIES_SHOWN = 50


@english_only
@project_view(*CAN_RUN)
@require_http_methods(["GET", "POST"])
def campaigns(request: HttpRequest, project: Project) -> HttpResponse:
    """The policies with their servers, and the campaigns; a POST opens a campaign."""
    policies = _policies(project)
    try:
        external, problem = external_models(), ""
    except ServingError as error:
        external, problem = [], str(error)
    choices = [(str(row["checkpoint"].uid), row["checkpoint"].name) for row in policies]
    choices += [(EXTERNAL + name, name) for name in external]
    form = CampaignForm(request.POST or None, project=project, policies=choices)
    if form.is_valid():
        try:
            campaign = _open(project, form.cleaned_data, who_asks(request))
        except DialogueError as error:
            form.add_error(None, str(error))
        else:
            messages.success(request, f"{campaign} is open.")
            return redirect("campaigns", project.slug)
    context = {
        "project": project,
        "policies": policies,
        "external": external,
        "problem": problem,
        "form": form,
        "campaigns": _campaigns(project),
        "is_waiting": any(row["health"].state in ("starting", "gone") for row in policies),
    }
    return render(request, "rlhf/campaigns.html", context, status=422 if form.errors else 200)


@english_only
@project_view(*CAN_RUN)
@require_POST
def close_campaign(request: HttpRequest, project: Project, campaign: int) -> HttpResponse:
    """Close a campaign's batch; its dialogues are kept."""
    batch = get_object_or_404(Batch, project=project, dialogue_campaign__pk=campaign)
    close_batch(batch, who_asks(request))
    messages.success(request, f"{batch.name} is closed. Its dialogues are kept.")
    return redirect("campaigns", project.slug)


@english_only
@project_view(*CAN_RUN)
@require_POST
def start_policy(request: HttpRequest, project: Project, policy: int) -> HttpResponse:
    """Have a policy served."""
    try:
        start_serving(_policy(project, policy), who_asks(request))
    except ServingError as error:
        messages.error(request, str(error))
    return redirect("campaigns", project.slug)


@english_only
@project_view(*CAN_RUN)
@require_POST
def stop_policy(request: HttpRequest, project: Project, policy: int) -> HttpResponse:
    """Stop serving a policy."""
    stop_serving(_policy(project, policy), who_asks(request))
    return redirect("campaigns", project.slug)


def _policy(project: Project, pk: int) -> Checkpoint:
    return get_object_or_404(Checkpoint, project=project, kind=Checkpoint.Kind.POLICY, pk=pk)


def _policies(project: Project) -> list[dict[str, Any]]:
    """The project's newest policies with their servers' health."""
    policies = (
        Checkpoint.objects.filter(project=project, kind=Checkpoint.Kind.POLICY)
        .select_related("server", "round")
        .order_by("-created_at")[:POLICIES_SHOWN]
    )
    return [
        {"checkpoint": policy, "health": health(getattr(policy, "server", None))}
        for policy in policies
    ]


def _campaigns(project: Project) -> Any:
    return (
        DialogueCampaign.objects.filter(batch__project=project)
        .select_related("batch")
        .annotate(
            n_turns=Count("dialogues__turns", filter=Q(dialogues__turns__state=Turn.State.CHOSEN)),
            n_people=Count("dialogues__annotator", distinct=True),
        )
        .order_by("-pk")
    )


def _open(project: Project, data: dict[str, Any], by: User) -> DialogueCampaign:
    return open_campaign(
        project,
        data["name"],
        kind=data["kind"],
        preset=data["asks"],
        task=data["task"],
        max_turns=data["max_turns"],
        licence=data["licence"],
        by=by,
        writing={
            "policies": data["policies"],
            "temperatures": data["temperatures"],
            "max_new_tokens": data["max_new_tokens"],
        },
    )
