"""A classifier of texts that is trained within seconds: hashed n-grams and logistic regression.

Runs of three to five characters and words with their neighbors are hashed to 2¹⁸ places (Weinberger
and others 2009, "Feature hashing for large scale multitask learning"); the weights are fitted by
AdaGrad (Duchi and others 2011). Names of groups are read as the same word, so that the classifier
can't learn to score a sentence by the group it names. It is trained on texts that the operator brings
or that the project's people labeled; none comes with the product.
"""

import io
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotation.data.filters.identity import GROUPS

PLACES = 2**18
RUNS = (3, 4, 5)
EPOCHS, BATCH, RATE, PENALTY = 6, 64, 0.5, 1e-6
MIN_EXAMPLES = 40
GROUP = "groupname"
_WORD = re.compile(r"[^\W_]+(?:['’*][^\W_]+)*|[^\w\s]")
_MENTION = re.compile(r"@\w+|https?://\S+|&\w+;|\brt\b", re.I)
_MORE_GROUPS = (
    "gays lesbians bisexuals trans muslims jews jew christians hindus buddhists sikhs atheists catholics "
    "blacks whites asians latinos latina latinas hispanic hispanics arabs africans europeans mexicans "
    "turks turk poles pole americans nigerians indians roma natives native immigrant immigrants refugee "
    "refugees foreigner foreigners woman women man men girl girls boy boys elderly homosexual homosexuals "
    "islam islamic judaism christianity german germans french russian russians ukrainian japanese korean "
    "vietnamese pakistani iranian iraqi syrian somali jewish israeli palestinian colored brown"
)
GROUP_NAMES = frozenset(name.lower() for name in (*GROUPS, *_MORE_GROUPS.split()))
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class TrainingError(ValueError):
    """Why a classifier can't be trained, as one sentence for the person who tried."""


def features(text: str) -> NDArray[np.int64]:
    """The places of the text's n-grams, sorted, each once."""
    words = [
        GROUP if word in GROUP_NAMES else word
        for word in _WORD.findall(_MENTION.sub(" ", text.lower()))
    ]
    if not words:
        return np.empty(0, dtype=np.int64)
    hashes = [zlib.crc32(word.encode("utf-8", "replace")) for word in words]
    by_words = np.array(hashes, dtype=np.uint64)
    pairs = by_words[1:] * np.uint64(31) + by_words[:-1] + np.uint64(7)
    codes = np.frombuffer(
        f" {' '.join(words)} ".encode("utf-32-le", "replace"), dtype=np.uint32
    ).astype(np.uint64)
    parts = [by_words, pairs]
    for length in RUNS:
        n = len(codes) - length + 1
        if n <= 0:
            continue
        rolled = np.full(n, length, dtype=np.uint64)
        for offset in range(length):
            rolled = rolled * np.uint64(1_000_003) + codes[offset : offset + n]
        parts.append(rolled)
    places = (np.concatenate(parts) * _MULTIPLIER) >> np.uint64(64 - 18)
    return np.unique(places.astype(np.int64))


