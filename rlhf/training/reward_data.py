"""The training data of a reward model: rankings, grouped by the responses that they rank.

All judgments of the same responses to one prompt are one group, so that each text is processed once.
"""

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from rlhf.training import parallel, reward_math
from rlhf.training.configs import RewardModelConfig
from rlhf.training.data import Judgment, Prompt
from rlhf.training.reward_models.model import RewardModel
from rlhf.training.reward_models.texts import Text
from rlhf.training.rundir.errors import InputError


@dataclass
class AxisJudgment:
    """One judgment of the responses of a group on one axis."""

    axis: int
    """Index among the model's axes."""
    annotator: int
    """Index among the annotators."""
    pairs: list[reward_math.Pair]
    """Pairs of indices among the group's responses."""
    ranks: tuple[int | None, ...]
    """The ranks of the group's responses; None if a response was not ranked."""
    weight: float
    round: str = ""
    strength: str = ""
    n_alike: int = 0
    """The number of omitted pairs, whose responses have the same tokens after truncation."""


@dataclass
class RankedGroup:
    """Responses to one prompt with all judgments of exactly these."""

    prompt: Prompt
    responses: tuple[str, ...]
    judgments: list[AxisJudgment]
    texts: list[Text]
    features: Tensor | None = None
    """(texts, 3) the prior's features of them, once `add_prior_features` has computed them."""

    @property
    def has_pairs(self) -> bool:
        """Whether a judgment compares two of the responses."""
        return any(judgment.pairs for judgment in self.judgments)


def split_prompts(
    prompt_ids: Sequence[str], config: RewardModelConfig
) -> tuple[set[str], set[str]]:
    """Prompt ids for the train-RM and for the test-RM, the same for the same ids and random seed.

    By the order of hashes, so that a prompt tends to stay on its side when others are added.
    """
    if len(prompt_ids) < 2:
        raise InputError(
            "data/preferences.jsonl ranks only one prompt; two reward models need at least two."
        )
    ordered = sorted(
        prompt_ids, key=lambda p: hashlib.sha256(f"{config.seed}:{p}".encode()).digest()
    )
    n_test = min(max(round(len(ordered) * config.test_share), 1), len(ordered) - 1)
    return set(ordered[n_test:]), set(ordered[:n_test])


def check_ties(judgments: Sequence[Judgment]) -> None:
    """`InputError` for a ranking with too many ties on one rank to sum over their orders."""
    for judgment in judgments:
        for axis, ranks in judgment.ranks.items():
            counts = Counter(rank for rank in ranks if rank is not None)
            tied = max((n for rank, n in counts.items() if rank != max(counts)), default=0)
            if tied > reward_math.MOST_TIED:
                raise InputError(
                    f"A ranking for prompt {judgment.prompt.prompt_id} has {tied} responses on one "
                    f"place of {axis}, and plackett_luce takes {reward_math.MOST_TIED}; set loss to "
                    "pairs."
                )


def group_judgments(
    model: RewardModel, judgments: Sequence[Judgment], annotators: Sequence[str]
) -> list[RankedGroup]:
    """Judgments by the responses that they rank; each group's distinct responses are read once."""
    number = {name: i for i, name in enumerate(annotators)}
    groups: dict[tuple[str, tuple[str, ...]], RankedGroup] = {}
    for judgment in judgments:
        # The same responses in another order are the same group.
        responses = tuple(sorted(set(judgment.responses)))
        key = (judgment.prompt.prompt_id, responses)
        if key not in groups:
            texts = model.tokenize([judgment.prompt.messages] * len(responses), responses)
            groups[key] = RankedGroup(judgment.prompt, responses, [], texts)
        groups[key].judgments += [
            _on_axis(judgment, axis, name, groups[key], number[judgment.annotator])
            for axis, name in enumerate(model.axes)
            if judgment.ranks.get(name) is not None
        ]
    return list(groups.values())


def _on_axis(
    judgment: Judgment, axis: int, name: str, group: RankedGroup, annotator: int
) -> AxisJudgment:
    """A judgment on one axis, by indices among a group's distinct responses."""
    index = {text: i for i, text in enumerate(group.responses)}
    level, strength = judgment.strength.get(name, ("", None))
    every_pair = [
        reward_math.Pair(
            index[judgment.responses[p.better]],
            index[judgment.responses[p.worse]],
            p.tie,
            p.margin if strength is None or p.tie else strength,
        )
        for p in reward_math.pairs_of(judgment.ranks[name], judgment.responses)
    ]
    pairs = [p for p in every_pair if group.texts[p.better] != group.texts[p.worse]]
    ranks: list[int | None] = [None] * len(group.responses)
    for text, rank in zip(judgment.responses, judgment.ranks[name], strict=True):
        ranks[index[text]] = rank
    return AxisJudgment(
        axis,
        annotator,
        pairs,
        tuple(ranks),
        judgment.weight,
        judgment.round,
        level,
        len(every_pair) - len(pairs),
    )


def alike_warning(name: str, groups: Sequence[RankedGroup], max_length: int) -> str:
    """A warning if pairs of the train-RM's or test-RM's (`name`) rankings are left out, because
    their responses are the same tokens; else ""."""
    judgments = [judgment for group in groups for judgment in group.judgments]
    alike = sum(judgment.n_alike for judgment in judgments)
    total = alike + sum(len(judgment.pairs) for judgment in judgments)
    if not alike:
        return ""
    return (
        f"{alike} of {total} pairs of the {name}-RM's rankings were left out, because their responses "
        f"are the same in the {max_length} tokens that are read; raise max_length, if the trunk's "
        "context allows it."
    )


def add_prior_features(
    model: RewardModel,
    groups: Sequence[RankedGroup],
    batch_size: int,
    processes: parallel.Group = parallel.Group(),  # noqa: B008 - it never changes
    on_batch: Callable[[int], None] = lambda done: None,
) -> None:
    """Compute the prior's features once per text, and fit their standardization to these texts."""
    if model.prior is None:
        return
    texts = [text for group in groups for text in group.texts]
    share = model.prior_features(texts[processes.share], batch_size=batch_size, on_batch=on_batch)
    assert share is not None
    features = share.new_zeros(len(texts), share.shape[1])
    features[processes.share] = share
    features = model.features.fit(processes.all_reduce(features))
    start = 0
    for group in groups:
        group.features = features[start : start + len(group.texts)]
        start += len(group.texts)


def shuffled_batches(
    groups: Sequence[RankedGroup], config: RewardModelConfig
) -> list[list[RankedGroup]]:
    """The batches of all epochs, shuffled; the groups of one batch are of similar length."""
    generator = random.Random(config.seed)
    size = config.rankings_per_batch
    batches: list[list[RankedGroup]] = []
    for _ in range(config.epochs):
        shuffled = generator.sample(groups, len(groups))
        of_epoch = []
        for start in range(0, len(shuffled), 8 * size):
            sorted_chunk = sorted(
                shuffled[start : start + 8 * size],
                key=lambda g: max(len(t.prompt) + len(t.response) for t in g.texts),
            )
            of_epoch += [sorted_chunk[i : i + size] for i in range(0, len(sorted_chunk), size)]
        generator.shuffle(of_epoch)
        batches += of_epoch
    return batches


def all_pairs(judgment: Judgment) -> list[reward_math.Pair]:
    """The pairs of one ranking, on all axes."""
    return [
        pair
        for ranks in judgment.ranks.values()
        for pair in reward_math.pairs_of(ranks, judgment.responses)
    ]
