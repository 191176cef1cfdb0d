"""The page of assignment: an admin sets limits, skills and the order of batches."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from annotation.access import CAN_RUN, project_view
from annotation.lib.languages import english_only
from annotation.models import Project
from annotation.projects.assignment_settings import (
    AssignmentForm,
    ProjectAssignmentForm,
    batch_forms,
    member_forms,
    save_assignment,
)
from annotation.request import who_asks


@english_only
@project_view(*CAN_RUN)
def assignment_rules(request: HttpRequest, project: Project) -> HttpResponse:
    """Rules, people and batches, each with its own button; an invalid form saves nothing."""
    act = request.POST.get("act", "") if request.method == "POST" else ""
    rules = ProjectAssignmentForm(request.POST if act == "rules" else None, instance=project)
    everybody = member_forms(project, request.POST if act == "people" else None)
    queue = batch_forms(project, request.POST if act == "batches" else None)
    sent: list[AssignmentForm] = []
    if act == "rules":
        sent = [rules]
    elif act == "people":
        sent = [*everybody]
    elif act == "batches":
        sent = [*queue]
    # Every form is validated, so that each shows its own errors.
    faults = sum(not form.is_valid() for form in sent)
    if sent and not faults:
        changed = sum(save_assignment(form, who_asks(request)) for form in sent)
        messages.success(request, "Saved." if changed else "No changes.")
        return redirect("assignment_rules", project.slug)
    if act:
        # An invalid form changed the instance in memory: the frame shows the project as it is.
        request.project = Project.objects.get(pk=project.pk)  # type: ignore[attr-defined]
    return render(
        request,
        "annotation/projects/assignment.html",
        {"project": project, "form": rules, "people": everybody, "batches": queue},
        status=422 if act else 200,
    )
