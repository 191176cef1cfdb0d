"""Pages about how one person works: their preferences, and the guidelines with what changed."""

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import translation
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from annotation.access import project_view
from annotation.judge.assignment import release_unwanted
from annotation.lib.word_diff import word_diff
from annotation.models import Judgment, Project, User
from annotation.pages.project_forms import PreferencesForm
from annotation.projects.guidelines import mark_seen
from annotation.request import save_asked, who_asks, whole_number


@login_required
def preferences(request: HttpRequest) -> HttpResponse:
    """Language, single keys, harmful material, breaks: kept with the person, whatever the browser."""
    user = User.objects.get(pk=who_asks(request).pk)
    form = PreferencesForm(request.POST or None, instance=user)
    if request.method == "POST" and form.is_valid():
        save_asked(form)
        release_unwanted(user)
        with translation.override(user.language or translation.get_language()):
            messages.success(request, _("Saved."))
        return redirect("preferences")
    status = 422 if request.method == "POST" else 200
    return render(request, "annotation/account/preferences.html", {"form": form}, status=status)


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
