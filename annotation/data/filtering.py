"""The filters run over a project's prompts and responses, and what each of them may do there.

A run continues where the last one ended: a filter reads each text once, and again only in a new
version. Its strongest finding in a text is stored as a flag; the text stays as it is. Near-duplicates and
contamination compare all prompts with one another at each run.
"""

import random
import time
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from annotation.data import preferences
from annotation.data.admission import IN_TRAIN_SPLIT, exclusion_of, from_admitted_sources
from annotation.data.filters.finding import Filter, Find, Finding, strongest
from annotation.data.filters.identity import IdentityGap, identity_gap
from annotation.data.filters.language import language
from annotation.data.filters.near_duplicates import duplicates_of, near_duplicates, passages
from annotation.data.filters.table import FILTERS
from annotation.models import (
    Event,
    FilterLabel,
    FilterSetting,
    Flag,
    Project,
    Prompt,
    Response,
    Source,
)

CHUNK = 500
MIN_LABELS = 30
MIN_PRECISION = 0.9
DEFAULT_LANGUAGES = ["en"]
SHARED_PASSAGE = 0.95


class FilterError(ValueError):
    """Why a filter can't be set as asked, as one sentence."""


def setting_of(project: Project, key: str) -> FilterSetting:
    """The filter's setting in the project; one that is not stored yet has the defaults."""
    setting = project.filters.filter(filter=key).first()
    return setting or FilterSetting(
        project=project,
        filter=key,
        threshold=FILTERS[key].threshold,
        languages=DEFAULT_LANGUAGES if key == "language" else [],
    )


