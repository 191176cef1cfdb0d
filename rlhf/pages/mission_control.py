"""Mission control, and the button that builds the base policy."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST

from annotation.access import CAN_READ_DATA, CAN_RUN, project_view
from annotation.lib.languages import english_only
from annotation.models import Project
from annotation.request import who_asks
from rlhf import rounds
from rlhf.dashboard.evidence import load_evidence
from rlhf.dashboard.score_panels import small_multiples
from rlhf.errors import RoundError
from rlhf.mission_control import load_mission
from rlhf.models import Round
from rlhf.pages.lookup import may_run, wants_part
from rlhf.workers import tasks


@english_only
@project_view(*CAN_READ_DATA)
def mission_control(request: HttpRequest, project: Project) -> HttpResponse:
    """What waits for a person, and every round in one line."""
    evidence = load_evidence(project, metrics=("helpfulness", "safety"))
    context = {
        "mission": load_mission(project),
        "multiples": small_multiples(evidence),
        "may_run": may_run(request),
    }
    part = "#mission" if wants_part(request, "mission") else ""
    return render(request, f"rlhf/mission_control/page.html{part}", context)


@english_only
@project_view(*CAN_RUN)
@require_POST
def build_base(request: HttpRequest, project: Project) -> HttpResponse:
    """Start building the demo's base policy; a model of one's own has its own page."""
    if Round.objects.filter(project=project, number=0, state=Round.State.DONE).exists():
        messages.info(request, "This project already has a base policy.")
        return redirect("rounds", project.slug)
    try:
        job = rounds.open_base_round(project, by=who_asks(request))
    except RoundError as error:
        messages.error(request, str(error))
    else:
        tasks.wake(job)
        messages.success(request, "The base policy is being built.")
    return redirect("rounds", project.slug)
