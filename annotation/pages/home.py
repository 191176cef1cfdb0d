"""The first page after signing in: the next step in each project."""

from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from annotation.access import CAN_JUDGE, may_create_projects
from annotation.judge.assignment import waiting
from annotation.models import (
    Batch,
    Membership,
    User,
)
from annotation.pages.workload import capped, judged_today
from annotation.projects.batches import batch_progress, progress_for_annotators
from annotation.request import who_asks


@login_required
def home(request: HttpRequest) -> HttpResponse:
    memberships = list(
        Membership.objects.filter(user=who_asks(request))
        .select_related("project")
        .order_by("project")
    )
    only = memberships[0] if len(memberships) == 1 else None
    if only and only.role == Membership.Role.ANNOTATOR:
        return redirect("judge", only.project.slug)
    cards = [_card(who_asks(request), membership) for membership in memberships]
    return render(
        request,
        "annotation/home.html",
        {"cards": cards, "may_create": may_create_projects(who_asks(request))},
    )


def _card(user: User, membership: Membership) -> dict[str, Any]:
    """The next step of this person in one project."""
    project, role = membership.project, membership.role
    progress_of = progress_for_annotators if role == Membership.Role.ANNOTATOR else batch_progress
    open_batches = list(project.batches.filter(state=Batch.State.OPEN, qualification=None)[:3])
    return {
        "project": project,
        "role": role,
        "role_name": membership.get_role_display(),
        "waiting": capped(waiting(user, project)) if role in CAN_JUDGE else 0,
        "today": judged_today(user, project),
        "batches": [(batch, progress_of(batch)) for batch in open_batches],
        "n_prompts": project.prompts.count(),
        "n_unsigned": project.sources.waiting().count(),
        "may_judge": role in CAN_JUDGE,
    }