def run_filters(
    project: Project, keys: Iterable[str] | None = None, *, seconds: float | None = None
) -> bool:
    """Read what no filter has read yet. Returns False if `seconds` were over before the end.

    Safe to run twice at once: each chunk is read and its position moved in one transaction.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    for key in keys or FILTERS:
        chosen = FILTERS[key]
        stored = setting_of(project, key)
        FilterSetting.objects.get_or_create(
            project=project,
            filter=key,
            defaults={"threshold": stored.threshold, "languages": stored.languages},
        )
        if chosen.find is None:
            _compare_prompts(project, chosen)
        elif not _read_texts(project, chosen, deadline):
            return False
        if deadline is not None and time.monotonic() > deadline:
            return key == list(FILTERS)[-1]
    return True


def _read_texts(project: Project, chosen: Filter, deadline: float | None) -> bool:
    while True:
        with transaction.atomic():
            setting = project.filters.select_for_update().get(filter=chosen.key)
            if setting.version != chosen.version:
                _start_again(setting, chosen.version)
            n = _read_chunk(project, setting, _find_of(chosen, setting))
            setting.ran_at = timezone.now()
            setting.save()
        if n == 0:
            return True
        if deadline is not None and time.monotonic() > deadline:
            return False


def _start_again(setting: FilterSetting, version: int) -> None:
    Flag.objects.filter(project=setting.project_id, filter=setting.filter).delete()
    setting.version = version
    setting.last_prompt = setting.last_response = 0
    setting.n_prompts = setting.n_responses = 0


def _find_of(chosen: Filter, setting: FilterSetting) -> Find:
    if chosen.key == "language":
        return partial(language, expected=tuple(setting.languages or DEFAULT_LANGUAGES))
    assert chosen.find is not None
    return chosen.find


def _read_chunk(project: Project, setting: FilterSetting, find: Find) -> int:
    """Read up to CHUNK prompts, or responses once all prompts are read; how many it were."""
    prompts = list(prompts_of(project).filter(pk__gt=setting.last_prompt).order_by("pk")[:CHUNK])
    if prompts:
        _store(setting, find, ((prompt.pk, None, text_of(prompt)) for prompt in prompts))
        setting.last_prompt = prompts[-1].pk
        setting.n_prompts += len(prompts)
        return len(prompts)
    responses = list(
        responses_of(project).filter(pk__gt=setting.last_response).order_by("pk")[:CHUNK]
    )
    if responses:
        _store(setting, find, ((None, response.pk, response.text) for response in responses))
        setting.last_response = responses[-1].pk
        setting.n_responses += len(responses)
    return len(responses)


def _store(
    setting: FilterSetting, find: Find, texts: Iterator[tuple[int | None, int | None, str]]
) -> None:
    low = FILTERS[setting.filter].low
    flags = []
    for prompt, response, text in texts:
        findings = find(text)
        best = strongest(findings)
        # Below the scale nothing can be moved in; the language of each prompt is kept for the mixture.
        if best is None or best.score < low or (best.score == 0 and prompt is None):
            continue
        flags.append(_flag(setting, best, len(findings), prompt=prompt, response=response))
    Flag.objects.bulk_create(flags)


def _flag(
    setting: FilterSetting,
    finding: Finding,
    n: int = 1,
    *,
    prompt: int | None = None,
    response: int | None = None,
) -> Flag:
    return Flag(
        project_id=setting.project_id,
        filter=setting.filter,
        prompt_id=prompt,
        response_id=response,
        score=finding.score,
        reason=finding.reason[:160],
        start=finding.start,
        end=finding.end,
        n_findings=n,
    )


def _compare_prompts(project: Project, chosen: Filter) -> None:
    """Flags of near-duplicates or contamination, from all prompts of the project."""
    prompts = list(
        prompts_of(project)
        .order_by("pk")
        .only("pk", "messages", "split", "source_id", "uid", "project_id")
    )
    comparing = _near_duplicates if chosen.key == "near_duplicate" else _contaminated
    findings = comparing(prompts, chosen.low)
    with transaction.atomic():
        setting = project.filters.select_for_update().get(filter=chosen.key)
        Flag.objects.filter(project=project, filter=chosen.key).delete()
        Flag.objects.bulk_create(
            [_flag(setting, finding, prompt=pk) for pk, finding in findings.items()],
            batch_size=CHUNK,
        )
        setting.version = chosen.version
        setting.n_prompts, setting.ran_at = len(prompts), timezone.now()
        setting.last_prompt = prompts[-1].pk if prompts else 0
        setting.save()


def _near_duplicates(prompts: list[Prompt], low: float) -> dict[int, Finding]:
    texts = [text_of(prompt) for prompt in prompts]
    findings: dict[int, Finding] = {}
    for first, second, similarity in near_duplicates(texts, low):
        later, earlier = prompts[second], prompts[first]
        where = "in its own source" if later.source_id == earlier.source_id else "in another source"
        reason = f"nearly prompt {earlier.uid.hex[:8]} {where}"
        if later.pk not in findings or findings[later.pk].score < similarity:
            findings[later.pk] = Finding(similarity, reason, 0, len(texts[second]))
    return findings


def _contaminated(prompts: list[Prompt], low: float) -> dict[int, Finding]:
    training = [prompt for prompt in prompts if prompt.split == Prompt.Split.TRAIN]
    tests = [prompt for prompt in prompts if prompt.split != Prompt.Split.TRAIN]
    findings: dict[int, Finding] = {}
    passages_of_tests = {passage for prompt in tests for passage in passages(text_of(prompt))}
    for prompt in training:
        text = text_of(prompt)
        if passages_of_tests & passages(text):
            reason = "shares 13 words in a row with a held-out or watch prompt"
            findings[prompt.pk] = Finding(SHARED_PASSAGE, reason, 0, len(text))
    texts = [text_of(prompt) for prompt in training]
    for place, other, similarity in duplicates_of(texts, [text_of(p) for p in tests], low):
        prompt, test = training[place], tests[other]
        reason = f"nearly prompt {test.uid.hex[:8]}, which is {test.get_split_display()}"
        if prompt.pk not in findings or findings[prompt.pk].score < similarity:
            findings[prompt.pk] = Finding(similarity, reason, 0, len(texts[place]))
    return findings


def prompts_of(project: Project) -> QuerySet[Prompt]:
    return Prompt.objects.filter(project=project).exclude(source__name=Source.GOLD)


def responses_of(project: Project) -> QuerySet[Response]:
    return Response.objects.filter(
        comparison__batch__project=project, comparison__gold__isnull=True
    )


def text_of(target: Prompt | Response) -> str:
    """What the filters read: a response's text, or all turns of a prompt with a blank line between."""
    if isinstance(target, Prompt):
        return "\n\n".join(str(message["content"]) for message in target.messages)
    return target.text


class Calibration(NamedTuple):
    """Precision and recall of a filter on the project's own labels, with Wilson's 95 % intervals."""

    n: int
    n_flagged: int
    precision: float | None
    precision_ci: tuple[float, float] | None
    recall: float | None
    recall_ci: tuple[float, float] | None


def calibration(project: Project, key: str, threshold: float) -> Calibration:
    """Of the labeled texts: which of those with this score or more should be flagged, and vice versa."""
    labels = list(FilterLabel.objects.filter(project=project, filter=key))
    scores = {
        (flag[0], flag[1]): flag[2]
        for flag in Flag.objects.filter(project=project, filter=key)
        .filter(score__gte=threshold)
        .values_list("prompt_id", "response_id", "score")
    }
    flagged = [label for label in labels if (label.prompt_id, label.response_id) in scores]
    hits = sum(label.should_flag for label in flagged)
    positive = sum(label.should_flag for label in labels)
    return Calibration(
        len(labels),
        len(flagged),
        hits / len(flagged) if flagged else None,
        wilson(hits, len(flagged)) if flagged else None,
        hits / positive if positive else None,
        wilson(hits, positive) if positive else None,
    )


