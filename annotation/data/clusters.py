"""Prompts that are nearly the same stay together: in one cluster, and in one split, permanently.

A model that is tested on a prompt nearly like one it was trained on is tested on its memory. So a new
prompt that is nearly an earlier one takes that one's split, whatever its own hash or its file says. Texts
whose numbers differ are different questions ("Water plant 12", "What is 3 + 4?") and are not kept together.
"""

import re
from collections.abc import Sequence

import numpy as np
from django.db.models import F
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

Signature = NDArray[np.uint32]
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
        earlier, signatures = _earlier(project, {prompt.split for prompt in prompts})
        signatures += [_signature(prompt) for prompt in prompts]
        everything = [*earlier, *prompts]
        pairs = _pairs(everything, signatures, n_first=len(earlier))
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
        # Most are a cluster of their own, which one statement notes; CASE for each row is slow.
        alone = [prompt.pk for prompt in self.prompts if prompt.cluster == prompt.pk]
        for start in range(0, len(alone), 500):
            part = Prompt.objects.filter(pk__in=alone[start : start + 500])
            part.update(cluster=F("pk"))
        others = [prompt for prompt in self.prompts if prompt.cluster != prompt.pk]
        Prompt.objects.bulk_update(others, ["cluster"], batch_size=500)


def _earlier(project: Project, splits: set[str]) -> tuple[list[Prompt], list[Signature | None]]:
    """The latest prompts of the project with their signatures, oldest first, without their texts.

    Where all new ones are for one split, those that could be moved out of it: prompts of other splits.
    """
    latest = Prompt.objects.filter(project=project).order_by("-pk")
    if len(splits) == 1:
        latest = latest.exclude(split__in=splits)
    latest = latest.only("pk", "messages", "sha256", "split", "cluster")
    prompts, signatures = [], []
    for prompt in latest[:MAX_COMPARED].iterator(500):
        signatures.append(_signature(prompt))
        prompt.messages = []  # 20,000 texts can be long
        prompts.append(prompt)
    return prompts[::-1], signatures[::-1]


def _pairs(
    prompts: list[Prompt], signatures: list[Signature | None], n_first: int
) -> list[tuple[int, int]]:
    """Pairs of near-duplicates with equal numbers of which the second one is new."""
    rows_by_place = {place: row for place, row in enumerate(signatures) if row is not None}
    filled = list(rows_by_place)
    if len(filled) < 2:
        return []
    rows = np.stack(list(rows_by_place.values()))
    candidates = [
        (filled[a], filled[b]) for a, b in sorted(candidates_of(rows)) if filled[b] >= n_first
    ]
    stored = Prompt.objects.in_bulk(
        [prompts[first].pk for first, _ in candidates if first < n_first]
    )
    pairs = []
    for first, second in candidates:
        earlier = _text(stored[prompts[first].pk] if first < n_first else prompts[first])
        other = _text(prompts[second])
        if _NUMBERS.findall(earlier) != _NUMBERS.findall(other):
            continue
        if similarity(runs(earlier), runs(other)) >= SIMILARITY:
            pairs.append((first, second))
    return pairs


# An import writes its prompts in many parts, each of which is compared with the same earlier ones.
_known_signatures: dict[str, Signature | None] = {}


def _signature(prompt: Prompt) -> Signature | None:
    """The signature of a prompt's text; None for a text without words."""
    if prompt.sha256 not in _known_signatures:
        if len(_known_signatures) >= 2 * MAX_COMPARED:
            _known_signatures.clear()
        text = _text(prompt)
        _known_signatures[prompt.sha256] = signature(runs(text)) if normalized(text) else None
    return _known_signatures[prompt.sha256]


def _text(prompt: Prompt) -> str:
    return "\n\n".join(str(message["content"]) for message in prompt.messages)
