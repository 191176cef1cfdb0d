"""Active selection: which waiting comparisons people judge first."""

from django.contrib import messages
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from annotation.access import CAN_RUN, project_view
from annotation.judge.selection import random_sample
from annotation.lib.languages import english_only
from annotation.models import Batch, Project
from annotation.request import who_asks
from rlhf.errors import RoundError
from rlhf.selection import select_now, selection_cost, selections, why_not_select
from rlhf.stages.selection import MAX_SCORED, newest_ensemble, waiting_comparisons
from rlhf.workers import tasks

JOBS_SHOWN = 5


@english_only
@project_view(*CAN_RUN)
@require_http_methods(["GET", "POST"])
def selection(request: HttpRequest, project: Project) -> HttpResponse:
    """How many comparisons wait and are scored; a POST has the waiting ones scored."""
    if request.method == "POST":
        try:
            job = select_now(project, who_asks(request))
        except RoundError as error:
            messages.error(request, str(error))
        else:
            tasks.wake(job)
            messages.success(request, "The waiting comparisons are being scored.")
        return redirect("selection", project.slug)
    waiting = waiting_comparisons(project)
    n_waiting = waiting.count()
    batches = Batch.objects.filter(pk__in=waiting.values("batch")).order_by("-opened_at")
    context = {
        "model": newest_ensemble(project),
        "n_waiting": n_waiting,
        "n_scored": waiting.filter(score__gt=0).count(),
        "n_most": MAX_SCORED,
        "why_not": why_not_select(project),
        "cost": selection_cost(project, n_waiting),
        "jobs": selections(project).select_related("round")[:JOBS_SHOWN],
        "random_percent": round(100 * project.random_share),
        "random_samples": [(batch, *_random_sample_counts(batch)) for batch in batches],
    }
    return render(request, "rlhf/selection.html", context)


def _random_sample_counts(batch: Batch) -> tuple[int, int]:
    """The size of the batch's random sample, and how many comparisons of it are judged."""
    sample = random_sample(batch).aggregate(
        n=Count("pk"), judged=Count("pk", filter=Q(judged__gt=0))
    )
    return sample["n"], sample["judged"]
