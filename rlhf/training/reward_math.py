"""The arithmetic of training on rankings: tensors and plain numbers, no models.

A ranking of K responses is compared pair by pair: probabilities follow Bradley & Terry (1952), with
Davidson's (1970) third outcome for ties. Or it is one observation, a sequence of choices
(`plackett_luce_loss`).
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rlhf.training.data import BELOW


@dataclass(frozen=True)
class Pair:
    """Two responses of one ranking by their positions: `better` was ranked above `worse`."""

    better: int
    worse: int
    tie: bool
    margin: float = 0
    """How many ranks lie between them, or what the annotator's strength stands for; 0: a tie."""


def pairs_of(ranks: Sequence[int | None], texts: Sequence[str]) -> list[Pair]:
    """Every pair that a ranking compares, in a fixed order.

    Unranked responses (None) give no pairs. The responses that a top-k ranking leaves out (`BELOW`)
    lose to all that it ranks, as if one rank below the worst of them, and are not compared with one
    another. Nor are identical texts, which can only tie.
    """
    pairs = []
    last = max((rank for rank in ranks if rank is not None and rank != BELOW), default=0)
    for i, j in itertools.combinations(range(len(ranks)), 2):
        a, b = ranks[i], ranks[j]
        if a is None or b is None or texts[i].strip() == texts[j].strip():
            continue
        if a == b == BELOW:
            continue
        a, b = min(a, last + 1), min(b, last + 1)
        if a == b:
            pairs.append(Pair(i, j, tie=True))
        else:
            better, worse = (i, j) if a < b else (j, i)
            pairs.append(Pair(better, worse, tie=False, margin=abs(a - b)))
    return pairs


