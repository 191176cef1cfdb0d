"""Pages of one batch: its progress by person; and of an admin who makes, closes and reopens one."""

from collections.abc import Callable

from django.contrib import messages
from django.db.models import F
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotation.access import CAN_READ_DATA, CAN_RUN, project_view, role_of
from annotation.lib.languages import english_only
from annotation.models import Assignment, Batch, Interface, Project, ReviewCase, User
from annotation.pages.batch_forms import CampaignForm
from annotation.pages.identities import Identities
from annotation.projects.batches import (
    BatchError,
    batch_progress,
    progress_by_person,
    take_back,
)
from annotation.projects.campaigns import close_campaign, reopen_campaign, start_campaign
from annotation.protocols import PRESETS
from annotation.quality.throughput import forecast
from annotation.request import who_asks

ROWS_SHOWN = 20


@english_only
@project_view(*CAN_READ_DATA)
@require_GET
def batch(request: HttpRequest, project: Project, pk: int) -> HttpResponse:
    """One batch: what is asked, how far each person is, who holds what, and what is left."""
    chosen = get_object_or_404(
        Batch.objects.select_related("project", "source", "only_for"), project=project, pk=pk
    )
    names = Identities(project, role_of(request))
    progress = batch_progress(chosen)
    by_person = progress_by_person(chosen)
    users = User.objects.in_bulk([row["annotator"] for row in by_person])
    is_imported = chosen.is_imported
    open_leases = (
        Assignment.objects.filter(
            comparison__batch=chosen,
            comparison__gold__isnull=True,
            state=Assignment.State.LEASED,
            lease_until__gte=timezone.now(),
        )
        .select_related("annotator", "comparison__prompt")
        .order_by("leased_at")
    )
    work = chosen.comparisons.filter(gold__isnull=True)
    unfinished = work.filter(judged__lt=F("needed")).select_related("prompt")
    return render(
        request,
        "annotation/data/batch.html",
        {
            "batch": chosen,
            "protocol": chosen.effective_protocol,
            "interface": Interface(chosen.effective_interface).label,
            "preset": PRESETS.get(chosen.effective_protocol.preset),
            "progress": progress,
            "outlook": forecast(chosen, progress) if chosen.state == Batch.State.OPEN else None,
            "people": [
                (names.person(users[row["annotator"]], is_imported=is_imported), row)
                for row in by_person
            ],
            "may_run": role_of(request) in CAN_RUN,
            "held": [(names.person(lease.annotator), lease) for lease in open_leases[:ROWS_SHOWN]],
            "n_unfinished": unfinished.count(),
            "unfinished": unfinished.order_by("pk")[:ROWS_SHOWN],
            "n_gold": chosen.comparisons.filter(gold__isnull=False).count(),
            "n_review": ReviewCase.objects.filter(
                comparison__batch=chosen, state=ReviewCase.State.OPEN
            ).count(),
            "only_for": names.person(chosen.only_for) if chosen.only_for else None,
            "is_moving": chosen.state == Batch.State.OPEN,
        },
    )


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
            return redirect("batch", project.slug, batch.pk)
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


@english_only
@project_view(*CAN_RUN)
@require_POST
def batch_take_back(request: HttpRequest, project: Project, pk: int) -> HttpResponse:
    """Free what one person holds in the batch."""
    chosen = get_object_or_404(Batch.objects.select_related("project"), project=project, pk=pk)
    who = get_object_or_404(
        User, username=request.POST.get("person", ""), assignments__comparison__batch=chosen
    )
    if n := take_back(chosen, who, who_asks(request)):
        plural = "s are" if n > 1 else " is"
        messages.success(request, f"{n} comparison{plural} taken back from {who} and free again.")
    else:
        messages.info(request, f"{who} holds nothing in this batch any more.")
    back = request.POST.get("next", "")
    if url_has_allowed_host_and_scheme(back, allowed_hosts={request.get_host()}):
        return redirect(back)
    return redirect("batch", project.slug, pk)


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
