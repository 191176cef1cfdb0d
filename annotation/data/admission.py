"""What may reach training and leave the product: one filter for every snapshot, export and endpoint.

A judgment is admitted if its prompt is in the train split, every source that it rests on is signed off
under a license that allows training, no filter that excludes has flagged its prompt or one of its
responses, and nobody took it, its comparison, its prompt or one of its responses out by hand: by an
exclusion in the data manager, or by a tag that keeps out.
"""

from collections.abc import Collection
from typing import Any, NamedTuple

from django.db.models import Q, QuerySet

from annotation.data.licences import why_not_for_training
from annotation.models import (
    FilterSetting,
    Flag,
    JudgmentQuerySet,
    Project,
    Prompt,
    PromptQuerySet,
    Response,
    Source,
    Tagging,
)

IN_TRAIN_SPLIT = Q(assignment__comparison__prompt__split=Prompt.Split.TRAIN)


def kept_out_sources(project: Project) -> dict[int, str]:
    """Id of every source that is kept out -> why."""
    reasons = {}
    for source in project.sources.only("pk", "project", "licence", "signed_off_at", "name"):
        why = why_kept_out(source, is_commercial=project.is_commercial)
        if why:
            reasons[source.pk] = why
    return reasons


def why_kept_out(source: Source, *, is_commercial: bool) -> str:
    """Why nothing of this source is admitted; "" if it is."""
    if not source.is_signed_off:
        return "not signed off"
    return why_not_for_training(source.licence, is_commercial=is_commercial)


def from_admitted_sources(project: Project) -> Q:
    """Judgments on prompts, and in batches, of sources that are not kept out."""
    kept_out = list(kept_out_sources(project))
    return ~Q(assignment__comparison__prompt__source__in=kept_out) & (
        Q(assignment__comparison__batch__source__isnull=True)
        | ~Q(assignment__comparison__batch__source__in=kept_out)
    )


class Exclusion(NamedTuple):
    """A filter that excludes, with the ids of what it flagged as subqueries."""

    setting: FilterSetting
    prompts: QuerySet[Any, Any]
    comparisons: QuerySet[Any, Any]

    @property
    def judgments(self) -> Q:
        return Q(assignment__comparison__prompt__in=self.prompts) | Q(
            assignment__comparison__in=self.comparisons
        )


def exclusions(project: Project, also: Collection[str] = ()) -> list[Exclusion]:
    """The filters that exclude, and those of the keys in `also`."""
    excluding = Q(action=FilterSetting.Action.EXCLUDE) | Q(filter__in=also)
    settings = project.filters.filter(excluding)
    return [exclusion_of(setting) for setting in settings]


def exclusion_of(setting: FilterSetting) -> Exclusion:
    flags = Flag.objects.filter(
        project=setting.project_id, filter=setting.filter, score__gte=setting.threshold
    ).order_by()
    flagged_responses = flags.filter(response__isnull=False).values("response")
    return Exclusion(
        setting,
        flags.filter(prompt__isnull=False).values("prompt"),
        Response.objects.filter(pk__in=flagged_responses).order_by().values("comparison"),
    )


def not_taken_out(project: Project) -> Q:
    """Judgments that nobody took out by hand, with all that they rest on.

    Excluding a prompt or a response excludes its comparisons as well, so those are asked for.
    """
    prompt = "assignment__comparison__prompt"
    rows = Q(assignment__comparison__exclusion__isnull=True) & Q(**{f"{prompt}__exclusion": None})
    tagged = Tagging.objects.filter(tag__project=project.pk, tag__keeps_out=True)
    if not tagged.exists():
        return rows

    def rows_with(target: str, field: str = "") -> QuerySet[Any, Any]:
        rows: QuerySet[Any, Any] = tagged.filter(**{f"{target}__isnull": False})
        return rows.values(field or target)

    return (
        rows
        & ~Q(pk__in=rows_with("judgment"))
        & ~Q(assignment__comparison__in=rows_with("comparison"))
        & ~Q(**{f"{prompt}__in": rows_with("prompt")})
        & ~Q(assignment__comparison__in=rows_with("response", "response__comparison"))
    )


def not_excluded(project: Project, also: Collection[str] = ()) -> Q:
    """Judgments that no excluding filter has flagged, none of the filters in `also`, and nobody took out

    by hand.
    """
    condition = not_taken_out(project)
    for exclusion in exclusions(project, also):
        condition &= ~exclusion.judgments
    return condition


def admitted(
    project: Project, judgments: JudgmentQuerySet, also: Collection[str] = ()
) -> JudgmentQuerySet:
    """Those of the judgments that training may see and exports may hold.

    `also` names filters that leave out rows in addition to those that exclude in the project.
    """
    return judgments.filter(
        IN_TRAIN_SPLIT, from_admitted_sources(project), not_excluded(project, also)
    )


def admitted_prompts(project: Project, prompts: PromptQuerySet) -> PromptQuerySet:
    """Those of the prompts that come from admitted sources, and that no excluding filter has flagged

    and nobody took out by hand.
    """
    prompts = prompts.in_use().exclude(source__in=list(kept_out_sources(project)))
    for exclusion in exclusions(project):
        prompts = prompts.exclude(pk__in=exclusion.prompts)
    return prompts
