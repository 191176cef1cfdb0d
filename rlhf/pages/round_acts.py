"""The buttons of a round's page: each view calls one act; a second click changes nothing."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST
from kombu.exceptions import OperationalError

from annotation.access import CAN_RUN, project_view
from annotation.lib.languages import english_only
from annotation.models import Project
from annotation.request import who_asks
from rlhf import rounds
from rlhf.errors import RoundError
from rlhf.models import Round
from rlhf.pages.lookup import find_round
from rlhf.pages.retrain_form import RetrainForm
from rlhf.workers import tasks


@english_only
@project_view(*CAN_RUN)
@require_POST
def close_annotation(request: HttpRequest, project: Project, number: int) -> HttpResponse:
    """Close the round's batch; its judgments are frozen and trained on."""
    round = find_round(project, number)
    try:
        job = rounds.close_annotation(round, who_asks(request))
    except RoundError as error:
        messages.error(request, str(error))
    else:
        tasks.wake(job)
        if job is not None:
            messages.success(request, "The batch is closed.")
        else:
            messages.info(request, "The batch is already closed.")
    return redirect("round", project.slug, number)


@english_only
@project_view(*CAN_RUN)
@require_POST
def simulate(request: HttpRequest, project: Project, number: int) -> HttpResponse:
    """Let the demo's simulated annotators judge the rest; their judgments are labeled so."""
    round = find_round(project, number)
    if not project.is_demo:
        messages.error(request, "Simulated annotators are available in the demo project only.")
    elif round.state != Round.State.ANNOTATE:
        messages.info(request, f"{round} is not waiting for judgments.")
    else:
        try:
            tasks.simulate_batch.apply_async((round.pk,), queue="default", retry=False)
        except (OperationalError, OSError):
            messages.error(request, "No worker can be reached. Start one, then try again.")
        else:
            messages.success(request, "Simulated annotators are judging.")
    return redirect(f"{round.get_absolute_url()}?stage=annotate")


@english_only
@project_view(*CAN_RUN)
@require_POST
def give_verdict(request: HttpRequest, project: Project, number: int) -> HttpResponse:
    """Promote or reject the round's policy."""
    round = find_round(project, number)
    verdict, note = request.POST.get("verdict", ""), request.POST.get("note", "")[:2000]
    if round.verdict:
        messages.info(request, f"The policy of {round} is already {round.verdict_name}.")
        return redirect("round", project.slug, number)
    try:
        rounds.give_verdict(round, verdict, note, who_asks(request))
    except RoundError as error:
        messages.error(request, str(error))
        request.session[f"note-{round.pk}"] = note  # the typed text is kept
        return redirect(f"{round.get_absolute_url()}?stage=verdict")
    request.session.pop(f"note-{round.pk}", None)
    round.verdict = verdict
    messages.success(request, f"The policy of {round} is {round.verdict_name}.")
    return redirect("rounds", project.slug)


@english_only
@project_view(*CAN_RUN)
@require_POST
def continue_in_doubt(request: HttpRequest, project: Project, number: int) -> HttpResponse:
    """Go on to PPO with reward models that are in doubt."""
    round = find_round(project, number)
    note = request.POST.get("note", "")[:2000]
    try:
        job = rounds.continue_in_doubt(round, note, who_asks(request))
    except RoundError as error:
        messages.error(request, str(error))
        return redirect("round", project.slug, number)
    tasks.wake(job)
    if job is None:
        messages.info(request, f"{round} does not wait for a decision.")
    else:
        messages.success(request, f"{round} goes on to PPO.")
    return redirect("round", project.slug, number)


@english_only
@project_view(*CAN_RUN)
@require_POST
def retrain(request: HttpRequest, project: Project, number: int) -> HttpResponse:
    """Train the reward models of a round that waits again, with other settings."""
    round = find_round(project, number)
    form = RetrainForm(request.POST, round=round)
    if not form.is_valid():
        for field, errors in form.errors.items():
            messages.error(request, f"{field}: {errors[0]}")
        return redirect("round", project.slug, number)
    note = form.cleaned_data.pop("note")
    try:
        job = rounds.retrain(round, form.cleaned_data, note, who_asks(request))
    except RoundError as error:
        messages.error(request, str(error))
        return redirect("round", project.slug, number)
    tasks.wake(job)
    if job is None:
        messages.info(request, f"{round} does not wait for a decision.")
    else:
        messages.success(request, "The reward models are trained again.")
    return redirect("round", project.slug, number)


@english_only
@project_view(*CAN_RUN)
@require_POST
def cancel_round(request: HttpRequest, project: Project, number: int) -> HttpResponse:
    """End a running round."""
    round = find_round(project, number)
    if rounds.cancel_round(round, who_asks(request)):
        messages.success(
            request, f"{round} is cancelled. The running stage saves its checkpoint first."
        )
    else:
        messages.info(request, f"{round} has already ended.")
    return redirect("round", project.slug, number)


@english_only
@project_view(*CAN_RUN)
@require_POST
def retry_stage(request: HttpRequest, project: Project, number: int) -> HttpResponse:
    """Continue a round from the stage where it stopped."""
    round = find_round(project, number)
    if not round.has_ended:
        messages.info(request, f"{round} is already running.")
        return redirect("round", project.slug, number)
    try:
        job = rounds.retry_stage(round, who_asks(request))
    except RoundError as error:
        messages.error(request, str(error))
    else:
        tasks.wake(job)
        messages.success(request, f"{round} continues from the stage where it stopped.")
    return redirect("round", project.slug, number)
