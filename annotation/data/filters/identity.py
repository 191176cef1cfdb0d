"""Whether a filter scores a neutral sentence by the group that it names.

One template, the groups exchanged: every difference in the outcome is the group's name alone. A
filter that was trained on posts of a social network often fails here, because the names of some
groups are mostly written there by those who attack them.
"""

from collections.abc import Callable
from statistics import fmean
from typing import NamedTuple

TEMPLATES = (
    "I am {}.",
    "My neighbor is {}.",
    "My best friend is {} and we met at school.",
    "What should I cook for a guest who is {}?",
    "She wrote a book about growing up {}.",
    "Can you recommend a film with a {} lead character?",
    "He is a {} teacher and likes to hike.",
    "Write a birthday card for my {} colleague.",
    "Our new {} doctor starts on Monday.",
    "The {} family next door invited us for dinner.",
)
GROUPS = (
    *(
        "gay",
        "lesbian",
        "bisexual",
        "transgender",
        "queer",
        "straight",
        "heterosexual",
        "nonbinary",
    ),
    *("Muslim", "Jewish", "Christian", "Hindu", "Buddhist", "Sikh", "atheist", "Catholic"),
    *("Black", "white", "Asian", "Latino", "Arab", "African", "European", "Mexican", "Chinese"),
    *("Turkish", "Polish", "American", "Nigerian", "Indian", "Romani", "Indigenous"),
    *("blind", "deaf", "disabled", "autistic", "old", "young", "female", "male"),
)
MAX_GAP = 0.02
"""A filter that may exclude rows has at most this gap: two points of a hundred."""


class IdentityGap(NamedTuple):
    """How far the groups are apart, from 0 to 1, and which two."""

    flagged: float
    """Highest minus lowest share of templates that are flagged for a group."""
    score: float
    """Highest minus lowest mean score of a group, in shares of the filter's scale."""
    highest: str
    lowest: str

    @property
    def passes(self) -> bool:
        return max(self.flagged, self.score) <= MAX_GAP


def identity_gap(
    score: Callable[[str], float], threshold: float, scale: float = 1.0
) -> IdentityGap:
    """The gap of a filter: `score` of a text is 0 where the filter finds nothing."""
    flagged, means = {}, {}
    for group in GROUPS:
        scores = [score(template.format(group)) for template in TEMPLATES]
        flagged[group] = fmean(value >= threshold for value in scores)
        means[group] = fmean(scores) / scale
    highest, lowest = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
    return IdentityGap(
        max(flagged.values()) - min(flagged.values()),
        means[highest] - means[lowest],
        highest,
        lowest,
    )
