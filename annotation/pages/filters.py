"""Pages of filters: what each one flags, its threshold with examples on both sides, and labels."""

from typing import Any

from django import forms
from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotation.access import CAN_READ_DATA, CAN_REVIEW, CAN_RUN, project_view, role_of
from annotation.data.filtering import (
    MIN_LABELS,
    Cost,
    FilterError,
    calibration,
    change_setting,
    cost_of,
    gap_of,
    label_text,
    prompts_of,
    responses_of,
    run_filters,
    setting_of,
    text_of,
    unflagged,
    why_not_exclude,
)
from annotation.data.filters.finding import Filter
from annotation.data.filters.personal_data import masked
from annotation.data.filters.table import FILTERS
from annotation.lib.languages import english_only
from annotation.models import FilterLabel, FilterSetting, Flag, Project, Prompt, Response

# A run within the request; a larger project needs several, or the command.
RUN_SECONDS = 10.0
EXAMPLES = 6
FLAGS_A_PAGE = 30
# Of a text, what is shown around the span.
AROUND = 160


class SettingForm(forms.Form):
    """A filter's threshold and action, and the expected languages of the language filter."""

    threshold = forms.FloatField(label="Threshold")
    action = forms.ChoiceField(
        choices=FilterSetting.Action.choices, label="What follows from a flag"
    )
    languages = forms.RegexField(
        regex=r"^[a-z]{2,3}(?:[ ,]+[a-z]{2,3}){0,19}$",
        required=False,
        label="Expected languages",
        help_text="ISO 639 codes, for example: en, de",
        error_messages={"invalid": "Name languages by their codes, for example: en, de."},
    )

    def __init__(self, *args: Any, chosen: Filter, setting: FilterSetting, **kwargs: Any):
        kwargs["initial"] = {
            "threshold": setting.threshold,
            "action": setting.action,
            "languages": ", ".join(setting.languages),
        }
        super().__init__(*args, **kwargs)
        if chosen.key != "language":
            del self.fields["languages"]

    def clean_languages(self) -> list[str]:
        return str(self.cleaned_data["languages"]).replace(",", " ").split()


@english_only
@project_view(*CAN_READ_DATA)
@require_GET
def filters(request: HttpRequest, project: Project) -> HttpResponse:
    """The table of filters, with what each flags and what excluding it would cost."""
    rows = [_filter_row(project, chosen) for chosen in FILTERS.values()]
    ran = [row["setting"].ran_at for row in rows if row["setting"].ran_at]
    n_texts = prompts_of(project).count() + responses_of(project).count()
    n_read = min(
        (
            row["setting"].n_prompts + row["setting"].n_responses
            for row in rows
            if row["filter"].find is not None
        ),
        default=0,
    )
    return render(
        request,
        "annotation/data/filters.html",
        {
            "rows": rows,
            "ran_at": max(ran, default=None),
            "n_texts": n_texts,
            "n_unread": max(0, n_texts - n_read),
            "n_excluded": sum(row["cost"].judgments for row in rows if row["setting"].excludes),
        },
    )


def _filter_row(project: Project, chosen: Filter) -> dict[str, Any]:
    setting = setting_of(project, chosen.key)
    return {
        "filter": chosen,
        "setting": setting,
        "cost": cost_of(setting) if setting.version else Cost(0, 0, 0),
        "own": calibration(project, chosen.key, setting.threshold),
    }


@english_only
@project_view(*CAN_RUN)
@require_POST
def filters_run(request: HttpRequest, project: Project) -> HttpResponse:
    """Read what is new, for as long as a person waits."""
    if run_filters(project, seconds=RUN_SECONDS):
        messages.success(request, "The filters have read all prompts and responses.")
    else:
        messages.warning(
            request,
            "The filters have read a part. Press Run again to continue, or use "
            f"manage.py run_filters {project.slug}.",
        )
    return redirect("filters", project.slug)


