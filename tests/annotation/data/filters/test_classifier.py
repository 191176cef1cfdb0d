"""The classifier that a project trains: it learns, calibrates, comes back from bytes, and ignores groups."""

import io

import numpy as np
import pytest

from annotation.data.filters import classifier
from annotation.data.filters.identity import identity_gap

RUDE = [
    f"you {a} {b}, get lost {n}"
    for n in range(8)
    for a in ("dull", "daft", "vile")
    for b in ("oaf", "clod")
]
KIND = [
    f"dear {a} {b}, come in {n}"
    for n in range(8)
    for a in ("kind", "wise", "good")
    for b in ("guest", "aunt")
]


def trained():
    return classifier.train(RUDE + KIND, [True] * len(RUDE) + [False] * len(KIND))


def test_it_learns_and_is_the_same_each_time():
    first, second = trained(), trained()
    assert (
        first.score("you vile clod, get lost") > 0.9 > 0.1 > first.score("dear wise aunt, come in")
    )
    assert first.as_bytes() == second.as_bytes()


def test_it_comes_back_from_its_bytes():
    model = trained()
    again = classifier.TextClassifier.of_bytes(model.as_bytes())
    assert again.score("you daft oaf") == pytest.approx(model.score("you daft oaf"), abs=0.01)


def test_pickled_objects_are_refused():
    buffer = io.BytesIO()
    np.savez(buffer, places=np.array([{}], dtype=object), weights=np.ones(1), scalars=np.ones(3))
    with pytest.raises(ValueError, match="allow_pickle"):
        classifier.TextClassifier.of_bytes(buffer.getvalue())


def test_a_group_it_met_in_rude_texts_only_is_not_scored_by_its_name():
    texts = [f"you Muslim {b}, get lost {n}" for n in range(12) for b in ("oaf", "clod")]
    model = classifier.train(texts + KIND, [True] * len(texts) + [False] * len(KIND))
    assert identity_gap(model.score, 0.5).passes


def test_too_few_texts_of_a_kind_are_named():
    with pytest.raises(classifier.TrainingError, match="2 positive and 48 negative"):
        classifier.train(RUDE[:2] + KIND, [True] * 2 + [False] * len(KIND))


def test_an_empty_text_has_a_score():
    assert 0 <= trained().score("") <= 1
