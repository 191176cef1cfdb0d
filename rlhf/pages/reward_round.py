"""A round that trains reward models only, from batches that are already judged."""

from django.contrib import messages
from django.db.models import Count, Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from annotation.access import CAN_RUN, project_view
from annotation.lib.languages import english_only
from annotation.models import Batch, Project
from annotation.request import who_asks
from rlhf import rounds
from rlhf.errors import RoundError
from rlhf.workers import tasks


@english_only
@project_view(*CAN_RUN)
@require_http_methods(["GET", "POST"])
def reward_round(request: HttpRequest, project: Project) -> HttpResponse:
    """Choose batches; a POST trains reward models on them."""
    batches = list(
        Batch.objects.filter(project=project)
        .annotate(n_judged=Sum("comparisons__judged"), n_comparisons=Count("comparisons"))
        .filter(n_judged__gt=0)
    )
    if request.method == "POST":
        wanted = set(request.POST.getlist("batches"))
        chosen = [batch for batch in batches if str(batch.pk) in wanted]
        try:
            job = rounds.open_reward_round(project, chosen, who_asks(request))
        except RoundError as error:
            messages.error(request, str(error))
        else:
            tasks.wake(job)
            messages.success(request, "The reward models are being trained.")
            if job is not None:
                return redirect("round", project.slug, job.round.number)
            return redirect("rounds", project.slug)
    return render(request, "rlhf/reward_round.html", {"batches": batches})
