"""Pages of data: prompts and their import, snapshots and their download."""

from itertools import zip_longest
from typing import Any

from django.contrib import messages
from django.db.models import Count, Q
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import (
    require_GET,
    require_http_methods,
    require_POST,
    require_safe,
)

from annotation.access import CAN_EXPORT, CAN_READ_DATA, CAN_RUN, project_view, role_of
from annotation.data import preferences
from annotation.data.downloads import archive_download, file_download
from annotation.data.filtering import why_not_exclude
from annotation.data.filters.table import FILTERS
from annotation.data.freezing import freeze, latest_freezing
from annotation.data.snapshot_files import SnapshotError, config_name, pair_file
from annotation.data.snippets import snippets_of
from annotation.data.sources import SourceError, sign_off_source
from annotation.data.version_rows import RowQuery, files_of, open_file, rows_of
from annotation.lib.languages import english_only
from annotation.lib.markdown import render_markdown
from annotation.models import Freezing, Project, Snapshot, Source
from annotation.pages.data_forms import FreezeForm
from annotation.pages.version_lineage import lineage_of
from annotation.protocols import called, is_mark
from annotation.quality.assessment import reliability_of

PREVIEW_ROWS = 6


# A cell of a table shows the beginning of a text; the whole text is in the download.
SHOWN_CHARACTERS = 2_000


def _clipped(message: dict[str, str]) -> dict[str, Any]:
    text = message["content"]
    return {
        "role": message["role"],
        "content": text[:SHOWN_CHARACTERS],
        "hidden": max(0, len(text) - SHOWN_CHARACTERS),
    }


@english_only
@project_view(*CAN_RUN)
@require_POST
def source_sign_off(request: HttpRequest, project: Project, pk: int) -> HttpResponse:
    source = get_object_or_404(Source, project=project, pk=pk)
    source.licence = source.licence or request.POST.get("licence", "").strip()[:120]
    if not source.licence:
        messages.error(request, f"Name the license of {source.name} before you sign it off.")
    elif not source.is_signed_off:
        try:
            sign_off_source(source, request.user)  # type: ignore[arg-type]  # a member, so not anonymous
        except SourceError as error:
            messages.error(request, str(error))
        else:
            messages.success(
                request,
                f"{source.name} is signed off for training."
                if source.signed_off_at
                else f"Signed. Another person signs {source.name} next.",
            )
    return redirect("sources", project.slug)


@english_only
@project_view(*CAN_READ_DATA)
@require_http_methods(["GET", "POST"])
def snapshots(request: HttpRequest, project: Project) -> HttpResponse:
    """The versions, and the form that freezes another one."""
    can_export = role_of(request) in CAN_EXPORT
    form = FreezeForm(project=project)
    if request.method == "POST":
        if not can_export:
            raise Http404("Only researchers and admins freeze data.")
        form = FreezeForm(request.POST, project=project)
        if form.is_valid():
            chosen, options = form.cleaned_data["batches"], form.options
            try:
                made = freeze(
                    project,
                    by=request.user,
                    batches=list(chosen) if chosen else None,
                    note=form.cleaned_data["note"],
                    options=options,
                    quality=reliability_of(project) if options.votes == "consensus" else None,
                )
            except SnapshotError as error:
                form.add_error(None, str(error))
            else:
                if isinstance(made, Freezing):
                    return redirect("snapshots", project.slug)
                messages.success(request, f"Version {made.version} is frozen.")
                return redirect("snapshot", project.slug, made.version)
    batches = list(
        project.batches.annotate(
            n_judgments=Count(
                "comparisons__assignments__judgment",
                filter=Q(comparisons__assignments__judgment__excluded_at__isnull=True),
            )
        ).filter(n_judgments__gt=0)
    )
    versions = list(project.snapshots.select_related("created_by").order_by("-version"))
    freezing = latest_freezing(project)
    if freezing is not None and versions and versions[0].created_at > freezing.created_at:
        freezing = None  # The result of an earlier freezing is out of date.
    chosen_pks = {str(pk) for pk in form["batches"].value() or ()}
    return render(
        request,
        "annotation/data/snapshots.html",
        {
            "form": form,
            "can_export": can_export,
            "freezing": freezing,
            "counts": counts_of_choice(project, request.GET),
            "filters": filters_of(project) if can_export else [],
            "batches": [
                (batch, not form.is_bound or str(batch.pk) in chosen_pks) for batch in batches
            ],
            "versions": [
                _version_row(version, before)
                for version, before in zip_longest(versions, versions[1:])
            ],
            "next_version": versions[0].version + 1 if versions else 1,
        },
        status=422 if form.errors else 200,
    )


def counts_of_choice(project: Project, chosen: QueryDict) -> dict[str, int]:
    """How many judgments a version of the batches and filters in a query string would hold."""
    if "counting" not in chosen:
        return preferences.judgment_counts(project)
    form = FreezeForm(chosen, project=project)
    form.is_valid()
    batches = list(form.cleaned_data.get("batches") or ())
    return preferences.judgment_counts(
        project,
        batches=batches if batches or "choosing" in chosen else None,
        filters=form.options.filters,
    )


