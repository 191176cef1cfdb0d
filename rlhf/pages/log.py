"""The whole log of a round's stage: read, searched, downloaded."""

from collections.abc import Iterator

from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.utils.http import content_disposition_header

from annotation.access import CAN_READ_DATA, project_view
from annotation.lib.languages import english_only
from annotation.models import Project
from rlhf.models import Round
from rlhf.pages.lookup import find_round
from rlhf.stage_logs import LEVELS, log_files, raw_lines, search_log


@english_only
@project_view(*CAN_READ_DATA)
def stage_log(request: HttpRequest, project: Project, number: int, stage: str) -> HttpResponse:
    """The lines of a stage's log, newest attempt last, with those that are searched for."""
    round = find_round(project, number)
    files = log_files(round, stage)
    _check_stage(round, stage)
    words, level = request.GET.get("q", "")[:200], request.GET.get("level", "")
    context = {
        "round": round,
        "stage": stage,
        "stage_name": Round.stage_name(stage),
        "found": search_log(files, words, level),
        "attempts": len(files),
        "words": words,
        "level": level,
        "levels": LEVELS,
    }
    return render(request, "rlhf/round/log.html", context)


@english_only
@project_view(*CAN_READ_DATA)
def stage_log_text(
    request: HttpRequest, project: Project, number: int, stage: str
) -> StreamingHttpResponse:
    """The whole log as a text file."""
    round = find_round(project, number)
    _check_stage(round, stage)
    files = log_files(round, stage)

    def lines() -> Iterator[str]:
        earlier = 0
        for attempt, line in raw_lines(files):
            if attempt != earlier and len(files) > 1:
                yield f"=== attempt {attempt} of {len(files)} ===\n"
            earlier = attempt
            yield f"{line}\n"

    response = StreamingHttpResponse(lines(), content_type="text/plain; charset=utf-8")
    response["Content-Disposition"] = content_disposition_header(
        as_attachment=True, filename=f"{project.slug}-round-{number}-{stage}-log.txt"
    )
    return response


def _check_stage(round: Round, stage: str) -> None:
    if stage not in round.plan and not round.jobs.filter(stage=stage).exists():
        raise Http404("The round has no such stage.")
