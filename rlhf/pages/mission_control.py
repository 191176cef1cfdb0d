"""Mission control, and the button that builds the base policy."""

from dataclasses import dataclass
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST

from annotation.access import CAN_READ_DATA, CAN_RUN, project_view
from annotation.lib.languages import english_only
from annotation.models import Project
from annotation.request import who_asks
from rlhf import rounds
from rlhf.dashboard.results import COLUMNS, load_results, sorted_results
from rlhf.dashboard.score_panels import small_multiples
from rlhf.errors import RoundError
from rlhf.mission_control import load_mission
from rlhf.models import Round
from rlhf.pages.lookup import may_run, wants_part
from rlhf.workers import tasks


@english_only
@project_view(*CAN_READ_DATA)
def mission_control(request: HttpRequest, project: Project) -> HttpResponse:
    """What waits for a person, the current round with its stages, and the figures of all rounds."""
    results = load_results(project)
    key, order = request.GET.get("sort", ""), request.GET.get("order", "")
    rows = sorted_results(list(results.by_round.values()), key, descending=order != "ascending")
    context = {
        "mission": load_mission(project),
        "multiples": small_multiples(results.evidence),
        "results": results,
        "rows": rows,
        "is_measured": any(result.is_measured for result in rows),
        "heads": _heads(key, order),
        "sort_query": urlencode({"sort": key, "order": order}) if key else "",
        "may_run": may_run(request),
    }
    part = "#mission" if wants_part(request, "mission") else ""
    return render(request, f"rlhf/mission_control/page.html{part}", context)


@dataclass(frozen=True)
class Head:
    """The head of a sortable column: `order` is how the table is sorted by it now, or ""."""

    name: str
    help: str
    query: str
    order: str = ""

    @property
    def arrow(self) -> str:
        return " ▲" if self.order == "ascending" else " ▼"


def _heads(key: str, order: str) -> list[Head]:
    """The columns of the table of rounds; a click on the one that it is sorted by turns it around."""
    columns = [("", "Round", ""), *((c.key, c.name, c.help) for c in COLUMNS)]
    now = "ascending" if order == "ascending" else "descending"
    heads = []
    for of_column, name, help in columns:
        is_sorted = key == of_column or (not of_column and key not in {c.key for c in COLUMNS})
        turned = "ascending" if is_sorted and now == "descending" else "descending"
        query = urlencode({"sort": of_column, "order": turned})
        heads.append(Head(name, help, query, now if is_sorted else ""))
    return heads


@english_only
@project_view(*CAN_RUN)
@require_POST
def build_base(request: HttpRequest, project: Project) -> HttpResponse:
    """Start building the demo's base policy; a model of one's own has its own page."""
    if Round.objects.filter(project=project, number=0, state=Round.State.DONE).exists():
        messages.info(request, "This project already has a base policy.")
        return redirect("rounds", project.slug)
    try:
        job = rounds.open_base_round(project, by=who_asks(request))
    except RoundError as error:
        messages.error(request, str(error))
    else:
        tasks.wake(job)
        messages.success(request, "The base policy is being built.")
    return redirect("rounds", project.slug)
