"""The project's models, each with a page and its files, and the button that rolls a promotion back."""

from uuid import UUID

from django.contrib import messages
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.http import content_disposition_header
from django.utils.text import slugify
from django.views.decorators.http import require_POST

from annotation.access import CAN_EXPORT, CAN_READ_DATA, CAN_RUN, project_view, role_of
from annotation.lib.languages import english_only
from annotation.models import Project
from annotation.request import who_asks
from rlhf import rounds
from rlhf.dashboard.lineage import (
    accuracies,
    ancestry,
    described,
    made_from,
    project_models,
    round_of,
)
from rlhf.dashboard.model_card import card_body, model_card
from rlhf.dashboard.results import load_results
from rlhf.dashboard.score_table import score_table
from rlhf.errors import RoundError
from rlhf.model_downloads import model_archive, model_files
from rlhf.models import Checkpoint
from rlhf.pages.lookup import may_run


@english_only
@project_view(*CAN_READ_DATA)
def models(request: HttpRequest, project: Project) -> HttpResponse:
    """Every model with its lineage; only those who run rounds see where its files are."""
    rows = project_models(project)
    context = {
        "models": rows,
        "may_run": may_run(request),
        "may_retire": may_run(request) and sum(model.is_promoted for model in rows) > 1,
    }
    return render(request, "rlhf/models.html", context)


@english_only
@project_view(*CAN_READ_DATA)
def model(request: HttpRequest, project: Project, uid: UUID) -> HttpResponse:
    """One model: its state, scores, lineage, card and files."""
    row = _find(project, uid)
    described_row = described(project, [row])[0]
    results = load_results(project)
    round = round_of(row)
    result = results.by_round[round.pk] if round else None
    can_download = role_of(request) in CAN_EXPORT
    context = {
        "model": described_row,
        "round": round,
        "results": results,
        "result": result if result and result.is_measured else None,
        "proposal": None,
        "scores": score_table(round) if round else {},
        "accuracies": [] if described_row.is_policy else accuracies(row),
        "ancestry": ancestry(row),
        "descendants": made_from(row),
        "files": model_files(row),
        "card_body": card_body(described_row),
        "can_download": can_download,
        "may_run": may_run(request),
        "may_retire": may_run(request)
        and described_row.is_promoted
        and Checkpoint.objects.promoted_policies(project).exclude(pk=row.pk).exists(),
    }
    return render(request, "rlhf/model.html", context)


@english_only
@project_view(*CAN_EXPORT)
def model_download(request: HttpRequest, project: Project, uid: UUID) -> HttpResponseBase:
    """The model's files with its card, as one zip."""
    row = _find(project, uid)
    if not model_files(row):
        raise Http404("This model has no files here.")
    card = model_card(described(project, [row])[0])
    response = StreamingHttpResponse(model_archive(row, card), content_type="application/zip")
    response["Content-Disposition"] = content_disposition_header(
        as_attachment=True, filename=f"{_file_name(row)}.zip"
    )
    return response


@english_only
@project_view(*CAN_EXPORT)
def model_file(request: HttpRequest, project: Project, uid: UUID, name: str) -> FileResponse:
    """One of the model's files; README.md is its card where the folder has none."""
    row = _find(project, uid)
    file = next((f for f in model_files(row) if f.name == name), None)
    if file is None:
        raise Http404("This model has no such file.")
    return FileResponse(
        file.path.open("rb"),
        as_attachment=True,
        filename=file.path.name,
        content_type="application/octet-stream",
    )


@english_only
@project_view(*CAN_EXPORT)
def model_card_file(request: HttpRequest, project: Project, uid: UUID) -> HttpResponse:
    """The model's card as README.md."""
    card = model_card(described(project, [_find(project, uid)])[0])
    response = HttpResponse(card, content_type="text/markdown; charset=utf-8")
    response["Content-Disposition"] = content_disposition_header(
        as_attachment=True, filename="README.md"
    )
    return response


def _find(project: Project, uid: UUID) -> Checkpoint:
    rows = Checkpoint.objects.select_related("round__verdict_by", "round__snapshot", "snapshot")
    row = get_object_or_404(rows, project=project, uid=uid)
    row.project = project
    if row.round is not None:
        row.round.project = project
    return row


def _file_name(row: Checkpoint) -> str:
    return slugify(f"{row.project.slug} {row.name}") or str(row.uid)


@english_only
@project_view(*CAN_RUN)
@require_POST
def retire_policy(request: HttpRequest, project: Project) -> HttpResponse:
    """Roll a promotion back: the next round starts from the policy promoted before it."""
    uid, note = request.POST.get("model", ""), request.POST.get("note", "")[:2000]
    checkpoints = project.checkpoints.all()
    policy = next((row for row in checkpoints if str(row.uid) == uid), None)
    if policy is None:
        messages.error(request, "There is no such model in this project.")
        return redirect("models", project.slug)
    policy.project = project
    try:
        rounds.retire_policy(policy, note, who_asks(request))
    except RoundError as error:
        messages.error(request, str(error))
    else:
        start = Checkpoint.objects.current_policy(project)
        messages.success(request, f"{policy} is rolled back; the next round starts from {start}.")
    return redirect(policy)
