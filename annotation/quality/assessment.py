"""How reliable each annotator is and how far people agree: computed from the votes, and cached.

The arithmetic is in annotation/statistics/; annotation/quality/votes.py reads the votes for it.
"""

from dataclasses import dataclass
from itertools import chain
from time import perf_counter
from typing import Any

from django.core.cache import cache

from annotation.data.preferences import annotator_id, preference_rows
from annotation.data.ratings_and_demonstrations import rating_rows
from annotation.lib.days import last_midnight
from annotation.models import Project, User
from annotation.quality.votes import fingerprint_of_votes, votes_of
from annotation.statistics import reliability
from annotation.statistics.agreement import agreement_by_annotator, agreement_in_all
from annotation.statistics.profiles import Profile
from annotation.statistics.reliability import Known, Quality

CACHE_VERSION = 3
"""Part of every cache key: raise it when the cached values have another shape or computation."""

CACHE_SECONDS, RECENT_SECONDS, DAY_SECONDS = 3_600, 300, 24 * 3_600
# Outdated figures are better than a wait: they are shown as outdated and recalculated meanwhile.
ASSESSMENT_SECONDS = 30 * 24 * 3_600
# An assessment that took longer than this to compute is shown outdated while it is recalculated.
SLOW_SECONDS = 1.0


def _key(content: str, subject: object) -> str:
    return f"{content}:{CACHE_VERSION}:{subject}"


def reliability_of(project: Project) -> Quality:
    """`reliability.assess` of the project's votes, cached until any vote changes."""
    key = _key("assessed", fingerprint_of_votes(project))
    quality: Quality | None = cache.get(key)
    if quality is None:
        quality = reliability.assess(*votes_of(project))
        cache.set(key, quality, CACHE_SECONDS)
    return quality


@dataclass(frozen=True)
class OwnAgreement:
    """How far one person agrees with the others, as that person sees it."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    n_pairs: int


def agreement_until_today(project: Project) -> dict[int, OwnAgreement]:
    """By user id, from the votes given before today, computed once a day.

    Gold is no vote: figures that followed each answer would tell an annotator which of their answers
    was one.
    """
    midnight = last_midnight()
    key = _key("agreement-until", f"{project.pk}:{midnight.date()}")
    kept: list[list[Any]] | None = cache.get(key)
    if kept is None:
        profiles = reliability.assess(*votes_of(project, before=midnight)).profiles
        kept = [
            [pk, own.value, own.low, own.high, own.n, profile.n_pairs]
            for pk, profile in profiles.items()
            for own in [profile.agreement]
        ]
        cache.set(key, kept, DAY_SECONDS)
    return {pk: OwnAgreement(*figures) for pk, *figures in kept}


def agreement_of(project: Project) -> tuple[dict[str, Any], dict[str, Any]]:
    """How far annotators agree, by axis and mark, and the same by category; cached until a vote changes."""
    key = _key("agreement", fingerprint_of_votes(project))
    agreement: tuple[dict[str, Any], dict[str, Any]] | None = cache.get(key)
    if agreement is None:
        rows = preference_rows(project, only_trainable=False, adjudicated=False)
        agreement = agreement_in_all(chain(rows, rating_rows(project)))
        cache.set(key, agreement, CACHE_SECONDS)
    return agreement


@dataclass(frozen=True)
class Assessment:
    """All figures that the pages about a project's annotators show."""

    fingerprint: str
    """Of the votes that were assessed (`fingerprint_of_votes`)."""
    known: Known
    agreement: dict[str, Any]
    by_category: dict[str, Any]
    by_annotator: dict[str, Any]
    seconds: float
    """How long the computation took."""

    @property
    def profiles(self) -> dict[Any, Profile]:
        return self.known.profiles

    def agreement_of(self, project: Project, user: User) -> dict[str, Any]:
        """`{axis or mark: figures}`: how far one person agrees with the others."""
        # A person whose judgments partly came from a file has two names in the rows.
        names = [annotator_id(project, user, is_imported=imported) for imported in (False, True)]
        return next((self.by_annotator[name] for name in names if name in self.by_annotator), {})


def assessment_of(project: Project, *, allow_outdated: bool = False) -> tuple[Assessment, bool]:
    """The assessment, and whether it is current.

    `allow_outdated`: where the computation is slow, the last result is good enough if there is one.
    """
    key, fingerprint = _key("assessment", project.pk), fingerprint_of_votes(project)
    last: Assessment | None = cache.get(key)
    if last is not None:
        is_current = last.fingerprint == fingerprint
        if is_current or (allow_outdated and last.seconds > SLOW_SECONDS):
            return last, is_current
    began = perf_counter()
    known = Known.of(reliability_of(project))
    agreement, by_category = agreement_of(project)
    rows = preference_rows(project, only_trainable=False, adjudicated=False)
    by_annotator = agreement_by_annotator(chain(rows, rating_rows(project)))
    seconds = perf_counter() - began
    assessment = Assessment(fingerprint, known, agreement, by_category, by_annotator, seconds)
    cache.set(key, assessment, ASSESSMENT_SECONDS)
    return assessment, True


def claim_recalculation(project: Project) -> bool:
    """Whether the page that asks may start a recalculation: one in five minutes, not each page."""
    return cache.add(_key("recalculation", project.pk), value=True, timeout=RECENT_SECONDS)
