"""Pages on which a frozen version leaves the product: its forms for other tools."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_safe

from annotation.access import CAN_EXPORT, project_view
from annotation.data.downloads import form_download
from annotation.data.export_forms import Choice, choices
from annotation.data.exporting import ask_for, latest, made_or_small
from annotation.data.snapshot_files import SnapshotError
from annotation.lib.languages import english_only
from annotation.models import Export, Project, Snapshot


@english_only
@project_view(*CAN_EXPORT)
@require_GET
def snapshot_forms(request: HttpRequest, project: Project, version: int) -> HttpResponse:
    """The forms that a version can be had in, and what is being made."""
    snapshot = get_object_or_404(Snapshot, project=project, version=version)
    made = latest(snapshot)
    rows = [_row(choice, made) for choice in choices(snapshot)]
    return render(
        request,
        "annotation/data/forms.html",
        {
            "snapshot": snapshot,
            "forms": [row for row in rows if not row["choice"].why_not],
            "missing": [row for row in rows if row["choice"].why_not],
            "api_url": request.build_absolute_uri(
                f"/api/v1/projects/{project.slug}/snapshots/{version}/forms/trl/"
            ),
            "is_writing": any(export.is_writing for export in made.values()),
        },
    )


def _row(choice: Choice, made: dict[tuple[str, str], Export]) -> dict[str, Any]:
    axes = choice.axes or [""]
    return {
        "choice": choice,
        "exports": [(axis, made.get((choice.key, axis))) for axis in axes],
    }


@english_only
@project_view(*CAN_EXPORT)
@require_safe
def snapshot_form(
    request: HttpRequest, project: Project, version: int, form: str
) -> HttpResponseBase:
    """Download a version in one form; a large one is made in the background first."""
    snapshot = get_object_or_404(Snapshot, project=project, version=version)
    axis = request.GET.get("axis", "")
    try:
        export = made_or_small(snapshot, form, axis, by=request.user)
        if export is not None:
            return form_download(request, export)
        ask_for(snapshot, form, axis, by=request.user)
    except SnapshotError as error:
        messages.error(request, str(error))
    else:
        messages.success(request, "It is being made; this page shows when it is ready.")
    return redirect("snapshot_forms", project.slug, version)
