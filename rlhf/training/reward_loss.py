"""The loss of a batch of rankings."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf.training import reward_math
from rlhf.training.configs import RewardModelConfig
from rlhf.training.reward_data import RankedGroup
from rlhf.training.reward_models.model import RewardModel

BootstrapCounts = dict[int, Tensor]
"""By a group's `id`: the number of times (heads,) that each head's bootstrap sample contains it."""


def bootstrap_counts(
    groups: Sequence[RankedGroup], model: RewardModel, seed: int
) -> BootstrapCounts:
    """The number of times that each head's sample contains each group: 1, or with several heads per
    axis a number drawn from Poisson(1) (Oza & Russell 2001, "Online bagging and boosting").

    Heads on one trunk that were trained on the same rankings would give the same scores. Their
    errors stay correlated, because the trunk is one.
    """
    counts = torch.ones(len(groups), model.n_heads)
    if model.n_heads > 1:
        counts = torch.poisson(counts, generator=torch.Generator().manual_seed(seed))
    return {id(group): counts[i].to(model.device) for i, group in enumerate(groups)}


@dataclass
class PairTable:
    """All pairs of a batch, one per row; texts by their index in the batch."""

    first: list[int]
    second: list[int]
    axes: Tensor
    ties: Tensor
    margins: Tensor
    annotators: list[int]
    weights: Tensor
    """(pairs, heads) weight of each pair in each head's loss; the weights of one ranking's pairs
    sum to the ranking's weight."""

    @classmethod
    def of(
        cls,
        batch: Sequence[RankedGroup],
        counts: BootstrapCounts,
        margin: float,
        device: torch.device,
    ) -> "PairTable":
        """`margin` multiplies the pairs' margins."""
        rows, taken, start = [], [], 0
        for group in batch:
            for judgment in group.judgments:
                weight = judgment.weight / max(len(judgment.pairs), 1)
                for pair in judgment.pairs:
                    better, worse = start + pair.better, start + pair.worse
                    rows.append((better, worse, pair.tie, margin * pair.margin, judgment, weight))
                    taken.append(counts[id(group)])
            start += len(group.texts)
        first, second, ties, margins, judgments, weights = zip(*rows, strict=True)
        return cls(
            list(first),
            list(second),
            torch.tensor([judgment.axis for judgment in judgments], device=device),
            torch.tensor(ties, device=device),
            torch.tensor(margins, device=device),
            [judgment.annotator for judgment in judgments],
            torch.tensor(weights, device=device)[:, None] * torch.stack(taken),
        )


def batch_weight(batch: Sequence[RankedGroup], counts: BootstrapCounts) -> Tensor:
    """The sum of the weights of a batch's rankings for each head (heads,)."""
    weights = [j.weight * counts[id(group)] for group in batch for j in group.judgments if j.pairs]
    return torch.stack(weights).sum(dim=0).clamp(min=1e-9)


def batch_loss(
    model: RewardModel,
    batch: Sequence[RankedGroup],
    scores: Tensor,
    reliability: Tensor,
    config: RewardModelConfig,
    counts: BootstrapCounts,
    total: Tensor,
) -> tuple[Tensor, float, float]:
    """The loss, the number of decided pairs whose preferred response has the higher score, and the
    number of decided pairs. The loss is the mean over rankings of the mean over their pairs.

    All pairs of one ranking count as one element (InstructGPT, section 3.5): as separate elements
    they let the model overfit to the few texts that they share. `scores` is (texts, heads, axes);
    `reliability` (annotators,) multiplies score differences: at 0 an annotator's choices are random
    and give no gradient. `total` (heads,) is what the mean is over, if `batch` is a process's share
    of a larger batch.
    """
    pairs = PairTable.of(batch, counts, config.margin, scores.device)
    a, b = scores[pairs.first, :, pairs.axes], scores[pairs.second, :, pairs.axes]  # (pairs, heads)
    decided = ~pairs.ties
    right = float(((a.mean(dim=1) > b.mean(dim=1)) & decided).sum())
    if config.loss == "plackett_luce":
        losses = _ranking_losses(batch, scores, reliability, counts)
    else:
        # The likelihood depends on differences only, so that reliability can scale the scores.
        scale = reliability[pairs.annotators][:, None]
        middle = (a + b) / 2
        losses = pairs.weights * reward_math.pair_losses(
            middle + scale * (a - middle),
            middle + scale * (b - middle),
            pairs.ties[:, None],
            log_nu=model.log_nu[pairs.axes][:, None] if config.ties == "davidson" else None,
            margin=pairs.margins[:, None] if config.margin else None,
            label_smoothing=config.label_smoothing,
        )
    return (losses.sum(dim=0) / total).mean(), right, float(decided.sum())


def _ranking_losses(
    batch: Sequence[RankedGroup], scores: Tensor, reliability: Tensor, counts: BootstrapCounts
) -> Tensor:
    """The weighted Plackett-Luce loss of each ranking (rankings, heads)."""
    losses, start = [], 0
    for group in batch:
        texts = slice(start, start + len(group.texts))
        for judgment in group.judgments:
            if judgment.pairs:
                by_head = (scores[texts, :, judgment.axis] * reliability[judgment.annotator]).T
                loss = reward_math.plackett_luce_loss(by_head, judgment.ranks)
                losses.append(judgment.weight * counts[id(group)] * loss)
        start += len(group.texts)
    return torch.stack(losses)
