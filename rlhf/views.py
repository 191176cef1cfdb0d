"""Pages where rounds are launched, watched and judged."""

import csv
import io
from collections.abc import Mapping
from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Count, Q, QuerySet, Sum
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST
from kombu.exceptions import OperationalError

from annotation.access import CAN_READ_DATA, CAN_RUN, project_view
from annotation.judge.assignment import random_sample
from annotation.models import Batch, Comparison, Membership, Project
from annotation.projects.batches import batch_progress
from rlhf import charts, forms, lineage, reading, reward_panel, stages, tables, tasks, timeline
from rlhf import dashboard as panels
from rlhf import rounds as acts
from rlhf.models import Job, Round

SAMPLES_PER_PAGE = 24


def round_of(project: Project, number: int) -> Round:
    """The project's round of this number, or Http404."""
    found = (
        Round.objects.filter(project=project, number=number)
        .select_related("start_policy", "policy", "batch", "snapshot", "created_by", "verdict_by")
        .first()
    )
    if found is None:
        raise Http404("There is no such round.")
    found.project = project
    return found


def may_run(request: HttpRequest) -> bool:
    role: str = request.role  # type: ignore[attr-defined]
    return role in CAN_RUN


@project_view(*CAN_READ_DATA)
def rounds(request: HttpRequest, project: Project) -> HttpResponse:
    """Mission control: what waits for a person, and every round in one line."""
    context = {
        "mission": timeline.mission(project),
        "multiples": panels.small_multiples(project),
        "may_run": may_run(request),
    }
    part = "#mission" if _wants(request, "mission") else ""
    return render(request, f"rlhf/rounds.html{part}", context)


@project_view(*CAN_READ_DATA)
def round_detail(request: HttpRequest, project: Project, number: int) -> HttpResponse:
    """One round: its stages, and the stage in focus with all that it left."""
    one = round_of(project, number)
    jobs = list(one.jobs.filter(stage__in=one.plan))
    stages = timeline.stages(one, jobs)
    focus = timeline.focus(one, stages, request.GET.get("stage", ""))
    active = next((job for job in jobs if not job.has_ended), None)
    context: dict[str, Any] = {
        "round": one,
        "stages": stages,
        "focus": focus,
        "wanted": request.GET.get("stage", ""),
        "active": active,
        "progress": reading.progress(active) if active else {},
        "eta": timeline.eta(reading.progress(active)) if active else "",
        "failed": next((j for j in jobs if j.state == Job.State.FAILED), None)
        if one.state == Round.State.FAILED
        else None,
        "failed_name": timeline.STAGE_NAMES.get(one.failed_stage, one.failed_stage),
        "poll": _poll(one, active),
        "may_run": may_run(request),
        "note": request.session.get(f"note-{one.pk}", ""),
        **_focus(project, one, focus),
    }
    if _wants(request, "round"):
        return render(request, "rlhf/round.html#round", context)
    before = Round.objects.filter(project=project, number=number - 1).first()
    compared = before.config if before and before.number and one.number > 1 else None
    context["configuration"] = timeline.settings_table(one.config, compared, forms.explained())
    context["compared_with"] = before if compared is not None else None
    context["events"] = list(timeline.history(one)[:50])
    return render(request, "rlhf/round.html", context)


def _wants(request: HttpRequest, target: str) -> bool:
    """Whether htmx asks for the part of the page with this id."""
    asked = request.headers.get("HX-Target", "")
    return request.headers.get("HX-Request") == "true" and (
        asked == target or asked.endswith(f"#{target}")
    )


def _poll(round: Round, active: Job | None) -> str:
    if active:  # also the job of a cancelled round, until it has written its checkpoint
        return "2s"
    return "" if round.has_ended or round.state == Round.State.VERDICT else "5s"


def _focus(project: Project, round: Round, stage: timeline.Stage | None) -> dict[str, Any]:
    """What the stage in focus has to show."""
    if stage is None:
        return {}
    found: dict[str, Any] = {}
    job = stage.job
    if job is not None:
        found["curves"] = reading.curves_of(stage.key, round.config)
        found["log"] = reading.log_tail(job)
        found["result"] = reading.result(job)
        found["facts"] = reading.facts(stage.key, found["result"])
        if stage.key == "ppo":
            found["pairs"] = reading.before_after(job)
        if stage.key == "reward_model":
            found["report"] = reward_panel.reward_report(found["result"])
            found["people_are_simulated"] = panels.has_simulated(round)
    if stage.key == "snapshot" and round.snapshot is not None:
        found["counts"] = [
            (str(name).replace("_", " "), timeline.shown(count))
            for name, count in round.snapshot.counts.items()
            if count
        ]
    if stage.key == "evaluate":
        found["scores"] = _scores(round)
    if stage.key == "verdict" and round.state == Round.State.VERDICT:
        verdict, reasons = acts.propose_verdict(round)
        found["proposal"] = {"verdict": verdict, "reasons": reasons}
    if stage.key == "annotate" and round.batch is not None:
        figures = batch_progress(round.batch)
        left = figures["eta_seconds"]
        found["batch"] = figures
        found["batch_eta"] = timeline.duration(left) if left else ""
        found["missing"] = max(0, figures["needed"] - figures["judged"])
        found["simulated"] = _has_simulated(project)
    return found


