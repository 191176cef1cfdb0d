"""Pages of one prompt and of one comparison: all that is known about it, with links to the rest."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.db.models import Prefetch
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_GET

from annotation.access import CAN_JUDGE, CAN_READ_DATA, CAN_REVIEW, project_view, role_of
from annotation.data.admission import why_kept_out
from annotation.data.filters.table import FILTERS
from annotation.judge.answers import in_letters
from annotation.lib.languages import english_only
from annotation.models import (
    Assignment,
    Comparison,
    Flag,
    Judgment,
    Project,
    Response,
    ReviewCase,
)
from annotation.pages import answer_form
from annotation.pages.identities import Identities
from annotation.quality.histories import Happening, comparison_history, prompt_history
from annotation.request import who_asks

COMPARISONS_SHOWN = 40
NEAR_DUPLICATES_SHOWN = 12


# --- A prompt -----------------------------------------------------------------------------------------


@english_only
@project_view(*CAN_READ_DATA)
@require_GET
def prompt(request: HttpRequest, project: Project, uid: UUID) -> HttpResponse:
    """A prompt with its responses over the rounds, what filters found, and its history."""
    chosen = get_object_or_404(project.prompts.select_related("source__created_by"), uid=uid)
    role, me = role_of(request), who_asks(request)
    names = Identities(project, role)
    comparisons = list(
        chosen.comparisons.select_related("batch", "review")
        .prefetch_related(Prefetch("responses", Response.objects.order_by("pk")))
        .order_by("-batch__created_at", "-pk")[: COMPARISONS_SHOWN + 1]
    )
    is_more, comparisons = len(comparisons) > COMPARISONS_SHOWN, comparisons[:COMPARISONS_SHOWN]
    hidden = _open_for(request, comparisons)
    ranks = _mean_ranks(comparison.pk for comparison in comparisons if comparison.pk not in hidden)
    near = project.prompts.filter(cluster=chosen.cluster).exclude(pk=chosen.pk)
    return render(
        request,
        "annotation/data/prompt.html",
        {
            "prompt": chosen,
            "is_covered": me.covers(chosen),
            "why_kept_out": why_kept_out(chosen.source, is_commercial=project.is_commercial),
            "flags": _flags(Flag.objects.filter(prompt=chosen)),
            "is_gold": chosen.gold_items.exists(),
            "near": near.order_by("pk")[:NEAR_DUPLICATES_SHOWN] if chosen.cluster else [],
            "axes": project.axes,
            "rows": [
                {
                    "comparison": comparison,
                    "is_hidden": comparison.pk in hidden,
                    "responses": _responses(project, comparison, names, ranks),
                }
                for comparison in comparisons
            ],
            "is_more": is_more,
            "shows_writers": names.shows_writers,
            "history": [_line(line, names) for line in prompt_history(chosen, comparisons)],
        },
    )


def _open_for(request: HttpRequest, comparisons: Iterable[Comparison]) -> set[int]:
    """Ids of those that the reader is about to judge: others' answers would sway theirs."""
    if role_of(request) not in CAN_JUDGE:
        return set()
    return set(
        Assignment.objects.open_for(who_asks(request))
        .filter(comparison__in=[comparison.pk for comparison in comparisons])
        .values_list("comparison_id", flat=True)
    )


def _mean_ranks(comparisons: Iterable[int]) -> dict[tuple[int, str], tuple[float, int]]:
    """(response id, axis) -> mean rank and number of votes that count."""
    judgments = (
        Judgment.objects.current()
        .filter(assignment__comparison__in=list(comparisons), assignment__is_ruling=False)
        .values_list("ranks", flat=True)
    )
    given: dict[tuple[int, str], list[int]] = defaultdict(list)
    for ranks in judgments:
        for axis, by_response in ranks.items():
            for response, rank in by_response.items():
                if rank is not None:
                    given[int(response), axis].append(rank)
    return {key: (sum(values) / len(values), len(values)) for key, values in given.items()}


def _responses(
    project: Project,
    comparison: Comparison,
    names: Identities,
    ranks: dict[tuple[int, str], tuple[float, int]],
) -> list[dict[str, Any]]:
    responses = list(comparison.responses.all())
    letters = Assignment(shown_order=[response.pk for response in responses]).letters
    return [
        {
            "letter": letters[str(response.pk)],
            "response": response,
            "writer": names.writer(response.source),
            "ranks": [
                (axis, *ranks[response.pk, axis["key"]])
                for axis in project.axes
                if (response.pk, axis["key"]) in ranks
            ],
        }
        for response in responses
    ]


