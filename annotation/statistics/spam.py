"""How likely it is that an annotator does not read the responses, with the reasons in words."""

import math
from collections.abc import Sequence

import numpy as np

from annotation.statistics.dawid_skene import Floats
from annotation.statistics.estimates import MIN_VOTES
from annotation.statistics.profiles import Profile

SURE = 0.001


def gettext_noop(text: str) -> str:
    """Marks a text for the catalog. Django's own asks for settings, and arithmetic has none."""
    return text


# The reasons are English, as they are cached; the pages translate them.
AGREES_BY_CHANCE = gettext_noop("Agrees with the others hardly more often than by chance.")
MARKS_BY_CHANCE = gettext_noop("Marks agree with the others hardly more often than by chance.")


PREFERS_FIRST = gettext_noop("Prefers the response shown first, regardless of content.")
PREFERS_LAST = gettext_noop("Prefers the response shown last, regardless of content.")


REPEATS_PLACES = gettext_noop("Gives the same ranks to the same positions repeatedly.")
FOLLOWS_LENGTH = gettext_noop("Length bias: nearly always prefers the longer response.")


FOLLOWS_SHORTNESS = gettext_noop("Length bias: nearly always prefers the shorter response.")
TIES_EVERYTHING = gettext_noop("Ties nearly all responses where others see a difference.")


MARKS_ALIKE = gettext_noop(
    "Gives nearly all responses the same mark where others see a difference."
)
TOO_FAST = gettext_noop("Faster than reading speed.")


def suspicion(
    profile: Profile, skills: Sequence[tuple[Floats, float]]
) -> tuple[float, tuple[str, ...]]:
    """The probability that this person does not read the responses, with the reasons as sentences.

    `skills`: of what they compare and of what they mark, the bootstrap of their skill and what is
    usual here.

    Each kind of evidence is a chance of its own; together they are 1 - the product of what each
    leaves open. The thresholds ask for a habit that is strong *and* sure: people have small biases.
    """
    evidence: list[tuple[float, str]] = []

    def sure(p: float | None) -> bool:
        return p is not None and p < SURE

    for (drawn, usual), reason in zip(skills, (AGREES_BY_CHANCE, MARKS_BY_CHANCE), strict=True):
        if len(drawn) and usual > 0.1 and profile.n_votes >= MIN_VOTES:
            doubt = float(np.mean(drawn < 0.4 * usual))
            if doubt >= 0.25:
                evidence.append((doubt, reason))
    position, length, ties = profile.position, profile.length, profile.ties
    pattern = profile.pattern
    if sure(position.p) and position.share is not None and not 0.25 < position.share < 0.75:
        evidence.append((0.95, PREFERS_FIRST if position.share > 0.5 else PREFERS_LAST))
    # Half-way from what chance gives to always, so that of two it asks for as much as position does.
    elif sure(pattern.p) and (pattern.share or 0) >= (1 + (pattern.expected or 0)) / 2:
        evidence.append((0.95, REPEATS_PLACES))
    if length.p is not None and length.share is not None and length.expected is not None:
        gap = abs(length.share - length.expected)
        strong = sure(length.p) and not 0.1 < length.share < 0.9 and gap > 0.1
        # Longer is often better, so others choose it too; what people never do is to choose it always.
        always = length.n >= 15 and not 0.03 < length.share < 0.97 and gap > 0.08
        if strong or (always and length.p < 0.05):
            evidence.append((0.95, FOLLOWS_LENGTH if length.share > 0.5 else FOLLOWS_SHORTNESS))
    if sure(ties.p) and (ties.share or 0) > 0.9 and (ties.expected or 0) < 0.65:
        evidence.append((0.95, TIES_EVERYTHING))
    constant = profile.constant
    if sure(constant.p) and (constant.share or 0) > 0.9 and (constant.expected or 0) < 0.65:
        evidence.append((0.95, MARKS_ALIKE))
    if profile.speed.is_fast:
        evidence.append((0.9, TOO_FAST))
    left = math.prod(1 - chance for chance, _ in evidence)
    return 1 - left, tuple(reason for _, reason in evidence)
