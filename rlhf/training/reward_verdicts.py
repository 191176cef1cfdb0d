"""What a reward model says of pairs that people decided, for `reward_report` to sum up."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from rlhf.training import parallel, reward_math, reward_report
from rlhf.training.configs import RewardModelConfig
from rlhf.training.data import Judgment
from rlhf.training.reward_data import Group, groups_of
from rlhf.training.reward_models.model import RewardModel, member_scores_in_parallel
from rlhf.training.rundir.errors import InputError


def measure(
    model: RewardModel,
    judgments: Sequence[Judgment],
    annotators: Sequence[str],
    config: RewardModelConfig,
    peers: parallel.Group,
) -> tuple[list[reward_report.Verdict], dict[str, float]]:
    """A verdict for every decided pair of unseen prompts, and per axis the mean spread of the
    members of an ensemble (in standard deviations of the reference's scores)."""
    groups = groups_of(model, judgments, annotators)
    said = member_scores_in_parallel(
        model,
        [g.prompt.messages for g in groups for _ in g.responses],
        [text for g in groups for text in g.responses],
        peers,
        batch_size=config.batch_size,
        standardized=False,
    )
    found, keys = verdicts_of(model.axes, groups, said, annotators)
    for other in model.others if config.separate_axes else []:
        if not set(other.axes) & {v.axis for v in found}:  # the first member for its axis
            more, pairs = verdicts_of(
                other.axes, groups_of(other, judgments, annotators), said, annotators
            )
            found += more
            keys += pairs
    reward_report.add_agreement(found, keys)
    spread = {
        axis: float(scores.std(dim=1, unbiased=False).mean()) / model.scale.deviation[axis]
        for axis, scores in said.items()
        if scores.shape[1] > 1
    }
    return found, spread


def verdicts_of(
    axes: Sequence[str],
    groups: Sequence[Group],
    said: dict[str, Tensor] | None,
    annotators: Sequence[str] | None = None,
) -> tuple[list[reward_report.Verdict], list[tuple[Any, bool]]]:
    """Every decided pair of `groups`, with which pair it is and whether its first side won.

    `said` holds the members' scores (texts, members) per axis; without it differences are 0.
    """
    means = {axis: scores.mean(dim=1).tolist() for axis, scores in (said or {}).items()}
    verdicts: list[reward_report.Verdict] = []
    keys: list[tuple[Any, bool]] = []
    start = 0
    for number, group in enumerate(groups):
        for opinion in group.opinions:
            axis = axes[opinion.axis]
            for pair in opinion.pairs:
                if pair.tie:
                    continue
                difference = 0.0
                if axis in means:
                    scores = means[axis]
                    difference = scores[start + pair.better] - scores[start + pair.worse]
                who = str(opinion.annotator)
                apart = f"{pair.margin:g} rank{'s' if pair.margin > 1 else ''} apart"
                verdicts.append(
                    reward_report.Verdict(
                        axis=axis,
                        prompt_id=group.prompt.prompt_id,
                        difference=difference,
                        category=group.prompt.category,
                        annotator=annotators[opinion.annotator] if annotators else who,
                        round=opinion.round,
                        strength=opinion.strength or apart,
                    )
                )
                low, high = sorted((pair.better, pair.worse))
                keys.append(((number, low, high), pair.better == low))
        start += len(group.texts)
    return verdicts, keys


def smoothing_of(model: RewardModel, groups: Sequence[Group]) -> float:
    """The share of wrong labels that explains how often people disagree on `groups`."""
    verdicts, pairs = verdicts_of(model.axes, groups, None)
    reward_report.add_agreement(verdicts, pairs)
    agreed, n = reward_report.agreement(verdicts)
    if agreed is None:
        raise InputError(
            "smoothing is 'agreement', but no two people decided the same pair; set label_smoothing "
            "to a number and smoothing to 'fixed', or let some comparisons be judged twice."
        )
    share = min(reward_math.smoothing_from_agreement(agreed), 0.49)
    print(f"label smoothing {share:.3f}: people agree on {agreed:.1%} of {n // 2} pairs")
    return share