def _flags(flags: Iterable[Flag]) -> list[dict[str, Any]]:
    """What the filters found, with each filter's name; findings in other versions' filters are left out."""
    return [
        {"flag": flag, "filter": FILTERS[flag.filter]} for flag in flags if flag.filter in FILTERS
    ]


def _line(line: Happening, names: Identities) -> dict[str, Any]:
    who = names.person(line.annotator).name if line.annotator else names.staff(line.staff)
    return {"at": line.at, "text": line.text, "detail": line.detail, "who": who}


# --- A comparison -------------------------------------------------------------------------------------


@english_only
@project_view(*CAN_READ_DATA)
@require_GET
def comparison(request: HttpRequest, project: Project, pk: int) -> HttpResponse:
    """A comparison with every vote on it, earlier revisions too, its review and its history."""
    chosen = get_object_or_404(
        Comparison.objects.select_related(
            "prompt__source", "batch__project", "gold", "review__decided_by"
        ),
        batch__project=project,
        pk=pk,
    )
    names = Identities(project, role_of(request))
    case: ReviewCase | None = getattr(chosen, "review", None)
    is_hidden = bool(_open_for(request, [chosen]))
    assignments = list(
        chosen.assignments.select_related("annotator", "comparison__batch")
        .prefetch_related(Prefetch("judgments", Judgment.objects.order_by("revision")))
        .order_by("pk")
    )
    responses = _responses(project, chosen, names, {} if is_hidden else _mean_ranks([chosen.pk]))
    flags = Flag.objects.filter(response__in=[row["response"].pk for row in responses])
    by_response: dict[int | None, list[Flag]] = defaultdict(list)
    for flag in flags:
        by_response[flag.response_id].append(flag)
    for row in responses:
        row["flags"] = _flags(by_response[row["response"].pk])
    return render(
        request,
        "annotation/data/comparison.html",
        {
            "comparison": chosen,
            "prompt": chosen.prompt,
            "is_covered": who_asks(request).covers(chosen.prompt),
            "is_hidden": is_hidden,
            "responses": responses,
            "shows_writers": names.shows_writers,
            "prompt_flags": _flags(Flag.objects.filter(prompt=chosen.prompt_id)),
            "votes": [] if is_hidden else _votes(chosen, assignments, names),
            "case": case,
            "case_reasons": [ReviewCase.REASONS.get(key, key) for key in case.reasons]
            if case
            else [],
            "case_ground": ReviewCase.GROUNDS.get(case.ground, "") if case else "",
            "decided_by": names.staff(case.decided_by) if case else "",
            "may_review": role_of(request) in CAN_REVIEW,
            "history": []
            if is_hidden
            else [_line(line, names) for line in comparison_history(chosen, assignments, case)],
        },
    )


def _votes(
    comparison: Comparison, assignments: Iterable[Assignment], names: Identities
) -> list[dict[str, Any]]:
    """Each person to whom it was handed out, with all revisions of what they said."""
    ids = [response.pk for response in comparison.responses.all()]
    by_id = Assignment(comparison=comparison, shown_order=ids)
    return [
        {
            "assignment": assignment,
            "who": names.person(
                assignment.annotator,
                is_imported=comparison.batch.is_imported,
                is_ruling=assignment.is_ruling,
            ),
            "seen_as": [by_id.letters.get(str(pk), "?") for pk in assignment.shown_order],
            "revisions": [
                _revision(judgment, assignment, by_id) for judgment in assignment.judgments.all()
            ][::-1],
        }
        for assignment in assignments
    ]


def _revision(judgment: Judgment, assignment: Assignment, by_id: Assignment) -> dict[str, Any]:
    answer = in_letters(by_id, judgment)
    return {
        "judgment": judgment,
        "counts": assignment.judgment_id == judgment.pk,
        "lines": answer_form.summary(by_id, answer),
        "flags": [
            f"{letter}: {_flag_name(flag)}"
            for letter, flags in answer["flags"].items()
            for flag in flags
        ],
    }


def _flag_name(flag: dict[str, str]) -> str:
    name = Judgment.FLAGS.get(flag["kind"], flag["kind"]).lower()
    harm = Judgment.HARM_CATEGORIES.get(flag.get("category", ""), "")
    return f"{name} ({harm.lower()})" if harm else name