def _has_simulated(project: Project) -> bool:
    return Membership.objects.filter(project=project, user__is_simulated=True).exists()


METRICS = {
    "helpfulness": "helpfulness",
    "safety": "safety",
    "violation_rate": "violation rate",
    "over_refusal_rate": "over-refusal rate",
    "win_rate_vs_base": "win rate against base",
    "win_rate_vs_previous": "win rate against previous",
    "entity_accuracy": "of the facts and names stated, right",
    "correct_rate": "answers that state facts or names, all right",
    "mean_length": "mean length in tokens",
}


def _scores(round: Round) -> dict[str, Any]:
    """The round's own policy's scores: a row per metric, a column per judge and temperature."""
    found: dict[tuple[str, float, str], tuple[str, str]] = {}
    for score in round.scores.filter(category="", checkpoint=round.policy_id):
        percent = score.metric in panels.RATES
        value = charts.number(score.value, percent=percent)
        words = charts.in_words(panels.figure_of(score), percent=percent)
        about = words.removeprefix(value).lstrip(", ")  # its interval and n, in smaller print
        found[score.judge, score.temperature, score.metric] = value, about
    columns = sorted({(judge, t) for judge, t, _ in found}, key=lambda c: (c[0], -c[1]))
    heads = [
        {
            "judge": panels.JUDGES.get(judge, judge),
            "is_simulated": judge == "gold",
            "temperature": f"{temperature:g}",
        }
        for judge, temperature in columns
    ]
    rows = []
    for metric, name in METRICS.items():
        cells = [found.get((judge, temperature, metric)) for judge, temperature in columns]
        if any(cells):
            rows.append((name, list(zip(heads, cells, strict=True))))
    return {"columns": heads, "rows": rows} if rows else {}


def _metrics(project: Project, number: int, stage: str, *, epoch: int, after: int) -> Any:
    one = round_of(project, number)
    job = one.jobs.filter(stage=stage).order_by("-created_at", "-id").first()
    if job is None:  # not begun: nothing to show, and nothing to ask again for
        return {"epoch": 0, "reset": True, "running": False, "last": -1, "rows": []}
    return reading.metrics_since(job, epoch=epoch, after=after)


@project_view(*CAN_READ_DATA)
def metrics(request: HttpRequest, project: Project, number: int, stage: str) -> HttpResponse:
    """The lines of a stage's metrics that the page has not seen yet (`epoch`, `after`)."""
    epoch, after = _whole(request.GET.get("epoch"), -1), _whole(request.GET.get("after"), -1)
    return JsonResponse(_metrics(project, number, stage, epoch=epoch, after=after))


@project_view(*CAN_READ_DATA)
def metrics_csv(request: HttpRequest, project: Project, number: int, stage: str) -> HttpResponse:
    """All of a stage's metrics as CSV."""
    rows = _metrics(project, number, stage, epoch=-1, after=-1)["rows"]
    columns = list(dict.fromkeys(name for row in rows for name in row)) or ["step", "time"]
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([tables.harmless(name) for name in columns])
    for row in rows:
        values = [row.get(name) for name in columns]
        writer.writerow([tables.harmless(v) if isinstance(v, str) else v for v in values])
    return _csv(out.getvalue(), f"{project.slug}-round-{number}-{stage}.csv")


