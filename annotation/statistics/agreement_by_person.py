"""How often one person's labels are right, and agree with those of the others, row by row."""

import numpy as np

from annotation.statistics.dawid_skene import DawidSkene, Floats
from annotation.statistics.labels import TIE, Marks, Pairs


def right_by_others(pairs: Pairs | Marks, model: DawidSkene) -> Floats:
    """Per row: the chance that the label is right, by everybody else's labels."""
    likelihood = model.confusion[pairs.person, :, pairs.label]  # (rows, C): chance of saying that
    others = model.truth[pairs.item] / np.maximum(likelihood, 1e-12)
    others /= others.sum(axis=1, keepdims=True)
    chances: Floats = others[np.arange(len(pairs.item)), pairs.label]
    return chances


def _tallies(pairs: Pairs) -> Floats:
    flat = np.bincount(pairs.item * 3 + pairs.label, minlength=len(pairs.items) * 3)
    return flat.reshape(-1, 3).astype(np.float64)


def agreement_with_others(pairs: Pairs) -> tuple[Floats, Floats]:
    """Per row: agreement with the others on that pair, and what chance would give.

    One tied and one not counts a half. Which response of a pair comes first means nothing, so two
    people who decide agree by chance in 1/2; both tying in t1 * t2: together 1/2 + t1 * t2 / 2.
    """
    rows = np.arange(len(pairs.item))
    others = _tallies(pairs)[pairs.item]
    others[rows, pairs.label] -= 1
    n_others = others.sum(axis=1)
    same = others[rows, pairs.label]
    is_tie = pairs.label == TIE
    half = np.where(is_tie, n_others - same, others[:, TIE])
    with np.errstate(invalid="ignore", divide="ignore"):
        agreed = (same + half / 2) / n_others
    n_people = len(pairs.people)
    tie_rate = np.bincount(pairs.person, weights=is_tie, minlength=n_people) / np.maximum(
        np.bincount(pairs.person, minlength=n_people), 1
    )
    per_item = np.bincount(pairs.item, weights=tie_rate[pairs.person], minlength=len(pairs.items))
    own = tie_rate[pairs.person]
    with np.errstate(invalid="ignore", divide="ignore"):
        others_tie = (per_item[pairs.item] - own) / n_others
    chance = 0.5 + own * others_tie / 2
    return np.nan_to_num(agreed), np.nan_to_num(chance)
