"""Prompts that are nearly the same stay together: in one cluster, and in one split, permanently.

A model that is tested on a prompt nearly like one it was trained on is tested on its memory. So a new
prompt that is nearly an earlier one takes that one's split, whatever its own hash or its file says. Texts
whose numbers differ are different questions ("Water plant 12", "What is 3 + 4?") and are not kept together.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from annotation.data.filters.near_duplicates import (
    candidates_of,
    clusters,
    normalized,
    runs,
    signature,
    similarity,
)
from annotation.models import Project, Prompt

SIMILARITY = 0.85
MAX_COMPARED = 20_000
"""With more prompts than this in a project a new one is compared with the latest ones only."""
# Where a new prompt is near prompts of several splits, the first of these wins: it trains nothing.
BY_PRUDENCE = (Prompt.Split.HELDOUT, Prompt.Split.EVAL, Prompt.Split.TRAIN)

_NUMBERS = re.compile(r"\d+")


class Clusters:
    """The clusters of new prompts of a project, found before the prompts are stored."""

    def __init__(self, project: Project, prompts: Sequence[Prompt]) -> None:
        """`prompts` are not stored yet; each gets the split of its cluster."""
        self.prompts = prompts
        self._roots: list[Prompt] = []
        if not prompts:
            return
        earlier = _earlier(project, {prompt.split for prompt in prompts})
        everything = [*earlier, *prompts]
        pairs = _pairs([_text(prompt) for prompt in everything], n_first=len(earlier))
        places = clusters(len(everything), pairs)
        members: dict[int, list[Prompt]] = {}
        for place, prompt in zip(places, everything, strict=True):
            members.setdefault(place, []).append(prompt)
        for place, prompt in list(zip(places, everything, strict=True))[len(earlier) :]:
            self._roots.append(everything[place])
            settled = {other.split for other in members[place] if other.pk}
            splits = settled or {members[place][0].split}
            prompt.split = next(split for split in BY_PRUDENCE if split in splits)

    def store(self) -> None:
        """Note each prompt's cluster, now that all of them have ids."""
        for prompt, root in zip(self.prompts, self._roots, strict=True):
            prompt.cluster = root.cluster or root.pk
        Prompt.objects.bulk_update(self.prompts, ["cluster"], batch_size=500)


def _earlier(project: Project, splits: set[str]) -> list[Prompt]:
    """The latest prompts of the project, oldest first.

    Where all new ones are for one split, those that could be moved out of it: prompts of other splits.
    """
    latest = Prompt.objects.filter(project=project).order_by("-pk")
    if len(splits) == 1:
        latest = latest.exclude(split__in=splits)
    return list(latest.only("pk", "messages", "split", "cluster")[:MAX_COMPARED])[::-1]


def _pairs(texts: list[str], n_first: int) -> list[tuple[int, int]]:
    """Pairs of near-duplicates with equal numbers of which the second one is new."""
    filled = [place for place, text in enumerate(texts) if normalized(text)]
    if len(filled) < 2:
        return []
    signatures = np.stack([_signature(texts[place]) for place in filled])
    pairs = []
    for a, b in sorted(candidates_of(signatures)):
        first, second = filled[a], filled[b]
        if second < n_first or _numbers(texts[first]) != _numbers(texts[second]):
            continue
        if similarity(runs(texts[first]), runs(texts[second])) >= SIMILARITY:
            pairs.append((first, second))
    return pairs


def _numbers(text: str) -> list[str]:
    return _NUMBERS.findall(text)


# An import writes its prompts in many parts, each of which is compared with the same earlier ones.
@lru_cache(maxsize=MAX_COMPARED)
def _signature(text: str) -> NDArray[np.uint32]:
    return signature(runs(text))


def _text(prompt: Prompt) -> str:
    return "\n\n".join(str(message["content"]) for message in prompt.messages)
