"""Pages about frozen versions: what differs between two, whether one is intact, what was withdrawn."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotation.access import CAN_EXPORT, CAN_READ_DATA, CAN_RUN, project_view
from annotation.data.deprecation import deprecate, undo_deprecation
from annotation.data.snapshot_diff import MAX_ROWS_ON_A_PAGE, TableDiff, diff
from annotation.data.snapshot_files import SnapshotError
from annotation.data.verification import verify
from annotation.lib.languages import english_only
from annotation.models import Freezing, Project, Snapshot
from annotation.quality.withdrawal import models_trained_on, people_who_judged, withdraw
from annotation.request import whole_number

SHOWN_CHARACTERS = 600


@english_only
@project_view(*CAN_READ_DATA)
@require_GET
def snapshot_compare(request: HttpRequest, project: Project, version: int) -> HttpResponse:
    """What differs between this version and another, the one before it unless `with` names one."""
    later = get_object_or_404(Snapshot, project=project, version=version)
    others = list(project.snapshots.exclude(pk=later.pk).order_by("-version"))
    wanted = whole_number(request.GET.get("with")) or version - 1
    other = next((s for s in others if s.version == wanted), None) or next(
        (s for s in others if s.version < version), others[0] if others else None
    )
    if other is None:
        messages.info(request, "There is no other version to compare with.")
        return redirect("snapshot", project.slug, version)
    a, b = sorted((other, later), key=lambda snapshot: snapshot.version)
    try:
        difference = diff(a, b, max_rows=MAX_ROWS_ON_A_PAGE)
    except OSError:
        messages.error(request, "Files of one of the two are missing: verify both versions.")
        return redirect("snapshot", project.slug, version)
    return render(
        request,
        "annotation/data/compare.html",
        {
            "a": a,
            "b": b,
            "others": others,
            "version": version,
            "other": other.version,
            "difference": difference,
            "tables": [(table, _examples(table)) for table in difference.tables],
        },
    )


def _examples(table: TableDiff) -> list[dict[str, Any]]:
    """Rows that were added, removed or changed, as texts."""
    shown: list[dict[str, Any]] = []
    for what in ("added", "removed"):
        for row in table.examples.get(what, ()):
            shown.append({"label": what, "title": _title(row), "parts": []})
    for change in table.examples.get("changed", ()):
        parts = [
            (name, _text(change["a"][name]), _text(change["b"][name])) for name in change["columns"]
        ]
        shown.append({"label": "changed", "title": _title(change["b"]), "parts": parts})
    return shown


def _title(row: dict[str, Any]) -> str:
    messages = row.get("messages") or row.get("prompt") or [{"content": ""}]
    return str(messages[-1]["content"])[:SHOWN_CHARACTERS]


def _text(value: Any) -> str:
    return str(value)[:SHOWN_CHARACTERS]


@english_only
@project_view(*CAN_READ_DATA)
@require_POST
def snapshot_verify(request: HttpRequest, project: Project, version: int) -> HttpResponse:
    """Compute every hash of a version again, and say which files are damaged."""
    snapshot = get_object_or_404(Snapshot, project=project, version=version)
    faults = verify(snapshot)
    if faults:
        messages.error(
            request,
            f"Version {version} is not what was frozen: {' '.join(map(str, faults[:5]))} "
            "Restore its folder from a backup.",
        )
    else:
        n = len(snapshot.files)
        messages.success(request, f"All {n} files of version {version} are as they were frozen.")
    return redirect("snapshot", project.slug, version)


@english_only
@project_view(*CAN_EXPORT)
@require_POST
def snapshot_deprecate(request: HttpRequest, project: Project, version: int) -> HttpResponse:
    """Note that a version should not be used, or take the note back."""
    snapshot = get_object_or_404(Snapshot, project=project, version=version)
    if "undo" in request.POST:
        undo_deprecation(snapshot, request.user)
        messages.success(request, f"Version {version} may be used again.")
        return redirect("snapshot", project.slug, version)
    try:
        deprecate(snapshot, request.user, request.POST.get("note", ""))
    except SnapshotError as error:
        messages.error(request, str(error))
    else:
        messages.success(request, f"Version {version} is deprecated: page, API and card say so.")
    return redirect("snapshot", project.slug, version)


@english_only
@project_view(*CAN_RUN)
@require_http_methods(["GET", "POST"])
def withdrawals(request: HttpRequest, project: Project) -> HttpResponse:
    """Who withdrew, what was made of their judgments, and the form for another withdrawal."""
    if request.method == "POST":
        person = get_object_or_404(
            people_who_judged(project), pk=whole_number(request.POST.get("person"))
        )
        if request.POST.get("confirm") != person.username:
            messages.error(request, f"Nothing was withdrawn: type “{person}” to confirm.")
            return redirect("withdrawals", project.slug)
        done = withdraw(project, person, request.user, request.POST.get("note", ""))
        n = done.withdrawal.n_judgments
        messages.success(request, f"{n:,} judgments of {person} are withdrawn.")
        if isinstance(done.made, Freezing):
            messages.info(request, "A version without them is being written.")
        elif done.made is None:
            messages.info(request, f"No version without them was frozen: {done.why_none}")
        else:
            messages.success(request, f"Version {done.made.version} is frozen without them.")
        return redirect("withdrawals", project.slug)
    return render(
        request,
        "annotation/data/withdrawals.html",
        {
            "people": people_who_judged(project).order_by("username"),
            "withdrawals": [
                (row, models_trained_on(row))
                for row in project.withdrawals.select_related("person", "created_by", "new_version")
            ],
        },
    )