def filters_of(project: Project) -> list[dict[str, Any]]:
    """The filters that exclude in the project, and those that have earned it (decision 32)."""
    return [
        {
            "key": setting.filter,
            "name": FILTERS[setting.filter].name,
            "threshold": setting.threshold,
            "excludes": setting.excludes,
        }
        for setting in project.filters.filter(version__gt=0)
        if setting.excludes or not why_not_exclude(setting)
    ]


def _version_row(snapshot: Snapshot, before: Snapshot | None) -> dict[str, Any]:
    judgments = snapshot.counts.get("judgments", 0)
    return {
        "more": judgments - before.counts.get("judgments", 0) if before else None,
        "snapshot": snapshot,
        "pairs": list(snapshot.counts.get("pairs", {}).items()),
        "agreement": _axes_first(snapshot),
        "bytes": sum(file["bytes"] for file in snapshot.files),
    }


def _agreement(snapshot: Snapshot) -> list[tuple[str, dict[str, Any], bool]]:
    """Name of each axis or mark, its agreement, and whether it is a mark."""
    return [
        (called(measure), figures, is_mark(measure))
        for measure, figures in snapshot.agreement.items()
    ]


def _axes_first(snapshot: Snapshot) -> list[tuple[str, dict[str, Any], bool]]:
    """`_agreement` for a line in a list: the axes, or the marks where nothing was compared."""
    agreement = _agreement(snapshot)
    return [row for row in agreement if not row[2]] or agreement


@english_only
@project_view(*CAN_READ_DATA)
@require_GET
def snapshot(request: HttpRequest, project: Project, version: int) -> HttpResponse:
    """One version: its card, files, agreement and first rows."""
    chosen = get_object_or_404(
        Snapshot.objects.prefetch_related("checkpoints__round__project"),
        project=project,
        version=version,
    )
    pairs = chosen.counts.get("pairs", {})
    axes = [axis for axis, n in pairs.items() if n]
    axis = request.GET.get("axis", "")
    axis = axis if axis in axes else (axes[0] if axes else "")
    template = "annotation/data/snapshot.html"
    newer = project.snapshots.filter(version__gt=chosen.version).order_by("-version").first()
    return render(
        request,
        f"{template}#preview" if request.htmx else template,  # type: ignore[attr-defined]
        {
            "snapshot": chosen,
            "can_export": role_of(request) in CAN_EXPORT,
            "axes": axes,
            "axis": axis,
            "rows": _first_pairs(chosen, axis),
            "has_tables": bool(files_of(chosen)),
            "pair_file": pair_file(axis) if axis else "",
            "n_pairs": pairs.get(axis, 0),
            "pairs": list(pairs.items()),
            "ties": chosen.counts.get("ties", {}),
            "agreement": _agreement(chosen),
            "files": chosen.files,
            "bytes": sum(file["bytes"] for file in chosen.files),
            "newer": newer,
            "versions": project.snapshots.order_by("-version")[:12],
            "lineage": lineage_of(chosen),
            "api_url": request.build_absolute_uri(
                f"/api/v1/projects/{project.slug}/snapshots/{chosen.version}/archive/"
            ),
            "folder": f"{project.slug}-v{chosen.version}",
            "configs": _configs(chosen, axes),
            "snippets": snippets_of(chosen, f"{project.slug}-v{chosen.version}"),
            "card": render_markdown(_card_text(chosen), below=2),
        },
    )


def _configs(version: Snapshot, axes: list[str]) -> list[tuple[str, str]]:
    """What `load_dataset` opens of this version: a variable's name and the configuration."""
    configs = [("pairs", config_name(pair_file(axes[0])))] if axes else []
    for variable, count in (
        ("rankings", "judgments"),
        ("ratings", "ratings"),
        ("demonstrations", "demonstrations"),
    ):
        if version.counts.get(count):
            configs.append((variable, count))
    return configs


def _card_text(version: Snapshot) -> str:
    """The card without its front matter, which is for machines."""
    parts = version.card.split("---\n", 2)
    return parts[2].strip() if len(parts) == 3 else version.card


def _first_pairs(version: Snapshot, axis: str) -> list[dict[str, Any]]:
    """The first rows of an axis' file; none where the version has no such file or it is damaged."""
    if not axis:
        return []
    try:
        parquet = open_file(version, pair_file(axis))
        rows = rows_of(parquet, RowQuery(pair_file(axis)), PREVIEW_ROWS).rows
    except SnapshotError:
        return []
    return [
        {
            "prompt": _clipped(row["prompt"][-1]),
            "n_turns": len(row["prompt"]),
            "chosen": _clipped(row["chosen"][0]),
            "rejected": _clipped(row["rejected"][0]),
        }
        for _, row in rows
    ]


@english_only
@project_view(*CAN_EXPORT)
@require_safe
def snapshot_download(
    request: HttpRequest, project: Project, version: int, name: str
) -> HttpResponseBase:
    """One file of a version, as it was frozen."""
    return file_download(
        request, get_object_or_404(Snapshot, project=project, version=version), name
    )


@english_only
@project_view(*CAN_EXPORT)
@require_safe
def snapshot_archive(request: HttpRequest, project: Project, version: int) -> HttpResponseBase:
    """Every file of a version in one zip."""
    return archive_download(request, get_object_or_404(Snapshot, project=project, version=version))
