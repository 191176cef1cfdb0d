"""Near-duplicates: recall of MinHash against exact similarity, empty texts, clusters, passages."""

import numpy as np
import pytest

from annotation.data.filters import near_duplicates as near

WORDS = [
    "water",
    "plant",
    "light",
    "soil",
    "pot",
    "leaf",
    "root",
    "seed",
    "sun",
    "shade",
    "rain",
    "wind",
    "frost",
    "bee",
    "pest",
    "worm",
    "bulb",
    "stem",
]


def sentence(generator, n=24):
    return [str(word) + str(generator.integers(1000)) for word in generator.choice(WORDS, n)]


def pairs_near(target, n=40):
    """`n` pairs of texts whose exact similarity is near `target`."""
    generator = np.random.default_rng(3)
    pairs = []
    while len(pairs) < n:
        words = sentence(generator)
        other = list(words)
        for place in generator.choice(len(words), generator.integers(1, 8), replace=False):
            other[place] = sentence(generator, 1)[0]
        a, b = " ".join(words), " ".join(other)
        if abs(near.similarity(near.runs(a), near.runs(b)) - target) < 0.03:
            pairs.append((a, b))
    return pairs


@pytest.mark.parametrize("target", [0.7, 0.8, 0.9])
def test_no_pair_above_the_threshold_is_missed(target):
    pairs = pairs_near(target)
    texts = [text for pair in pairs for text in pair]
    found = {(pair.first, pair.second) for pair in near.near_duplicates(texts, target - 0.04)}
    missed = [i for i in range(len(pairs)) if (2 * i, 2 * i + 1) not in found]
    assert missed == []


def test_no_pair_below_the_threshold_is_reported():
    texts = [text for pair in pairs_near(0.7) for text in pair]
    assert near.near_duplicates(texts, 0.8) == []


def test_case_punctuation_and_width_make_no_difference():
    assert near.near_duplicates(["How do I water a fern?", "how do i WATER a ｆｅｒｎ"]) == [
        (0, 1, 1.0)
    ]


def test_empty_texts_are_duplicates_of_nothing():
    assert near.near_duplicates(["", " ", "?!", "", "…"]) == []


def test_short_texts_are_compared_too():
    assert near.near_duplicates(["hi", "Hi!", "yo"]) == [(0, 1, 1.0)]


def test_other_texts_are_compared_across_only():
    pairs = near.duplicates_of(
        ["Name a planet.", "Tell me a joke."], ["tell me a joke", "Tell me a joke!"]
    )
    assert pairs == [(1, 0, 1.0), (1, 1, 1.0)]


def test_a_cluster_has_its_lowest_position_for_a_name():
    assert near.clusters(6, [(1, 4), (4, 5), (2, 3)]) == [0, 1, 2, 2, 1, 1]


def test_signatures_are_the_same_in_every_release():
    first = near.signature(near.runs("How do I water a fern?"))[:3].tolist()
    assert first == [490126792, 19471450, 670821936]


def test_a_text_that_contains_another_shares_a_passage():
    suite = "If three trains leave the station at noon and each of them is faster than the last one"
    assert near.passages("Solve this: " + suite + ", which one arrives first?") & near.passages(
        suite
    )
    assert not near.passages("Water your fern every second day.") & near.passages(suite)
