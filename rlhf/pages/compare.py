"""Two to six rounds side by side."""

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render

from annotation.access import CAN_READ_DATA, project_view
from annotation.lib.languages import english_only
from annotation.models import Project
from rlhf.dashboard.comparison import (
    LEAST,
    MOST,
    differing_settings,
    figure_rows,
    has_curves,
    merged_metrics,
    overlaid_curves,
    score_drawings,
)
from rlhf.dashboard.results import load_results
from rlhf.models import Round
from rlhf.pages.launch_form import explained
from rlhf.pages.lookup import integer_or

STAGE = "ppo"


@english_only
@project_view(*CAN_READ_DATA)
def compare_rounds(request: HttpRequest, project: Project) -> HttpResponse:
    """The figures, the curves on one axis and the differing settings of the rounds in the address."""
    results = load_results(project)
    everything = results.evidence.rounds
    wanted = _wanted(request)
    chosen = [round for round in everything if round.number in wanted]
    rounds = chosen[:MOST]
    context = {
        "everything": everything,
        "chosen": rounds,
        "is_enough": len(rounds) >= LEAST,
        "left_out": chosen[MOST:],
        "most": MOST,
    }
    if len(rounds) >= LEAST:
        context |= {
            "results": results,
            "figures": figure_rows([results.by_round[round.pk] for round in rounds]),
            "drawings": score_drawings(results.evidence, rounds),
            "curves": overlaid_curves(rounds, STAGE) if has_curves(rounds, STAGE) else [],
            "settings_rows": differing_settings(rounds, explained()),
            "query": "&".join(f"round={round.number}" for round in rounds),
        }
    return render(request, "rlhf/compare.html", context)


@english_only
@project_view(*CAN_READ_DATA)
def compared_metrics(request: HttpRequest, project: Project) -> HttpResponse:
    """The metrics of PPO of the rounds in the address, as one table by step."""
    rounds = Round.objects.filter(project=project, number__in=_wanted(request)).order_by("number")
    return JsonResponse(merged_metrics(rounds[:MOST], STAGE))


def _wanted(request: HttpRequest) -> set[int]:
    """The numbers of the rounds in the address; what is none is left out."""
    numbers = (integer_or(text, -1) for text in request.GET.getlist("round")[:100])
    return {number for number in numbers if 0 <= number < 2**31}