def _chosen(key: str) -> Filter:
    if key not in FILTERS:
        raise Http404("There is no such filter.")
    return FILTERS[key]


@english_only
@project_view(*CAN_READ_DATA)
@require_http_methods(["GET", "POST"])
def filter_detail(request: HttpRequest, project: Project, key: str) -> HttpResponse:
    """One filter: the threshold with examples in and out, calibration, and the flagged texts."""
    chosen = _chosen(key)
    setting = setting_of(project, key)
    form = SettingForm(chosen=chosen, setting=setting)
    if request.method == "POST":
        if role_of(request) not in CAN_RUN:
            raise Http404("Only admins set filters.")
        form = SettingForm(request.POST, chosen=chosen, setting=setting)
        if form.is_valid():
            try:
                change_setting(
                    project,
                    key,
                    threshold=form.cleaned_data["threshold"],
                    action=form.cleaned_data["action"],
                    languages=form.cleaned_data.get("languages", []),
                    by=request.user,
                )
            except FilterError as error:
                form.add_error(None, str(error))
            else:
                messages.success(request, f"{chosen.name} is set.")
                return redirect("filter", project.slug, key)
        setting = setting_of(project, key)
    setting.threshold = _threshold(request, chosen, setting)
    template = "annotation/data/filter.html"
    part = f"{template}#effect" if request.htmx else template  # type: ignore[attr-defined]
    return render(
        request,
        part,
        _context(request, project, chosen, setting) | {"form": form},
        status=422 if form.errors else 200,
    )


def _threshold(request: HttpRequest, chosen: Filter, setting: FilterSetting) -> float:
    """The threshold that the slider asks for, held to the filter's scale."""
    try:
        typed = float(request.GET.get("threshold") or request.POST.get("threshold") or "nan")
    except ValueError:
        return setting.threshold
    return min(chosen.high, max(chosen.low, typed)) if typed == typed else setting.threshold


def _context(
    request: HttpRequest, project: Project, chosen: Filter, setting: FilterSetting
) -> dict[str, Any]:
    flags = Flag.objects.filter(project=project, filter=chosen.key).select_related(
        "project", "prompt", "response__comparison__prompt"
    )
    inside = flags.filter(score__gte=setting.threshold).order_by("score", "pk")
    outside = flags.filter(score__lt=setting.threshold, score__gt=0).order_by("-score", "pk")
    page = Paginator(inside.order_by("-score", "pk"), FLAGS_A_PAGE).get_page(
        request.GET.get("page")
    )
    labels = _labels(project, chosen.key)
    just_inside = [_flag_row(flag, chosen, labels) for flag in inside[:EXAMPLES]]
    just_outside = [_flag_row(flag, chosen, labels) for flag in outside[:EXAMPLES]]
    missed = unflagged(
        project, chosen.key, max(0, EXAMPLES - len(just_outside)), seed=setting.pk or 0
    )
    return {
        "filter": chosen,
        "setting": setting,
        "cost": cost_of(setting),
        "n_out": outside.count(),
        "inside": just_inside,
        "outside": just_outside
        + [_text_row(prompt, chosen, labels, project.slug) for prompt in missed],
        "own": calibration(project, chosen.key, setting.threshold),
        "gap": gap_of(setting),
        "missing": why_not_exclude(setting),
        "min_labels": MIN_LABELS,
        "page": page,
        "rows": [_flag_row(flag, chosen, labels) for flag in page],
        "can_label": role_of(request) in CAN_REVIEW and chosen.is_estimate,
        "can_set": role_of(request) in CAN_RUN,
        "histogram": _histogram(flags, chosen, setting.threshold),
    }


def _labels(project: Project, key: str) -> dict[tuple[int | None, int | None], bool]:
    labels = FilterLabel.objects.filter(project=project, filter=key)
    return {
        (prompt, response): should_flag
        for prompt, response, should_flag in labels.values_list(
            "prompt_id", "response_id", "should_flag"
        )
    }