def davidson_log_probs(
    first: Tensor, second: Tensor, log_nu: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """log P(first wins), log P(second wins), log P(tie) under Davidson's model.

    p_tie is proportional to nu * exp((first + second) / 2); nu = 0 is Bradley-Terry.
    """
    tie = log_nu + (first + second) / 2
    total = torch.logsumexp(torch.stack([first, second, tie.expand_as(first)]), dim=0)
    return first - total, second - total, tie - total


def pair_losses(
    first: Tensor,
    second: Tensor,
    tie: Tensor,
    *,
    log_nu: Tensor | None,
    margin: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Negative log-likelihood of each pair (P,): `first` was preferred unless `tie`.

    With `log_nu` ties are Davidson's third outcome; with None a tie counts as half a win for each
    side. `margin` (Llama 2, eq. 2) is subtracted from the difference that a preferred response
    must reach. `label_smoothing` is the assumed share of preferences with the wrong label.
    """
    if margin is not None:
        first = first - torch.where(tie, 0.0, margin)
    if log_nu is None:
        win, lose = -F.logsigmoid(first - second), -F.logsigmoid(second - first)
        tied = (win + lose) / 2
    else:
        log_win, log_lose, log_tie = davidson_log_probs(first, second, log_nu)
        win, lose, tied = -log_win, -log_lose, -log_tie
    decided = (1 - label_smoothing) * win + label_smoothing * lose
    return torch.where(tie, tied, decided)


def plackett_luce_loss(scores: Tensor, ranks: Sequence[int | None]) -> Tensor:
    """Negative log-likelihood of one whole ranking, per choice made; `scores` (..., K) to (...).

    The best is chosen among all with probability proportional to exp(score) (Luce 1959, "Individual
    choice behavior"), then the next among those that are left, and so on (Plackett 1975, "The
    analysis of permutations"). A tie says that the order of the tied is not known: the likelihood
    is summed over all their orders, as Allison & Christakis (1994, "Logit models for sets of ranked
    items") do. The order of the last place has no likelihood. Unranked responses (None) are in no
    choice.
    """
    places = [
        [i for i, r in enumerate(ranks) if r == rank]
        for rank in sorted({r for r in ranks if r is not None})
    ]
    total, choices = torch.zeros_like(scores[..., 0]), 0
    for place, tied in enumerate(places[:-1]):
        rest = [i for later in places[place + 1 :] for i in later]
        total = total - _log_prob_before(
            scores[..., tied], torch.logsumexp(scores[..., rest], dim=-1)
        )
        choices += len(tied)
    return total / choices if choices else scores.sum(dim=-1) * 0.0


MOST_TIED = 12
"""The largest number of tied responses, except on the last rank: the sum is over all their
subsets."""


def _log_prob_before(tied: Tensor, rest: Tensor) -> Tensor:
    """log of the probability (...) that all of `tied` (..., M) are chosen before any of the others,
    whose exponentiated scores add up to exp(`rest`), in any order.

    By subsets instead of orders (2^M instead of M!): where the subset S of the tied is left, one of
    them is chosen next, and then the others of S have to come before the rest.
    """
    members = range(tied.shape[-1])
    place: dict[tuple[int, ...], int] = {(): 0}
    before = torch.zeros_like(rest)[..., None]
    for size in range(1, len(members) + 1):
        subsets = list(itertools.combinations(members, size))
        without = [[place[s[:i] + s[i + 1 :]] for i in range(size)] for s in subsets]
        left = tied[..., subsets]
        some = torch.logsumexp(left + before[..., without], dim=-1)
        before = some - torch.logaddexp(torch.logsumexp(left, dim=-1), rest[..., None])
        place = {subset: i for i, subset in enumerate(subsets)}
    return before[..., 0]


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)), for any x."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(max(x, -700.0)) / (1 + math.exp(x))


def smoothing_from_agreement(agreement: float) -> float:
    """The share of wrong labels that corresponds to a rate of agreement between two annotators.

    If each errs independently with probability e, they agree with probability 1 - 2e(1 - e), so
    e = (1 - sqrt(2a - 1)) / 2. Agreement at or below chance gives one half.
    """
    return (1 - math.sqrt(max(2 * agreement - 1, 0.0))) / 2


def expected_calibration_error(
    probabilities: Sequence[float], outcomes: Sequence[float], *, bins: int = 10
) -> tuple[float, list[dict[str, float]]]:
    """ECE over equal-width bins of confidence in [0.5, 1], and the bins themselves.

    Each pair is read from the side the model prefers: confidence max(p, 1 - p), and an outcome of
    1 if that side won, 0 if it lost. Empty bins are left out.
    """
    members: list[list[tuple[float, float]]] = [[] for _ in range(bins)]
    for p, y in zip(probabilities, outcomes, strict=True):
        confident, right = (p, y) if p >= 0.5 else (1 - p, 1 - y)
        members[min(int((confident - 0.5) * 2 * bins), bins - 1)].append((confident, right))
    table, error, n = [], 0.0, max(len(probabilities), 1)
    for inside in members:
        if not inside:
            continue
        p = sum(c for c, _ in inside) / len(inside)
        accuracy = sum(r for _, r in inside) / len(inside)
        error += len(inside) / n * abs(p - accuracy)
        table.append({"p": p, "accuracy": accuracy, "n": len(inside)})
    return error, table


def fit_temperature(
    differences: Sequence[float], *, least: float = 0.05, most: float = 20.0
) -> float:
    """The temperature T that maximizes the likelihood of sigmoid(difference / T).

    `differences` are score differences, positive where the model agreed with the person (Guo et al.
    2017, section 4.2, for two classes). Above 1: the model was overconfident. The likelihood is
    concave in 1/T, so its slope is bisected; if all pairs or no pairs are predicted correctly, T is
    at a bound.
    """

    def slope(inverse: float) -> float:
        # d/db of sum log sigmoid(b d) = sum d * sigmoid(-b d)
        return sum(d / (1 + math.exp(min(inverse * d, 500.0))) for d in differences)

    low, high = 1 / most, 1 / least
    if slope(low) <= 0:
        return most
    if slope(high) >= 0:
        return least
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return 2 / (low + high)


def combine_members(scores: Tensor, how: str, *, penalty: float = 1.0) -> Tensor:
    """One score (B,) from those of an ensemble's members (B, M).

    `mean`; `min`, the most skeptical member (worst-case optimization); or `mean_std`, the mean less
    `penalty` standard deviations of the members (Coste et al. 2023, arXiv 2310.02743, section 4,
    subtract the variance; the deviation has the score's own unit).
    """
    if scores.shape[1] == 1:
        return scores[:, 0]
    if how == "min":
        return scores.amin(dim=1)
    mean = scores.mean(dim=1)
    return mean - penalty * scores.std(dim=1, unbiased=False) if how == "mean_std" else mean


def disagreement(opinions: Tensor) -> float:
    """The disagreement of an ensemble's members on K responses to one prompt.

    `opinions` is (K, members). For each pair of responses the standard deviation between members
    (over n, not n - 1) of the margin between their scores; the mean over pairs. A
    constant that a member adds to every response does not change it; 0 for a single response.
    """
    k = len(opinions)
    if k < 2:
        return 0.0
    first, second = torch.triu_indices(k, k, offset=1)
    margins = opinions[first] - opinions[second]  # (pairs, members)
    return float(margins.std(dim=1, correction=0).mean())


def information(opinions: Tensor) -> float:
    """The information that one judgment of K responses is expected to give about an ensemble's
    members.

    `opinions` is (K, members), in logits: of two responses a member expects the first to win with
    the logistic function of the difference (Bradley & Terry 1952). For each pair the mutual
    information of outcome and member, in nats: the entropy of the mean probability less the mean
    entropy (BALD, Houlsby et al. 2011, arXiv 1112.5745); the mean over pairs. It is 0 if all
    members agree, and also if all are unsure. At most log 2; 0 for one response.
    """
    k = len(opinions)
    if k < 2:
        return 0.0
    first, second = torch.triu_indices(k, k, offset=1)
    wins = torch.sigmoid((opinions[first] - opinions[second]).double())  # (pairs, members)
    return float((_entropy(wins.mean(dim=1)) - _entropy(wins).mean(dim=1)).mean().clamp(min=0))


def _entropy(p: Tensor) -> Tensor:
    """The entropy of a Bernoulli variable with probability p, in nats."""
    return -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p))