def _csv(text: str, name: str) -> HttpResponse:
    answer = HttpResponse(text, content_type="text/csv; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="{name}"'
    return answer


def _whole(text: str | None, default: int) -> int:
    """The whole number that a browser sent, or the default for whatever is none."""
    try:
        return int(text or "")
    except ValueError:
        return default


@project_view(*CAN_READ_DATA)
def dashboard(request: HttpRequest, project: Project) -> HttpResponse:
    """Safety and helpfulness per round, and what stands behind them."""
    e = panels.evidence(project, request.GET.get("judge", ""), request.GET.get("temperature", ""))
    context = {
        "e": e,
        "panels": panels.panels(e),
        "judges": [(name, panels.JUDGES[name]) for name in e.judges],
        "may_run": may_run(request),
        "query": f"judge={e.judge}&temperature={e.temperature}",
    }
    return render(request, "rlhf/dashboard.html", context)


@project_view(*CAN_READ_DATA)
def models(request: HttpRequest, project: Project) -> HttpResponse:
    """Every model with its lineage; where its files are is for those who run rounds."""
    found = lineage.models(project)
    context = {
        "models": found,
        "may_run": may_run(request),
        "may_retire": may_run(request) and sum(m.is_promoted for m in found) > 1,
    }
    return render(request, "rlhf/models.html", context)


@project_view(*CAN_READ_DATA)
def panel_csv(request: HttpRequest, project: Project, panel: str) -> HttpResponse:
    """The table behind one panel."""
    make = panels.PANELS.get(panel)
    if make is None:
        raise Http404("There is no such panel.")
    e = panels.evidence(project, request.GET.get("judge", ""), request.GET.get("temperature", ""))
    name = f"{project.slug}-{panel}-{e.judge}-t{e.temperature:g}.csv"
    return _csv(tables.to_csv(make(e).table), name)


@project_view(*CAN_READ_DATA)
def samples(request: HttpRequest, project: Project, number: int) -> HttpResponse:
    """The answers that a round's numbers were computed from."""
    one = round_of(project, number)
    job = one.jobs.filter(stage="evaluate").order_by("-created_at", "-id").first()
    opponent = request.GET.get("vs", "")
    found = reading.evaluation_samples(job, opponent=opponent) if job else []
    chosen = {
        name: request.GET.get(name, "") for name in ("temperature", "category", "risk", "axis", "q")
    }
    temperatures = sorted({s.temperature for s in found}, reverse=True)
    categories = sorted({s.category for s in found if s.category})
    axes = sorted({axis for s in found for axis in s.scores})
    kept = [s for s in found if _matches(s, chosen)]
    axis = chosen["axis"]
    if axis in axes:
        kept.sort(key=lambda s: s.scores.get(axis, 0.0))
    page = Paginator(kept, SAMPLES_PER_PAGE).get_page(request.GET.get("page"))
    query = request.GET.copy()
    query.pop("page", None)
    context = {
        "round": one,
        "page": page,
        "total": len(found),
        "temperatures": [f"{t:g}" for t in temperatures],
        "categories": categories,
        "axes": axes,
        "chosen": chosen | {"temperature": _number_text(chosen["temperature"])},
        "opponent": opponent if opponent in ("base", "previous") else "",
        "query": query.urlencode(),
    }
    return render(request, "rlhf/samples.html", context)


def _matches(sample: reading.Sample, chosen: dict[str, str]) -> bool:
    temperature = _number_text(chosen["temperature"])
    return (
        (not temperature or f"{sample.temperature:g}" == temperature)
        and (not chosen["category"] or sample.category == chosen["category"])
        and (not chosen["risk"] or sample.risk == chosen["risk"])
        and (
            not chosen["q"]
            or chosen["q"].casefold() in f"{sample.prompt}\n{sample.text}".casefold()
        )
    )


def _number_text(text: str) -> str:
    try:
        return f"{float(text):g}"
    except ValueError:
        return ""


# --- Acts: each is checked and written by rlhf.rounds; a second click finds nothing left to do ------


@project_view(*CAN_RUN)
@require_http_methods(["GET", "POST"])
def launch(request: HttpRequest, project: Project) -> HttpResponse:
    """Pre-flight: the checks, the configuration, and one button."""
    number = _next_number(project)
    before = Round.objects.filter(project=project, plan=Round.FULL_PLAN).order_by("-number").first()
    try:
        defaults: Mapping[str, Any] = acts.default_config(project)
    except acts.RoundError as error:
        messages.error(request, str(error))
        return redirect("rounds", project.slug)
    data = request.POST if request.method == "POST" else None
    form = forms.LaunchForm(data, defaults=defaults, before=before.config if before else None)
    config: Mapping[str, Any] = defaults
    sound = data is None or form.is_valid()
    if data is not None and sound:
        config = form.config()
    status = 200 if sound else 422
    if data is not None and data.get("act") == "launch":
        asked = _whole(data.get("number"), number)
        if 0 <= asked < number:
            # The second of two clicks: what it asks for is there already.
            messages.info(request, f"Round {asked} is launched already.")
            return redirect("round", project.slug, asked)
        if sound:
            try:
                job = acts.open_round(
                    project,
                    by=request.user,  # type: ignore[arg-type]  # a member, so not anonymous
                    config=config,
                    acknowledged=data.getlist("acknowledged"),
                )
            except acts.RoundError as error:
                form.add_error(None, str(error))
                status = 422
            else:
                tasks.wake(job)
                messages.success(
                    request, f"Round {number} is launched. Its configuration is frozen."
                )
                return redirect("round", project.slug, number)
    checks = acts.preflight(project, config)
    counts = {
        name: sum(check.verdict == verdict for check in checks)
        for name, verdict in (("go", "go"), ("caution", "caution"), ("no_go", "no-go"))
    }
    context = {
        "form": form,
        "checks": sorted(checks, key=lambda c: ["no-go", "caution", "go"].index(c.verdict)),
        "counts": counts,
        "number": number,
        "before": before,
        "open_round": acts.live_round(project),
        "acknowledged": data.getlist("acknowledged") if data is not None else [],
        "estimate": next((check.short for check in checks if check.short), ""),
    }
    return render(request, "rlhf/launch.html", context, status=status)


def _next_number(project: Project) -> int:
    last = Round.objects.filter(project=project).order_by("-number").first()
    return 1 if last is None else last.number + 1


@project_view(*CAN_RUN)
@require_POST
def build_base(request: HttpRequest, project: Project) -> HttpResponse:
    """Start building the base policy, or take the model that was named."""
    named = request.POST.get("policy", "").strip()[:500]
    if Round.objects.filter(project=project, number=0, state=Round.State.DONE).exists():
        messages.info(request, "This project has its base policy already.")
        return redirect("rounds", project.slug)
    try:
        job = acts.open_base_round(project, by=request.user, policy=named)  # type: ignore[arg-type]
    except acts.RoundError as error:
        messages.error(request, str(error))
    else:
        tasks.wake(job)
        messages.success(
            request,
            "The base policy is being measured." if named else "The base policy is being built.",
        )
    return redirect("rounds", project.slug)


@project_view(*CAN_RUN)
@require_http_methods(["GET", "POST"])
def reward_round(request: HttpRequest, project: Project) -> HttpResponse:
    """Reward models from judgments that are there already: choose batches, train."""
    choices = list(
        Batch.objects.filter(project=project)
        .annotate(n_judged=Sum("comparisons__judged"), n_comparisons=Count("comparisons"))
        .filter(n_judged__gt=0)
    )
    if request.method == "POST":
        wanted = set(request.POST.getlist("batches"))
        try:
            job = acts.open_reward_round(
                project,
                [batch for batch in choices if str(batch.pk) in wanted],
                request.user,  # type: ignore[arg-type]
            )
        except acts.RoundError as error:
            messages.error(request, str(error))
        else:
            tasks.wake(job)
            messages.success(request, "The reward models are being trained.")
            if job is not None:
                return redirect("round", project.slug, job.round.number)
            return redirect("rounds", project.slug)
    return render(request, "rlhf/reward_round.html", {"batches": choices})


@project_view(*CAN_RUN)
@require_http_methods(["GET", "POST"])
def selection(request: HttpRequest, project: Project) -> HttpResponse:
    """What people are asked first: have the waiting comparisons scored, and see what became of it."""
    if request.method == "POST":
        try:
            job = acts.select_now(project, request.user)  # type: ignore[arg-type]
        except acts.RoundError as error:
            messages.error(request, str(error))
        else:
            tasks.wake(job)
            messages.success(request, "The comparisons that wait are being scored.")
        return redirect("selection", project.slug)
    waiting = stages.waiting_comparisons(project)
    n = waiting.count()
    context = {
        "model": stages.ensemble(project),
        "n_waiting": n,
        "n_scored": waiting.filter(score__gt=0).count(),
        "n_most": stages.MOST_SELECTED,
        "why_not": acts.why_not_select(project),
        "cost": acts.selection_cost(project, n),
        "jobs": acts.selections(project).select_related("round")[:5],
        "random_percent": round(100 * project.random_share),
        "fair": [(batch, *_fair_sample(batch)) for batch in _open_batches(waiting)],
    }
    return render(request, "rlhf/selection.html", context)


def _open_batches(waiting: QuerySet[Comparison]) -> QuerySet[Batch]:
    return Batch.objects.filter(pk__in=waiting.values("batch")).order_by("-opened_at")


def _fair_sample(batch: Batch) -> tuple[int, int]:
    """How many comparisons a fair estimate may rest on, and how many of them are judged."""
    sample = random_sample(batch).aggregate(
        n=Count("pk"), judged=Count("pk", filter=Q(judged__gt=0))
    )
    return sample["n"], sample["judged"]


@project_view(*CAN_RUN)
@require_POST
def close_annotation(request: HttpRequest, project: Project, number: int) -> HttpResponse:
    """Stop asking people; freeze what they said and train on it."""
    one = round_of(project, number)
    try:
        job = acts.close_annotation(one, request.user)  # type: ignore[arg-type]
    except acts.RoundError as error:
        messages.error(request, str(error))
    else:
        tasks.wake(job)
        if job is not None:
            messages.success(request, "The batch is closed. What people said is being frozen.")
        else:
            messages.info(request, "The batch is closed already.")
    return redirect("round", project.slug, number)


@project_view(*CAN_RUN)
@require_POST
def simulate(request: HttpRequest, project: Project, number: int) -> HttpResponse:
    """Let the demo's simulated annotators judge what is left; their work is labelled so."""
    one = round_of(project, number)
    if not project.is_demo:
        messages.error(request, "Simulated annotators only know the demo's world.")
    elif one.state != Round.State.ANNOTATE:
        messages.info(request, f"{one} is not waiting for judgments.")
    else:
        try:
            tasks.simulate_batch.apply_async((one.pk,), queue="default", retry=False)
        except (OperationalError, OSError):
            messages.error(request, "No worker could be told. Start one, then try again.")
        else:
            messages.success(request, "Simulated annotators are judging; watch the count rise.")
    return redirect(f"{one.get_absolute_url()}?stage=annotate")


@project_view(*CAN_RUN)
@require_POST
def give_verdict(request: HttpRequest, project: Project, number: int) -> HttpResponse:
    """Promote the round's policy, or refuse it."""
    one = round_of(project, number)
    verdict, note = request.POST.get("verdict", ""), request.POST.get("note", "")[:2000]
    if one.verdict:
        messages.info(request, f"The policy of {one} is {one.verdict} already.")
        return redirect("round", project.slug, number)
    try:
        acts.give_verdict(one, verdict, note, request.user)  # type: ignore[arg-type]
    except acts.RoundError as error:
        messages.error(request, str(error))
        request.session[f"note-{one.pk}"] = note  # what was typed is kept
        return redirect(f"{one.get_absolute_url()}?stage=verdict")
    request.session.pop(f"note-{one.pk}", None)
    messages.success(request, f"The policy of {one} is {verdict}.")
    return redirect("rounds", project.slug)


@project_view(*CAN_RUN)
@require_POST
def retire_policy(request: HttpRequest, project: Project) -> HttpResponse:
    """Take a promotion back, so that the next round starts from the policy before."""
    asked, note = request.POST.get("model", ""), request.POST.get("note", "")[:2000]
    policy = next((m.row for m in lineage.models(project) if str(m.row.uid) == asked), None)
    if policy is None:
        messages.error(request, "There is no such model in this project.")
        return redirect("models", project.slug)
    try:
        acts.retire_policy(policy, note, request.user)  # type: ignore[arg-type]
    except acts.RoundError as error:
        messages.error(request, str(error))
    else:
        following = acts.start_policy(project)
        messages.success(request, f"{policy} is retired; the next round starts from {following}.")
    return redirect("models", project.slug)


@project_view(*CAN_RUN)
@require_POST
def cancel_round(request: HttpRequest, project: Project, number: int) -> HttpResponse:
    """End a round that is under way."""
    one = round_of(project, number)
    if acts.cancel_round(one, request.user):  # type: ignore[arg-type]
        messages.success(request, f"{one} is cancelled. Its running stage writes its checkpoint.")
    else:
        messages.info(request, f"{one} has ended already.")
    return redirect("round", project.slug, number)


@project_view(*CAN_RUN)
@require_POST
def retry_stage(request: HttpRequest, project: Project, number: int) -> HttpResponse:
    """Go on with a round from the stage where it stopped."""
    one = round_of(project, number)
    if not one.has_ended:
        messages.info(request, f"{one} is going on already.")
        return redirect("round", project.slug, number)
    try:
        job = acts.retry_stage(one, request.user)  # type: ignore[arg-type]
    except acts.RoundError as error:
        messages.error(request, str(error))
    else:
        tasks.wake(job)
        messages.success(request, f"{one} goes on from the stage where it stopped.")
    return redirect("round", project.slug, number)
