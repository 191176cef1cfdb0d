"""Helpers of several pages: the round, the person's role, the part that htmx requests, a CSV file."""

from django.http import Http404, HttpRequest, HttpResponse

from annotation.access import CAN_RUN
from annotation.models import Project
from rlhf.models import Round


def find_round(project: Project, number: int) -> Round:
    """The project's round of this number, or Http404."""
    round = (
        Round.objects.filter(project=project, number=number)
        .select_related("start_policy", "policy", "batch", "snapshot", "created_by", "verdict_by")
        .first()
    )
    if round is None:
        raise Http404("There is no such round.")
    round.project = project
    return round


def may_run(request: HttpRequest) -> bool:
    """True if the person may launch, cancel and decide on rounds."""
    role: str = request.role  # type: ignore[attr-defined]
    return role in CAN_RUN


def wants_part(request: HttpRequest, target: str) -> bool:
    """True if htmx asks for the part of the page with this id."""
    element = request.headers.get("HX-Target", "")
    return request.headers.get("HX-Request") == "true" and (
        element == target or element.endswith(f"#{target}")
    )


def integer_or(text: str | None, default: int) -> int:
    """The integer that a browser sent, or the default."""
    try:
        return int(text or "")
    except ValueError:
        return default


def csv_file(text: str, name: str) -> HttpResponse:
    """A CSV file for download."""
    response = HttpResponse(text, content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response
