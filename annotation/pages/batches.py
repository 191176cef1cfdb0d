"""Pages on which an admin puts a batch together by hand, closes it and opens it again."""

from collections.abc import Callable

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from annotation.access import CAN_RUN, project_view
from annotation.lib.languages import english_only
from annotation.models import Batch, Project, User
from annotation.pages.batch_forms import CampaignForm
from annotation.projects.batches import BatchError
from annotation.projects.campaigns import close_campaign, reopen_campaign, start_campaign
from annotation.request import who_asks


@english_only
@project_view(*CAN_RUN)
@require_http_methods(["GET", "POST"])
def batch_new(request: HttpRequest, project: Project) -> HttpResponse:
    form = CampaignForm(request.POST or None, project=project)
    if request.method == "POST" and form.is_valid():
        fields = form.cleaned_data
        try:
            batch = start_campaign(
                project,
                fields["name"],
                preset=fields["asks"],
                responses_of=fields["responses_of"],
                n=fields["n"],
                overlap=fields["overlap"],
                by=who_asks(request),
            )
        except BatchError as problem:
            form.add_error(None, str(problem))
        else:
            n = batch.comparisons.count()
            messages.success(request, f"{batch.name} is open with {n:,} comparisons.")
            return redirect("project", project.slug)
    status = 422 if form.errors else 200
    return render(
        request,
        "annotation/projects/batch_new.html",
        {"project": project, "form": form},
        status=status,
    )


@english_only
@project_view(*CAN_RUN)
@require_POST
def batch_close(request: HttpRequest, project: Project, pk: int) -> HttpResponse:
    outcome = "is closed; late judgments are kept as extras."
    return _act(request, project, pk, close_campaign, outcome)


@english_only
@project_view(*CAN_RUN)
@require_POST
def batch_open(request: HttpRequest, project: Project, pk: int) -> HttpResponse:
    return _act(request, project, pk, reopen_campaign, "is open again.")


def _act(
    request: HttpRequest,
    project: Project,
    pk: int,
    act: Callable[[Batch, User], object],
    outcome: str,
) -> HttpResponse:
    batch = get_object_or_404(Batch, project=project, pk=pk)
    try:
        act(batch, who_asks(request))
    except BatchError as problem:
        messages.error(request, str(problem))
    else:
        messages.success(request, f"{batch.name} {outcome}")
    return redirect("project", project.slug)
