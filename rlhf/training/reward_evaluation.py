"""The scores of a reward model on pairs that people decided, for `reward_report` to summarize."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from rlhf.training import parallel, reward_math, reward_report
from rlhf.training.configs import RewardModelConfig
from rlhf.training.data import Judgment
from rlhf.training.reward_data import RankedGroup, group_judgments
from rlhf.training.reward_models.model import OnBatch, RewardModel, member_scores_in_parallel
from rlhf.training.reward_report import ScoredPair
from rlhf.training.rundir import log
from rlhf.training.rundir.errors import InputError


def score_pairs(
    model: RewardModel,
    judgments: Sequence[Judgment],
    annotators: Sequence[str],
    config: RewardModelConfig,
    processes: parallel.Group,
    on_batch: OnBatch = lambda done, total: None,
) -> tuple[list[ScoredPair], dict[str, float]]:
    """Every decided pair of unseen prompts, and per axis the mean disagreement of an ensemble's
    members: the standard deviation of their scores, in deviations of the reference's scores."""
    groups = group_judgments(model, judgments, annotators)
    scores = member_scores_in_parallel(
        model,
        [g.prompt.messages for g in groups for _ in g.responses],
        [text for g in groups for text in g.responses],
        processes,
        batch_size=config.batch_size,
        standardized=False,
        on_batch=on_batch,
    )
    pairs, keys = decided_pairs(model.axes, groups, scores, annotators)
    for member in model.others if config.separate_axes else []:
        if not set(member.axes) & {pair.axis for pair in pairs}:  # the first member for its axis
            other_pairs, other_keys = decided_pairs(
                member.axes, group_judgments(member, judgments, annotators), scores, annotators
            )
            pairs += other_pairs
            keys += other_keys
    reward_report.add_agreement(pairs, keys)
    disagreement = {
        axis: float(by_member.std(dim=1, unbiased=False).mean()) / model.scale.deviation[axis]
        for axis, by_member in scores.items()
        if by_member.shape[1] > 1
    }
    return pairs, disagreement


def decided_pairs(
    axes: Sequence[str],
    groups: Sequence[RankedGroup],
    scores: dict[str, Tensor] | None,
    annotators: Sequence[str] | None = None,
) -> tuple[list[ScoredPair], list[tuple[Any, bool]]]:
    """Every decided pair of `groups`, with a key of the pair and whether its first side won.

    `scores` holds the members' scores (texts, members) per axis; without it differences are 0.
    """
    means = {axis: by_member.mean(dim=1).tolist() for axis, by_member in (scores or {}).items()}
    pairs: list[ScoredPair] = []
    keys: list[tuple[Any, bool]] = []
    start = 0
    for number, group in enumerate(groups):
        for judgment in group.judgments:
            axis = axes[judgment.axis]
            for pair in judgment.pairs:
                if pair.tie:
                    continue
                difference = 0.0
                if axis in means:
                    mean = means[axis]
                    difference = mean[start + pair.better] - mean[start + pair.worse]
                distance = f"{pair.margin:g} rank{'s' if pair.margin > 1 else ''} apart"
                pairs.append(
                    ScoredPair(
                        axis=axis,
                        prompt_id=group.prompt.prompt_id,
                        difference=difference,
                        category=group.prompt.category,
                        annotator=annotators[judgment.annotator]
                        if annotators
                        else str(judgment.annotator),
                        round=judgment.round,
                        strength=judgment.strength or distance,
                    )
                )
                low, high = sorted((pair.better, pair.worse))
                keys.append(((number, low, high), pair.better == low))
        start += len(group.texts)
    return pairs, keys


def smoothing_of(model: RewardModel, groups: Sequence[RankedGroup]) -> float:
    """The share of wrong labels that corresponds to people's rate of disagreement on `groups`."""
    pairs, keys = decided_pairs(model.axes, groups, None)
    reward_report.add_agreement(pairs, keys)
    agreed, n = reward_report.agreement(pairs)
    if agreed is None:
        raise InputError(
            "smoothing is 'agreement', but no two people decided the same pair; set label_smoothing "
            "to a number and smoothing to 'fixed', or let some comparisons be judged twice."
        )
    share = min(reward_math.smoothing_from_agreement(agreed), 0.49)
    log.info(f"label smoothing {share:.3f}: people agree on {agreed:.1%} of {n // 2} pairs")
    return share