Labels = dict[tuple[int | None, int | None], bool]


def _flag_row(flag: Flag, chosen: Filter, labels: Labels) -> dict[str, Any]:
    target: Prompt | Response | None = flag.prompt or flag.response
    assert target is not None
    text = text_of(target)
    begin, end = max(0, flag.start - AROUND), min(len(text), flag.end + AROUND)
    before, span, after = (
        text[begin : flag.start],
        text[flag.start : flag.end],
        text[flag.end : end],
    )
    if chosen.is_private:
        before, span, after = "", masked(text[begin:end]), ""
    if flag.end - flag.start > 3 * AROUND:
        span, end = span[: 3 * AROUND], flag.start + 3 * AROUND
        after = ""
    return {
        "flag": flag,
        "address": _address(target, flag.project.slug),
        "prompt": flag.prompt_id,
        "response": flag.response_id,
        "before": ("…" if begin else "") + before,
        "span": span,
        "after": after + ("…" if end < len(text) else ""),
        "label": labels.get((flag.prompt_id, flag.response_id)),
        "score": f"{flag.score:,.0f} {chosen.unit}" if chosen.unit else f"{flag.score:.2f}",
    }


def _address(text: Prompt | Response, slug: str) -> str:
    """The page of a prompt, or of the comparison that a response belongs to."""
    if isinstance(text, Prompt):
        return reverse("prompt", args=[slug, text.uid])
    return reverse("comparison", args=[slug, text.comparison_id])


def _text_row(prompt: Prompt, chosen: Filter, labels: Labels, slug: str) -> dict[str, Any]:
    text = text_of(prompt)[: 3 * AROUND]
    return {
        "flag": None,
        "address": _address(prompt, slug),
        "prompt": prompt.pk,
        "response": None,
        "before": masked(text) if chosen.is_private else text,
        "span": "",
        "after": "",
        "label": labels.get((prompt.pk, None)),
        "score": "–",
    }


BARS = 40


def _histogram(flags: QuerySet[Flag], chosen: Filter, threshold: float) -> dict[str, Any]:
    """Bars of the scores along the slider: position and height in per mille, and whether flagged."""
    width = (chosen.high - chosen.low) / BARS or 1.0
    counts = [0] * BARS
    for score in flags.filter(Q(score__gt=0)).order_by().values_list("score", flat=True).iterator():
        counts[min(BARS - 1, max(0, int((score - chosen.low) / width + 1e-9)))] += 1
    highest = max(counts, default=0) or 1
    return {
        "bars": [
            {
                "x": place * 1000 // BARS,
                "height": max(2, n * 100 // highest),
                "in": chosen.low + (place + 1) * width > threshold + 1e-9,
            }
            for place, n in enumerate(counts)
            if n
        ],
        "n": sum(counts),
    }


@english_only
@project_view(*CAN_REVIEW)
@require_POST
def filter_label(request: HttpRequest, project: Project, key: str) -> HttpResponse:
    """Say whether one text should be flagged: the buttons next to each example."""
    chosen = _chosen(key)
    try:
        prompt = int(request.POST.get("prompt") or 0) or None
        response = int(request.POST.get("response") or 0) or None
        should_flag = {"yes": True, "no": False}[request.POST.get("should_flag", "")]
        if (prompt is None) == (response is None):
            raise ValueError
        label_text(
            project, key, prompt=prompt, response=response, should_flag=should_flag, by=request.user
        )
    except (
        ValueError,
        KeyError,
        OverflowError,
        Prompt.DoesNotExist,
        Response.DoesNotExist,
    ) as error:
        raise Http404("There is no such text to label.") from error
    setting = setting_of(project, key)
    setting.threshold = _threshold(request, chosen, setting)
    if request.htmx:  # type: ignore[attr-defined]
        return render(
            request,
            "annotation/data/filter.html#effect",
            _context(request, project, chosen, setting),
        )
    return redirect("filter", project.slug, key)