@dataclass
class TextClassifier:
    """Weights of the n-grams; `score` is a probability."""

    weights: NDArray[np.float32]
    bias: float
    slope: float = 1.0
    """Platt scaling, fitted on texts that training did not see: logit = slope · margin + shift."""
    shift: float = 0.0

    def score(self, text: str) -> float:
        return float(self.scores([features(text)])[0])

    def scores(self, rows: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
        return _sigmoid(self.slope * self.margins(rows) + self.shift)

    def margins(self, rows: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
        return np.array(
            [
                self.weights[row].sum() / np.sqrt(len(row)) + self.bias if len(row) else self.bias
                for row in rows
            ],
            dtype=np.float64,
        )

    def as_bytes(self) -> bytes:
        """The classifier as a compressed .npz of plain arrays."""
        used = np.flatnonzero(self.weights)
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            places=used.astype(np.int32),
            weights=self.weights[used].astype(np.float16),
            scalars=np.array([self.bias, self.slope, self.shift]),
        )
        return buffer.getvalue()

    @classmethod
    def of_bytes(cls, stored: bytes) -> "TextClassifier":
        """The classifier that `as_bytes` stored; pickled objects are refused."""
        with np.load(io.BytesIO(stored), allow_pickle=False) as arrays:
            weights = np.zeros(PLACES, dtype=np.float32)
            weights[arrays["places"]] = arrays["weights"].astype(np.float32)
            bias, slope, shift = arrays["scalars"].tolist()
        return cls(weights, bias, slope, shift)


def train(texts: Sequence[str], labels: Sequence[bool], seed: int = 0) -> TextClassifier:
    """Fit a classifier; a fifth of the texts calibrates it. The same texts give the same weights.

    Raises TrainingError where there are too few texts of one kind.
    """
    n_positive = sum(labels)
    if min(n_positive, len(labels) - n_positive) < MIN_EXAMPLES // 2:
        raise TrainingError(
            f"A classifier needs at least {MIN_EXAMPLES // 2} texts of each kind; there are "
            f"{n_positive} positive and {len(labels) - n_positive} negative ones."
        )
    rows = [features(text) for text in texts]
    targets = np.array(labels, dtype=np.float64)
    order = np.random.default_rng(seed).permutation(len(rows))
    is_calibrating = np.arange(len(rows)) % 5 == 4
    fitted, calibrating = order[~is_calibrating], order[is_calibrating]
    classifier = _fit(rows, targets, fitted, seed)
    margins = classifier.margins([rows[i] for i in calibrating])
    classifier.slope, classifier.shift = _platt(margins, targets[calibrating])
    return classifier


def _fit(
    rows: Sequence[NDArray[np.int64]],
    targets: NDArray[np.float64],
    chosen: NDArray[np.int64],
    seed: int,
) -> TextClassifier:
    weights, squares = np.zeros(PLACES), np.full(PLACES, 1e-8)
    bias, bias_square = 0.0, 1e-8
    generator = np.random.default_rng(seed + 1)
    for _ in range(EPOCHS):
        for start in range(0, len(chosen), BATCH):
            if start == 0:
                chosen = generator.permutation(chosen)
            batch = [i for i in chosen[start : start + BATCH] if len(rows[i])]
            if not batch:
                continue
            sizes = np.array([len(rows[i]) for i in batch])
            places = np.concatenate([rows[i] for i in batch])
            owner = np.repeat(np.arange(len(batch)), sizes)
            values = np.repeat(1 / np.sqrt(sizes), sizes)
            margins = np.bincount(owner, weights[places] * values, minlength=len(batch)) + bias
            errors = (_sigmoid(margins) - targets[batch]) / len(batch)
            touched, inverse = np.unique(places, return_inverse=True)
            gradient = np.bincount(inverse, errors[owner] * values, minlength=len(touched))
            gradient += PENALTY * weights[touched]
            squares[touched] += gradient**2
            weights[touched] -= RATE * gradient / np.sqrt(squares[touched])
            bias_square += errors.sum() ** 2
            bias -= RATE * errors.sum() / np.sqrt(bias_square)
    return TextClassifier(weights.astype(np.float32), float(bias))


def _platt(margins: NDArray[np.float64], targets: NDArray[np.float64]) -> tuple[float, float]:
    """Slope and shift of the logistic curve through the held-back margins, by Newton's method.

    Targets are smoothed as in Platt 1999, so that a perfect separation does not end in infinity.
    """
    n_positive, n = targets.sum(), len(targets)
    smooth = np.where(targets > 0, (n_positive + 1) / (n_positive + 2), 1 / (n - n_positive + 2))
    curve = np.column_stack([margins, np.ones(n)])

    def loss(parameters: NDArray[np.float64]) -> float:
        return float((np.logaddexp(0, curve @ parameters) - smooth * (curve @ parameters)).sum())

    parameters = np.array([1.0, 0.0])
    for _ in range(25):
        p = _sigmoid(curve @ parameters)
        gradient = curve.T @ (p - smooth)
        hessian = (curve.T * np.maximum(p * (1 - p), 1e-9)) @ curve + 1e-6 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        # A full step overshoots where the classes are far apart.
        while loss(parameters - step) > loss(parameters) and np.abs(step).max() > 1e-8:
            step /= 2
        parameters = parameters - step
        if np.abs(step).max() < 1e-8:
            break
    slope, shift = parameters.tolist()
    return slope, shift


def _sigmoid(values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(values, -40, 40)))
    return result
