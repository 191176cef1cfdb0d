"""Pre-flight: the checks, the configuration and the launch."""

from collections.abc import Mapping
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from annotation.access import CAN_RUN, project_view
from annotation.lib.languages import english_only
from annotation.models import Project
from annotation.request import who_asks
from rlhf import rounds
from rlhf.calibration import measure, measuring
from rlhf.errors import RoundError
from rlhf.models import Checkpoint, Round
from rlhf.pages.launch_form import LaunchForm
from rlhf.pages.lookup import integer_or
from rlhf.preflight import preflight
from rlhf.round_config import FrozenConfig, default_config, proposed_preset
from rlhf.workers import tasks

VERDICTS = ("no-go", "warning", "go")
"""In the order in which the page lists the checks."""


@english_only
@project_view(*CAN_RUN)
@require_http_methods(["GET", "POST"])
def launch(request: HttpRequest, project: Project) -> HttpResponse:
    """The checks of the default configuration; a POST launches the round."""
    try:
        form = _form(request, project)
    except RoundError as error:
        messages.error(request, str(error))
        return redirect("rounds", project.slug)
    config = form.frozen if form.is_valid() else form.defaults
    if request.method == "GET":
        return _preflight_page(request, project, form, config)
    number = _next_number(project)
    wanted = integer_or(request.POST.get("number"), number)
    if 0 <= wanted < number:  # the second of two clicks
        messages.info(request, f"Round {wanted} is already launched.")
        return redirect("round", project.slug, wanted)
    if "act" in request.POST:
        # A page from before the settings were in groups: its "Check again" has this address too, and
        # its settings have other names, so that a launch would use the defaults in their place.
        messages.warning(request, "This page was outdated: check the settings, then launch again.")
        return _preflight_page(request, project, form, config)
    if form.is_valid():
        try:
            job = rounds.open_round(
                project,
                by=who_asks(request),
                config=config,
                acknowledged=request.POST.getlist("acknowledged"),
            )
        except RoundError as error:
            form.add_error(None, str(error))
        else:
            tasks.wake(job)
            messages.success(request, f"Round {number} is launched. Its configuration is frozen.")
            return redirect("round", project.slug, number)
    return _preflight_page(request, project, form, config)


@english_only
@project_view(*CAN_RUN)
@require_POST
def check_launch(request: HttpRequest, project: Project) -> HttpResponse:
    """The checks of the configuration in the form; launches nothing."""
    try:
        form = _form(request, project)
    except RoundError as error:
        messages.error(request, str(error))
        return redirect("rounds", project.slug)
    config = form.frozen if form.is_valid() else form.defaults
    return _preflight_page(request, project, form, config)


@english_only
@project_view(*CAN_RUN)
@require_http_methods(["GET", "POST"])
def measure_model(request: HttpRequest, project: Project) -> HttpResponse:
    """How far the measurement of the policy is; a POST begins it, as the page does when it opens.

    That the page was opened is nobody's act: the log then says that the system began it.
    """
    if request.method == "POST":
        by = None if request.POST.get("begun") == "by the page" else who_asks(request)
        begun = measure(project, by)
        tasks.wake(begun)
    if request.headers.get("HX-Request") != "true":
        return redirect("launch", project.slug)
    state = measuring(project)
    is_new = request.method == "GET" and not state.is_running
    return render(request, "rlhf/launch/_measuring.html", {"measuring": state, "is_new": is_new})


def _form(request: HttpRequest, project: Project) -> LaunchForm:
    """The form with the project's defaults; RoundError where no round can be configured."""
    before = _previous_round(project)
    return LaunchForm(
        request.POST if request.method == "POST" else None,
        project=project,
        defaults=default_config(project),
        before=before.config if before else None,
    )


def _preflight_page(
    request: HttpRequest,
    project: Project,
    form: LaunchForm,
    config: Mapping[str, Any] | FrozenConfig,
) -> HttpResponse:
    checks = preflight(project, config)
    context = {
        "form": form,
        "checks": sorted(checks, key=lambda check: VERDICTS.index(check.verdict)),
        "counts": {
            verdict.replace("-", "_"): sum(check.verdict == verdict for check in checks)
            for verdict in VERDICTS
        },
        "number": _next_number(project),
        "before": _previous_round(project),
        "open_round": Round.objects.live(project),
        "policy": Checkpoint.objects.current_policy(project),
        "acknowledged": request.POST.getlist("acknowledged"),
        "measuring": measuring(project),
        "proposal": proposed_preset(project),
        "estimate": next((check.short for check in checks if check.short), ""),
    }
    return render(request, "rlhf/launch/page.html", context, status=422 if form.errors else 200)


def _previous_round(project: Project) -> Round | None:
    return Round.objects.filter(project=project, plan=Round.FULL_PLAN).order_by("-number").first()


def _next_number(project: Project) -> int:
    last = Round.objects.filter(project=project).order_by("-number").first()
    return 1 if last is None else last.number + 1
