"""Pages of the mixture of a project's data, and of what it is enough for."""

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from annotation.access import CAN_READ_DATA, CAN_RUN, project_view, role_of
from annotation.data.mixture import balance, mixture
from annotation.lib.languages import english_only
from annotation.models import Project
from annotation.projects.batches import BatchError
from annotation.projects.campaigns import start_campaign
from annotation.quality.advice import advice
from annotation.quality.assessment import agreement_of

DEFAULT_PARAMETERS = 1_000_000


class AdviceForm(forms.Form):
    """The model that the data is for."""

    parameters = forms.IntegerField(
        min_value=1_000,
        max_value=10**13,
        initial=DEFAULT_PARAMETERS,
        label="Parameters of the model",
    )


@english_only
@project_view(*CAN_READ_DATA)
@require_GET
def data_mixture(request: HttpRequest, project: Project) -> HttpResponse:
    """Shares as pictures, and specialized against general domains."""
    breakdowns = mixture(project)
    domains = breakdowns[0]
    chosen = [
        part.name for part in domains.parts if part.name in request.GET.getlist("specialized")
    ]
    try:
        target = min(100, max(0, int(request.GET.get("target") or 50)))
    except ValueError:
        target = 50
    return render(
        request,
        "annotation/data/mixture.html",
        {
            "breakdowns": breakdowns,
            "domains": [(part, part.name in chosen) for part in domains.parts],
            "target": target,
            "balance": balance(domains, chosen, target / 100) if chosen else None,
        },
    )


@english_only
@project_view(*CAN_READ_DATA)
@require_GET
def advisor(request: HttpRequest, project: Project) -> HttpResponse:
    """What the data is enough for, and what to collect next."""
    form = AdviceForm(request.GET if "parameters" in request.GET else None)
    n_parameters = DEFAULT_PARAMETERS
    if form.is_bound and form.is_valid():
        n_parameters = form.cleaned_data["parameters"]
    result = advice(project, n_parameters=n_parameters, agreement=_agreement(project))
    return render(
        request,
        "annotation/data/advisor.html",
        {
            "form": form,
            "advice": result,
            "n_parameters": n_parameters,
            "can_run": role_of(request) in CAN_RUN,
        },
        status=422 if form.errors else 200,
    )


def _agreement(project: Project) -> dict[str, dict[str, float | None]]:
    in_all, _ = agreement_of(project)
    return {axis: dict(in_all.get(axis) or {"pairwise": None}) for axis in project.axis_keys}


@english_only
@project_view(*CAN_RUN)
@require_POST
def advisor_batch(request: HttpRequest, project: Project) -> HttpResponse:
    """Create the batch of one recommendation, as it is recommended now."""
    result = advice(project, n_parameters=DEFAULT_PARAMETERS, agreement=_agreement(project))
    key = request.POST.get("key", "")
    chosen = next((r for r in result.recommendations if r.key == key and r.responses_of), None)
    if chosen is None:
        messages.error(request, "This is not recommended any more; see the list as it is now.")
        return redirect("advisor", project.slug)
    try:
        batch = start_campaign(
            project,
            chosen.title[:100],
            responses_of=chosen.responses_of,
            n=chosen.n,
            overlap=chosen.overlap,
            by=request.user,  # type: ignore[arg-type]  # a member, so not anonymous
        )
    except BatchError as error:
        messages.error(request, str(error))
    else:
        messages.success(request, f"The batch “{batch.name}” is open.")
    return redirect("advisor", project.slug)
