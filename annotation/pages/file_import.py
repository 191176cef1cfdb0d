"""The page that imports a file: first what it holds and what would be refused, then the import."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from django.contrib import messages
from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods
from django_htmx.http import HttpResponseClientRedirect

from annotation.access import CAN_RUN, project_view
from annotation.data.import_formats.report import ComparisonItem, ImportReport
from annotation.data.import_formats.shapes import SHAPES
from annotation.data.import_preview import Preview, preview, refused_csv
from annotation.data.imports import import_file
from annotation.lib.languages import english_only
from annotation.models import Project
from annotation.pages.data_forms import ImportForm

COLUMN = "column:"
"""Begins the name of a field that says what a column of the file is."""
MOST_COLUMNS = 40
TARGETS = (
    *("prompt", "messages", "system", "input", "history", "response", "responses", "chosen"),
    *(
        "rejected",
        "response_a",
        "response_b",
        "preference",
        "ranks",
        "label",
        "margin",
        "annotator",
    ),
    *("category", "risk", "split", "skill", "priority", "id"),
)
SHOWN_CHARACTERS = 240
MOST_LINKED = 2_000
"""Refused rows in the link of a page; `action=refused` gives all of them."""


@english_only
@project_view(*CAN_RUN)
@require_http_methods(["GET", "POST"])
def prompt_import(request: HttpRequest, project: Project) -> HttpResponseBase:
    """Choose a file, see what it holds, import all of it or its good rows."""
    template = "annotation/data/import.html"
    titles = list(dict.fromkeys(shape.title for shape in SHAPES.values()))
    if request.method == "GET":
        context = {"form": ImportForm(project=project), "shapes": titles}
        return render(request, template, context)
    form = ImportForm(request.POST, request.FILES, project=project)
    action = request.POST.get("action", "import")
    part = f"{template}#outcome" if request.htmx else template  # type: ignore[attr-defined]
    form.is_valid()
    is_looking = action in ("check", "refused")
    if "file" in form.errors or (form.errors and not is_looking):
        return render(request, part, {"form": form, "show_errors": True}, status=422)
    fields = form.cleaned_data
    columns = _columns(request.POST)
    options: dict[str, Any] = {
        "axis": fields.get("axis") or "",
        "shape": fields.get("format") or "auto",
        "contents": fields.get("kind") or "everything",
        "columns": columns,
    }
    if is_looking:
        return _look(request, part, project, form, action, options)
    report = import_file(
        project,
        fields["file"],
        source={key: fields[key] for key in ("name", "licence", "url")},
        by=request.user,  # type: ignore[arg-type]  # a member, so not anonymous
        sign_off=fields["sign_off"],
        only_good_rows=action == "good",
        **options,
    )
    if not report.n_imported and not report.ok:
        made = preview(project, fields["file"], **options)
        context = {"form": form, **_shown(made, columns), "refused": True}
        return render(request, part, context, status=422)
    messages.success(request, _outcome(report))
    if report.n_imported and report.source and not report.source.is_signed_off:
        messages.warning(request, "The source is not signed off yet, so training does not use it.")
    where = reverse("sources", args=[project.slug])
    if request.htmx:  # type: ignore[attr-defined]
        return HttpResponseClientRedirect(where)
    return redirect(where)


def _look(
    request: HttpRequest,
    part: str,
    project: Project,
    form: ImportForm,
    action: str,
    options: dict[str, Any],
) -> HttpResponseBase:
    """The preview, or its refused rows as a table."""
    made = preview(project, form.cleaned_data["file"], **options)
    if action == "refused":
        answer = StreamingHttpResponse(refused_csv(made), content_type="text/csv; charset=utf-8")
        answer["Content-Disposition"] = f'attachment; filename="{project.slug}-refused-rows.csv"'
        return answer
    return render(request, part, {"form": form, **_shown(made, options["columns"])})


def _columns(posted: Mapping[str, Any]) -> dict[str, str]:
    """What a person said about columns, file's name to ours; those that keep their name are left out."""
    named = {
        key.removeprefix(COLUMN): str(value)
        for key, value in posted.items()
        if key.startswith(COLUMN)
    }
    return {
        name: value for name, value in named.items() if value in ("", *TARGETS) and value != name
    }


def _shown(made: Preview, columns: Mapping[str, str]) -> dict[str, Any]:
    report = made.report
    return {
        "preview": made,
        "report": report,
        "refused_table": _as_address(made) if made.refused else "",
        "rows": [_row(item) for item in made.items],
        "columns": [
            {
                "name": name,
                "field": COLUMN + name,
                "target": columns.get(name, name),
                "choices": [name, *(target for target in TARGETS if target != name)],
            }
            for name in list(report.columns)[:MOST_COLUMNS]
        ],
        "is_unknown": report.concerns_file and not made.items,
    }


def _as_address(made: Preview) -> str:
    """The table of refused rows as a link's own content: the page keeps no file."""
    table = "".join(refused_csv(replace(made, refused=made.refused[:MOST_LINKED])))
    return "data:text/csv;charset=utf-8," + quote(table)


def _row(item: ComparisonItem) -> dict[str, Any]:
    """An item as it will stand: the end of its prompt, its responses and what was said of them."""
    return {
        "text": item.prompt.text[:SHOWN_CHARACTERS],
        "n_earlier": len(item.prompt.messages) - 1,
        "labels": [
            label for label in (item.prompt.category, item.prompt.risk, item.prompt.split) if label
        ],
        "is_judged": item.is_judged,
        "responses": [
            {"text": text[:SHOWN_CHARACTERS], "said": _said_of(item, index)}
            for index, (text, _) in enumerate(item.responses)
        ],
    }


def _said_of(item: ComparisonItem, index: int) -> str:
    parts = [f"{axis} {ranks[index]}" for axis, ranks in item.ranks.items() if ranks[index]]
    if item.ratings:
        parts += [f"{name}: {mark}" for name, mark in item.ratings[index].items()]
    vote = item.safety[index] if item.safety else None
    if vote:
        parts.append("safe" if vote["safe"] else "unsafe")
    return ", ".join(parts)


def _outcome(report: ImportReport) -> str:
    noun = "row" if report.n_imported == 1 else "rows"
    sentences = [f"Imported {report.n_imported:,} {noun} in {report.seconds:.1f} s."]
    if report.n_duplicates:
        sentences.append(f"{report.n_duplicates:,} duplicates skipped.")
    if report.n_problems:
        sentences.append(f"{report.n_problems:,} refused rows left out.")
    sentences += [f"{remark}." for remark in report.remarks]
    return " ".join(sentences)
