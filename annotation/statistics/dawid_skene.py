"""The model of Dawid & Skene (1979, Applied Statistics 28): who says what when which class is true."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class DawidSkene:
    """A fitted model of `n_people` who label `n_items` with one of C classes.

    truth: (items, C), how probable each class is for each item. confusion: (people, C, C), the
    chance that a person says column when row is true. classes: (C,), how common each class is.
    """

    truth: Floats
    confusion: Floats
    classes: Floats
    log_likelihood: float
    steps: int


def dawid_skene(
    items: Sequence[int] | Ints,
    people: Sequence[int] | Ints,
    labels: Sequence[int] | Ints,
    n_classes: int,
    *,
    prior: float = 0.0,
    mirror: bool = False,
    max_steps: int = 300,
    tolerance: float = 1e-6,
) -> DawidSkene:
    """Maximum likelihood by EM, begun at the shares of votes (Dawid & Skene 1979, eq. 2.3 to 3.1).

    items, people, labels: one row per label, numbered from 0. `prior` adds that many right labels
    per class to every person, spread 2 : 1 over right and wrong ones, so that few votes do not make
    somebody infallible; 0 is the published method. `mirror` says that the classes read the same
    backwards (first better / second better), so that which came first cannot matter.
    ValueError without rows.
    """
    item, person, label = (np.asarray(column, dtype=np.int64) for column in (items, people, labels))
    if not len(item):
        raise ValueError("Dawid-Skene needs at least one label.")
    n_items, n_people, c = int(item.max()) + 1, int(person.max()) + 1, n_classes
    truth = np.bincount(item * c + label, minlength=n_items * c).reshape(n_items, c).astype(float)
    if mirror:
        truth += prior * 1e-3  # an item with one opinion is not certain at the start
    truth /= truth.sum(axis=1, keepdims=True)
    pseudo = prior * np.where(np.eye(c, dtype=bool), 2.0, 1.0 / max(c - 1, 1)) / 3.0
    before = -math.inf
    step = 0
    while step < max_steps:
        step += 1
        # M: how common each class is, and what each person says when it is true.
        classes = truth.mean(axis=0)
        where = person * c + label
        counted = np.stack(
            [np.bincount(where, weights=truth[item, j], minlength=n_people * c) for j in range(c)],
            axis=1,
        )
        confusion = counted.reshape(n_people, c, c).transpose(0, 2, 1) + pseudo
        if mirror:
            classes = (classes + classes[::-1]) / 2
            confusion = (confusion + confusion[:, ::-1, ::-1]) / 2
        rows = confusion.sum(axis=2, keepdims=True)
        confusion = np.divide(confusion, rows, out=np.full_like(confusion, 1 / c), where=rows > 0)
        # E: how probable each class is, given what everybody said.
        truth, likelihood = class_probabilities(item, person, label, confusion, classes, n_items)
        if abs(likelihood - before) < tolerance * max(1.0, abs(likelihood)):
            break
        before = likelihood
    return DawidSkene(truth, confusion, classes, likelihood, step)


def class_probabilities(
    item: Ints, person: Ints, label: Ints, confusion: Floats, classes: Floats, n_items: int
) -> tuple[Floats, float]:
    """How probable each class is for each item, and the log likelihood of the labels."""
    logs = np.log(np.maximum(confusion, 1e-300))
    evidence = np.stack(
        [
            np.bincount(item, weights=logs[person, j, label], minlength=n_items)
            for j in range(len(classes))
        ],
        axis=1,
    ) + np.log(np.maximum(classes, 1e-300))
    top = evidence.max(axis=1, keepdims=True)
    shares = np.exp(evidence - top)
    total = shares.sum(axis=1, keepdims=True)
    return shares / total, float((top + np.log(total)).sum())
