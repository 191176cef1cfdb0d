"""Pages of sources: what each one is, what its license allows, who signed it, and what it costs."""

from typing import Any

from django import forms
from django.contrib import messages
from django.db.models import Count
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.http import content_disposition_header
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotation.access import CAN_READ_DATA, CAN_RUN, project_view, role_of
from annotation.data.admission import why_kept_out
from annotation.data.licences import LICENCES, licence_of
from annotation.data.sources import (
    SourceError,
    change_source,
    judgments_resting_on,
    sign,
    withdraw_sign_off,
)
from annotation.lib.languages import english_only
from annotation.models import Event, Project, Source, SourceSignature


class SourceForm(forms.ModelForm):  # type: ignore[type-arg]
    """The facts about a source."""

    class Meta:
        model = Source
        fields = ("licence", "url", "contact", "consent", "note")
        labels = {
            "licence": "License",
            "url": "Link",
            "consent": "Consent basis",
            "note": "How it was collected",
        }
        help_texts = {
            "licence": "SPDX identifier, for example CC-BY-4.0.",
            "contact": "Person or address to ask.",
        }
        widgets = {
            "licence": forms.TextInput(attrs={"list": "licences"}),
            "note": forms.Textarea(attrs={"rows": 4, "maxlength": 4000}),
        }


class RulesForm(forms.ModelForm):  # type: ignore[type-arg]
    """What the project demands of its sources."""

    class Meta:
        model = Project
        fields = ("is_commercial", "needs_two_signatures")
        labels = {
            "is_commercial": "Models are for commercial use",
            "needs_two_signatures": "Two people sign each source",
        }


@english_only
@project_view(*CAN_READ_DATA)
@require_http_methods(["GET", "POST"])
def sources(request: HttpRequest, project: Project) -> HttpResponse:
    """All sources, with what is kept out and what that costs."""
    can_set = role_of(request) in CAN_RUN
    form = RulesForm(request.POST or None, instance=project)
    if request.method == "POST":
        if not can_set:
            raise Http404("Only admins set the rules of a project.")
        if form.is_valid():
            form.save()
            Event.record(project, request.user, "set rules of sources", project.name)
            messages.success(request, "The rules are set.")
        return redirect("sources", project.slug)
    rows = [
        _row(project, source)
        for source in project.sources.exclude(name=Source.GOLD).annotate(
            n_prompts=Count("prompts", distinct=True)
        )
    ]
    return render(
        request,
        "annotation/data/sources.html",
        {
            "rows": rows,
            "form": form,
            "can_set": can_set,
            "n_waiting": sum(1 for row in rows if row["source"].waits),
            "n_kept_out": sum(1 for row in rows if row["why"]),
            "n_lost": sum(row["n_judgments"] for row in rows if row["why"]),
            "licences": LICENCES.values(),
        },
    )


def _row(project: Project, source: Source) -> dict[str, Any]:
    return {
        "source": source,
        "licence": licence_of(source.licence),
        "why": why_kept_out(source, is_commercial=project.is_commercial),
        "n_judgments": judgments_resting_on(source),
    }


@english_only
@project_view(*CAN_READ_DATA)
@require_http_methods(["GET", "POST"])
def source(request: HttpRequest, project: Project, pk: int) -> HttpResponse:
    """One source: its facts, its two signatures, its license, and its cost while it is kept out."""
    chosen = get_object_or_404(Source, project=project, pk=pk)
    can_set = role_of(request) in CAN_RUN
    form = SourceForm(request.POST or None, instance=chosen)
    if request.method == "POST":
        if not can_set:
            raise Http404("Only admins change sources.")
        if form.is_valid():
            if change_source(chosen, request.user, **form.cleaned_data):  # type: ignore[arg-type]
                messages.warning(request, "The license changed, so the sign-off is withdrawn.")
            messages.success(request, "The source is saved.")
            return redirect("source", project.slug, pk)
        chosen = Source.objects.get(pk=pk)
    signatures = {signature.step: signature for signature in chosen.signatures.defer("file")}
    return render(
        request,
        "annotation/data/source.html",
        _row(project, chosen)
        | {
            "form": form,
            "can_set": can_set,
            "steps": [
                (step, label, signatures.get(step)) for step, label in SourceSignature.Step.choices
            ],
            "signed_at_once": chosen.is_signed_off and not signatures,
            "n_prompts": chosen.prompts.count(),
            "licences": LICENCES.values(),
        },
        status=422 if form.errors else 200,
    )


@english_only
@project_view(*CAN_RUN)
@require_POST
def source_sign(request: HttpRequest, project: Project, pk: int) -> HttpResponse:
    """Give one signature, with a note and a document."""
    chosen = get_object_or_404(Source, project=project, pk=pk)
    step = request.POST.get("step", "")
    if step not in SourceSignature.Step.values:
        messages.error(request, "Choose which of the two signatures you give.")
        return redirect("source", project.slug, pk)
    upload = request.FILES.get("document")
    try:
        sign(
            chosen,
            step,
            request.user,  # type: ignore[arg-type]  # a member, so not anonymous
            note=request.POST.get("note", "").replace("\x00", ""),
            name=upload.name or "" if upload else "",
            document=upload.read(5 * 2**20 + 1) if upload else b"",
        )
    except SourceError as error:
        messages.error(request, str(error))
    else:
        messages.success(request, f"You signed {chosen.name}.")
    return redirect("source", project.slug, pk)


@english_only
@project_view(*CAN_RUN)
@require_POST
def source_withdraw(request: HttpRequest, project: Project, pk: int) -> HttpResponse:
    """Take the sign-off back."""
    chosen = get_object_or_404(Source, project=project, pk=pk)
    withdraw_sign_off(chosen, request.user)  # type: ignore[arg-type]  # a member, so not anonymous
    messages.warning(request, f"Nothing of {chosen.name} is admitted from now on.")
    return redirect("source", project.slug, pk)


@project_view(*CAN_READ_DATA)
@require_GET
def source_document(request: HttpRequest, project: Project, pk: int, step: str) -> HttpResponse:
    """The document that a signature rests on, always as a download: it may be anything."""
    signature = get_object_or_404(
        SourceSignature, source__project=project, source=pk, step=step, file__isnull=False
    )
    disposition = content_disposition_header(True, signature.file_name or "document")  # noqa: FBT003
    return HttpResponse(
        bytes(signature.file or b""),
        content_type="application/octet-stream",
        headers={
            "Content-Disposition": disposition or "attachment",
            "X-Content-Type-Options": "nosniff",
        },
    )