def wilson(k: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    z, p = 1.96, k / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5 / (1 + z * z / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def gap_of(setting: FilterSetting) -> IdentityGap | None:
    """The filter's identity gap at the setting's threshold; None where it reads no single text."""
    chosen = FILTERS[setting.filter]
    if chosen.find is None:
        return None
    find = _find_of(chosen, setting)

    def score(text: str) -> float:
        best = strongest(find(text))
        return best.score if best else 0.0

    return identity_gap(score, setting.threshold, chosen.high)


def why_not_exclude(setting: FilterSetting) -> list[str]:
    """What is missing before the filter may exclude rows at this threshold; empty if nothing is."""
    chosen = FILTERS[setting.filter]
    reasons = []
    if not setting.version:
        reasons.append("It has not been run in this project.")
    if not chosen.is_estimate:
        return reasons
    figures = calibration(setting.project, setting.filter, setting.threshold)
    if figures.n_flagged < MIN_LABELS:
        reasons.append(
            f"{figures.n_flagged} of the {MIN_LABELS} labels on texts at or above the threshold are there."
        )
    elif figures.precision is not None and figures.precision < MIN_PRECISION:
        reasons.append(
            f"On this project's labels its precision is {figures.precision:.0%}; "
            f"it takes {MIN_PRECISION:.0%}."
        )
    gap = gap_of(setting)
    if gap is not None and not gap.passes:
        reasons.append(
            f"Its identity gap is {max(gap.flagged, gap.score) * 100:.1f} points, between sentences on "
            f"“{gap.highest}” and “{gap.lowest}”; at most 2 are allowed."
        )
    return reasons


def change_setting(
    project: Project, key: str, *, threshold: float, action: str, languages: list[str], by: Any
) -> FilterSetting:
    """Store a threshold and an action. Raises FilterError where the filter may not exclude yet."""
    chosen = FILTERS[key]
    if not chosen.low <= threshold <= chosen.high:
        raise FilterError(
            f"The threshold of {chosen.name} is between {chosen.low:g} and {chosen.high:g}."
        )
    with transaction.atomic():
        Project.objects.lock(project.pk)
        setting = setting_of(project, key)
        setting.threshold, setting.action = threshold, action
        if languages and languages != setting.languages:
            setting.languages = languages
            if setting.pk:
                _start_again(setting, 0)
        if setting.excludes and (reasons := why_not_exclude(setting)):
            raise FilterError(f"{chosen.name} can't exclude rows yet. {' '.join(reasons)}")
        setting.changed_by, setting.changed_at = by, timezone.now()
        setting.save()
        Event.record(
            project, by, "set a filter", chosen.name, filter=key, threshold=threshold, action=action
        )
    return setting


class Cost(NamedTuple):
    """What a filter flags at a threshold, and what a snapshot would lose by it."""

    prompts: int
    responses: int
    judgments: int


def cost_of(setting: FilterSetting) -> Cost:
    """`judgments` counts those that the other rules of admission let through."""
    project = setting.project
    flags = Flag.objects.filter(
        project=project, filter=setting.filter, score__gte=setting.threshold
    ).order_by()
    admitted_so_far = preferences.judgments_of(project).filter(
        IN_TRAIN_SPLIT, from_admitted_sources(project)
    )
    return Cost(
        flags.filter(prompt__isnull=False).count(),
        flags.filter(response__isnull=False).count(),
        admitted_so_far.filter(exclusion_of(setting).judgments).count(),
    )


def label_text(
    project: Project,
    key: str,
    *,
    prompt: int | None,
    response: int | None,
    should_flag: bool,
    by: Any,
) -> FilterLabel:
    """Store what a person says about one text; a second label replaces the first."""
    target: dict[str, Any]
    if prompt is not None:
        target = {"prompt": prompts_of(project).get(pk=prompt), "response": None}
    else:
        target = {"prompt": None, "response": responses_of(project).get(pk=response or 0)}
    label, _ = FilterLabel.objects.update_or_create(
        project=project,
        filter=key,
        **target,
        defaults={"should_flag": should_flag, "labeled_by": by, "labeled_at": timezone.now()},
    )
    return label


def unflagged(project: Project, key: str, n: int, seed: int) -> list[Prompt]:
    """Up to `n` random prompts in which the filter found nothing: a look at what it misses."""
    flagged = Flag.objects.filter(project=project, filter=key, prompt__isnull=False, score__gt=0)
    pks = list(
        prompts_of(project)
        .exclude(pk__in=flagged.order_by().values("prompt"))
        .values_list("pk", flat=True)
    )
    return list(Prompt.objects.filter(pk__in=random.Random(seed).sample(pks, min(n, len(pks)))))  # noqa: S311
