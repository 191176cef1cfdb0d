"""A project's own pages: its overview, settings and members, its guidelines, and new projects."""

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.db.models import Count, Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_POST

from annotation.access import CAN_JUDGE, CAN_RUN, may_create_projects, project_view, role_of
from annotation.judge.assignment import waiting
from annotation.judge.selection import selection
from annotation.lib.languages import english_only
from annotation.lib.word_diff import word_diff
from annotation.models import (
    Batch,
    Event,
    Judgment,
    Membership,
    Project,
    User,
)
from annotation.pages.project_forms import NewProjectForm, ProjectForm
from annotation.pages.workload import capped, has_open_dialogues, judged_by, judged_today
from annotation.projects.batches import batch_progress, progress_for_annotators
from annotation.projects.guidelines import change_guidelines, mark_seen
from annotation.protocols import COMPARING, DIALOGUE
from annotation.quality.throughput import forecast
from annotation.request import who_asks, whole_number

BATCHES_SHOWN = 20


@project_view()
def project(request: HttpRequest, project: Project) -> HttpResponse:
    # Progress is counted for each batch that is shown, so older ones only on request.
    own_batches = project.batches.filter(is_imported=False, qualification=None)
    shows_all = request.GET.get("batches") == "all"
    n_batches = own_batches.count()
    batches = list(own_batches if shows_all else own_batches[:BATCHES_SHOWN])
    # Annotators must not learn how an engine scores a comparison, or that it does.
    role = role_of(request)
    user = who_asks(request)
    return render(
        request,
        "annotation/projects/overview.html",
        {
            "project": project,
            "batches": [_batch_row(batch, role) for batch in batches],
            "n_batches": n_batches,
            "shows_all": shows_all or n_batches <= BATCHES_SHOWN,
            "is_moving": any(batch.state == Batch.State.OPEN for batch in batches),
            "people": _people(project),
            "waiting": capped(waiting(user, project)),
            "mine": judged_by(user, project).count(),
            "mine_today": judged_today(user, project),
            "n_prompts": project.prompts.count(),
            "random_percent": round(100 * project.random_share),
            "may_judge": role_of(request) in CAN_JUDGE,
            "campaigns": has_open_dialogues(project),
        },
    )


def _batch_row(batch: Batch, role: str) -> tuple[Batch, Any, Any, Any]:
    """A batch with its progress and, while it is open, its outlook and how it is selected."""
    if role == Membership.Role.ANNOTATOR:  # An outlook would move with work and not with gold.
        return batch, progress_for_annotators(batch), None, None
    progress, is_open = batch_progress(batch), batch.state == Batch.State.OPEN
    sees_selection = role in (Membership.Role.ADMIN, Membership.Role.RESEARCHER)
    return (
        batch,
        progress,
        forecast(batch, progress) if is_open and batch.effective_interface != DIALOGUE else None,
        selection(batch)
        if is_open and sees_selection and batch.effective_interface in COMPARING
        else None,
    )


def _people(project: Project) -> dict[str, int]:
    counts: dict[str, int] = project.memberships.aggregate(
        **{role: Count("pk", filter=Q(role=role)) for role in Membership.Role.values},
        simulated=Count("pk", filter=Q(user__is_simulated=True)),
    )
    return counts


@english_only
@login_required
def project_new(request: HttpRequest) -> HttpResponse:
    if not may_create_projects(who_asks(request)):
        raise Http404("Only staff and project admins create projects.")
    form = NewProjectForm(request.POST or None, by=who_asks(request))
    if request.method == "POST" and form.is_valid():
        with transaction.atomic():
            project = form.save()
            Membership.objects.create(
                user=who_asks(request), project=project, role=Membership.Role.ADMIN
            )
            Event.record(project, request.user, "created project", project.name)
        messages.success(request, f"{project.name} created. Add people, then import prompts.")
        return redirect("people", project.slug)
    return render(request, "annotation/projects/new.html", {"form": form})


@english_only
@project_view(*CAN_RUN)
def project_settings(request: HttpRequest, project: Project) -> HttpResponse:
    """The project's form."""
    form = ProjectForm(request.POST or None, instance=project)
    if request.method == "POST" and _save_settings(request, form):
        return redirect("project_settings", project.slug)
    # An invalid form changed the instance in memory: the frame shows the project as it is.
    request.project = Project.objects.get(pk=project.pk)  # type: ignore[attr-defined]
    return render(
        request,
        "annotation/projects/settings.html",
        {"project": project, "form": form, "n_people": project.memberships.count()},
        status=422 if form.errors else 200,
    )


def _save_settings(request: HttpRequest, form: ProjectForm) -> bool:
    if not form.is_valid():
        return False
    n_again = _save_project(form, who_asks(request))
    note = f" {n_again} comparisons are judged again." if n_again else ""
    messages.success(request, f"Saved.{note}")
    return True


@transaction.atomic
def _save_project(form: ProjectForm, by: User) -> int:
    """Save what changed; how many comparisons are judged once more because the guidelines did."""
    project, changed = form.save(commit=False), list(form.changed_data)
    n_again = 0
    if "guidelines" in changed:
        share = (form.cleaned_data.get("judge_again") or 0) / 100
        n_again = change_guidelines(project, project.guidelines, by=by, share=share)
    # The guidelines are written above, under a lock and with their version. Columns that this form
    # does not ask for may have been changed meanwhile.
    columns = {*ProjectForm.Meta.fields, "interface", "protocol", "axes"} - {"guidelines"}
    project.save(update_fields=columns)
    if changed:
        Event.record(project, by, "changed project", project.name, fields=changed)
    return n_again


@project_view()
def guidelines(request: HttpRequest, project: Project) -> HttpResponse:
    """The guidelines in force, and every version with what it changed."""
    judgments = dict(
        Judgment.objects.current()
        .of_project(project)
        .values_list("guideline_version")
        .annotate(n=Count("pk"))
    )
    versions = list(project.guideline_versions.order_by("version"))
    rows = [
        {
            "version": version,
            "before": before,
            "html": word_diff(before.text, version.text) if before else "",
            "n": judgments.get(version.version, 0),
        }
        for before, version in zip([None, *versions], versions, strict=False)
    ]
    return render(
        request,
        "annotation/projects/guidelines.html",
        {
            "project": project,
            "rows": rows[::-1],
            "n": judgments.get(project.guideline_version, 0),
        },
    )


@project_view()
@require_POST
def guidelines_seen(request: HttpRequest, project: Project) -> HttpResponse:
    """This person has read what changed in the guidelines."""
    membership = project.memberships.get(user=who_asks(request))
    mark_seen(membership, whole_number(request.POST.get("version")))
    back = request.POST.get("back", "")
    if url_has_allowed_host_and_scheme(back, allowed_hosts={request.get_host()}):
        return redirect(back)
    return redirect("judge", project.slug)
