"""Texts that are nearly the same: MinHash to find candidates, exact Jaccard similarity to decide.

A. Broder, "On the resemblance and containment of documents" (1997). A text is the set of its runs of
five characters. Its signature has 128 minima; texts that share one of 32 bands of four minima are
candidates, so that a pair with similarity .8 is missed in fewer than one of 10⁶ cases, one with .6 in 1.2 %.
Whether a candidate counts is computed from the sets themselves. All numbers follow from the text
alone, by arithmetic of this module: clusters, and with them splits, are the same in every release.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

RUN = 5
PERMUTATIONS, BANDS = 128, 32
THRESHOLD = 0.8
# Groups of candidates up to this size are compared pair by pair, larger ones with their first member.
MAX_GROUP = 50
PASSAGE_WORDS = 13
"""Training text that shares so many words in a row with a test is contaminated: GPT-3 (Brown and
others 2020, appendix C) uses 13-grams."""

_SPACE = re.compile(r"[\W_]+")
_generator = np.random.default_rng(20_010_911)
_FACTORS = _generator.integers(1, 2**63, size=PERMUTATIONS, dtype=np.uint64) * np.uint64(
    2
) + np.uint64(1)
_SUMMANDS = _generator.integers(0, 2**63, size=PERMUTATIONS, dtype=np.uint64)
_POWERS = np.uint64(0x9E3779B97F4A7C15) ** np.arange(RUN, dtype=np.uint64)
_SHIFT = np.uint64(32)


class Pair(NamedTuple):
    """Positions of two texts, the first one smaller, and their Jaccard similarity from 0 to 1."""

    first: int
    second: int
    similarity: float


def normalized(text: str) -> str:
    """Lower case, compatible forms, and one space for everything that is no letter or digit."""
    return _SPACE.sub(" ", unicodedata.normalize("NFKC", text).lower()).strip()


def _mixed(values: Hashes) -> Hashes:
    """The finalizer of splitmix64: neighboring values become unrelated."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def runs(text: str) -> Hashes:
    """Hashes of the text's runs of five characters, sorted, each once; empty for a text without words."""
    letters = normalized(text)
    if not letters:
        return np.empty(0, dtype=np.uint64)
    codes = np.frombuffer(letters.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    codes = codes.astype(np.uint64)
    if len(codes) < RUN:
        codes = np.concatenate([codes, np.zeros(RUN - len(codes), dtype=np.uint64)])
    n = len(codes) - RUN + 1
    hashes = codes[:n] * _POWERS[0]
    for offset in range(1, RUN):
        hashes = hashes + codes[offset : offset + n] * _POWERS[offset]
    return np.unique(_mixed(hashes))


def signature(hashes: Hashes) -> NDArray[np.uint32]:
    """The 128 minima of a set of hashes, by multiply-shift hashing."""
    values = (hashes[:, None] * _FACTORS + _SUMMANDS) >> _SHIFT
    minima: NDArray[np.uint32] = values.min(axis=0).astype(np.uint32)
    return minima


def similarity(first: Hashes, second: Hashes) -> float:
    """Jaccard similarity of two sets of hashes; 0 if one is empty, so empty texts are no duplicates."""
    if not len(first) or not len(second):
        return 0.0
    n_shared = len(np.intersect1d(first, second, assume_unique=True))
    return n_shared / (len(first) + len(second) - n_shared)


def near_duplicates(texts: Sequence[str], threshold: float = THRESHOLD) -> list[Pair]:
    """The pairs of texts with at least this similarity, in order."""
    sets = [runs(text) for text in texts]
    return _pairs(sets, threshold, n_first=0)


def duplicates_of(
    texts: Sequence[str], others: Sequence[str], threshold: float = THRESHOLD
) -> list[Pair]:
    """Pairs of a text and one of `others` with at least this similarity; positions in each sequence."""
    sets = [runs(text) for text in [*others, *texts]]
    n = len(others)
    return sorted(
        Pair(pair.second - n, pair.first, pair.similarity)
        for pair in _pairs(sets, threshold, n_first=n)
    )


def _pairs(sets: list[Hashes], threshold: float, n_first: int) -> list[Pair]:
    """Pairs with at least this similarity; with `n_first`, only those across that position."""
    filled = [i for i, hashes in enumerate(sets) if len(hashes)]
    if len(filled) < 2:
        return []
    signatures = np.stack([signature(sets[i]) for i in filled])
    pairs = []
    for a, b in sorted(candidates_of(signatures)):
        first, second = filled[a], filled[b]
        if n_first and not first < n_first <= second:
            continue
        # The estimate's standard error is at most .045: four of them below can't be similar enough.
        if np.count_nonzero(signatures[a] == signatures[b]) / PERMUTATIONS < threshold - 0.18:
            continue
        exact = similarity(sets[first], sets[second])
        if exact >= threshold:
            pairs.append(Pair(first, second, exact))
    return pairs


def candidates_of(signatures: NDArray[np.uint32]) -> set[tuple[int, int]]:
    """Pairs of rows that share a band."""
    rows = PERMUTATIONS // BANDS
    candidates: set[tuple[int, int]] = set()
    for band in range(BANDS):
        part = np.ascontiguousarray(signatures[:, band * rows : (band + 1) * rows])
        keys = _mixed(part.view(np.uint64)[:, 0]) ^ part.view(np.uint64)[:, 1]
        order = np.argsort(keys, kind="stable")
        same = keys[order][1:] == keys[order][:-1]
        if not same.any():
            continue
        begins = np.flatnonzero(np.concatenate([[True], ~same]))
        ends = np.append(begins[1:], len(order))
        for begin, end in zip(begins[ends - begins > 1], ends[ends - begins > 1], strict=True):
            group = order[begin:end].tolist()
            firsts = group if len(group) <= MAX_GROUP else group[:1]
            for place, a in enumerate(firsts):
                candidates.update((a, b) for b in group[place + 1 :])
    return candidates


def clusters(n: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """For each of `n` positions the lowest position that it is connected to by pairs."""
    parents = list(range(n))

    def root(place: int) -> int:
        while parents[place] != place:
            parents[place] = parents[parents[place]]
            place = parents[place]
        return place

    for first, second in pairs:
        a, b = sorted((root(first), root(second)))
        parents[b] = a
    return [root(place) for place in range(n)]


def passages(text: str) -> set[int]:
    """Hashes of every run of 13 words: what a text shares with another where one contains the other."""
    words = normalized(text).split()
    return {
        hash(tuple(words[start : start + PASSAGE_WORDS]))
        for start in range(len(words) - PASSAGE_WORDS + 1)
    }
