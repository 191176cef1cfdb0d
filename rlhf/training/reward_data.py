"""What a reward model learns from: rankings, grouped by the responses that they are about.

All judgments of the same responses to one prompt are one group, so that its texts are read once.
"""

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from rlhf.training import parallel, reward_math
from rlhf.training.configs import RewardModelConfig
from rlhf.training.data import Judgment, Prompt
from rlhf.training.reward_models.model import RewardModel
from rlhf.training.reward_models.texts import Text
from rlhf.training.rundir.errors import InputError


@dataclass
class Opinion:
    """One judgment of one axis on the responses of a group."""

    axis: int
    """Its place among the model's axes, as `annotator` is the place among the annotators."""
    annotator: int
    pairs: list[reward_math.Pair]
    """Of places among the group's responses."""
    ranks: tuple[int | None, ...]
    """Of the group's responses; None where a response was not ranked."""
    weight: float
    round: str = ""
    strength: str = ""


@dataclass
class Group:
    """The responses to one prompt with all judgments of exactly these: read once for all."""

    prompt: Prompt
    responses: tuple[str, ...]
    opinions: list[Opinion]
    texts: list[Text]
    prior: Tensor | None = None
    """(texts, 3) what a prior finds of them, once `with_prior` has asked it."""


def split(prompt_ids: Sequence[str], config: RewardModelConfig) -> tuple[set[str], set[str]]:
    """Prompt ids for the train-RM and for the test-RM, the same for the same ids and seed.

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
    """`InputError` for a ranking with more responses on one place than can be summed over."""
    for judgment in judgments:
        for axis, ranks in judgment.ranks.items():
            places = Counter(rank for rank in ranks if rank is not None)
            tied = max((n for rank, n in places.items() if rank != max(places)), default=0)
            if tied > reward_math.MOST_TIED:
                raise InputError(
                    f"A ranking for prompt {judgment.prompt.prompt_id} has {tied} responses on one "
                    f"place of {axis}, and plackett_luce takes {reward_math.MOST_TIED}; set loss to "
                    "pairs."
                )


def groups_of(
    model: RewardModel, judgments: Sequence[Judgment], annotators: Sequence[str]
) -> list[Group]:
    """Judgments by what was judged; each group's distinct responses are read once."""
    number = {name: i for i, name in enumerate(annotators)}
    found: dict[tuple[str, tuple[str, ...]], Group] = {}
    for judgment in judgments:
        # The same responses in another order are the same group.
        responses = tuple(sorted(set(judgment.responses)))
        place = {text: i for i, text in enumerate(responses)}
        key = (judgment.prompt.prompt_id, responses)
        if key not in found:
            conversations = [judgment.prompt.messages] * len(responses)
            read = model.tokenize(conversations, responses)
            found[key] = Group(judgment.prompt, responses, [], read)
        for axis, name in enumerate(model.axes):
            ranks = judgment.ranks.get(name)
            if ranks is None:
                continue
            label, strength = judgment.strength.get(name, ("", None))
            pairs = [
                reward_math.Pair(
                    place[judgment.responses[p.better]],
                    place[judgment.responses[p.worse]],
                    p.tie,
                    p.margin if strength is None or p.tie else strength,
                )
                for p in reward_math.pairs_of(ranks, judgment.responses)
            ]
            placed: list[int | None] = [None] * len(responses)
            for text, rank in zip(judgment.responses, ranks, strict=True):
                placed[place[text]] = rank
            found[key].opinions.append(
                Opinion(
                    axis,
                    number[judgment.annotator],
                    pairs,
                    tuple(placed),
                    judgment.weight,
                    judgment.round,
                    label,
                )
            )
    return list(found.values())


def with_prior(
    model: RewardModel,
    groups: Sequence[Group],
    batch_size: int,
    peers: parallel.Group = parallel.Group(),  # noqa: B008 - it never changes
) -> None:
    """Compute the prior's features once per text; these texts say what is usual."""
    if model.prior is None:
        return
    texts = [t for g in groups for t in g.texts]
    mine = model.prior_features(texts[peers.share], batch_size=batch_size)
    assert mine is not None
    features = mine.new_zeros(len(texts), mine.shape[1])
    features[peers.share] = mine
    features = model.features.fit(peers.all_reduce(features))
    start = 0
    for group in groups:
        group.prior = features[start : start + len(group.texts)]
        start += len(group.texts)


def batches_of(groups: list[Group], size: int, generator: random.Random) -> list[list[Group]]:
    """A shuffled order in which the groups of one batch are of similar length."""
    shuffled = generator.sample(groups, len(groups))
    batches = []
    for start in range(0, len(shuffled), 8 * size):
        near = sorted(
            shuffled[start : start + 8 * size],
            key=lambda g: max(len(t.prompt) + len(t.response) for t in g.texts),
        )
        batches += [near[i : i + size] for i in range(0, len(near), size)]
    generator.shuffle(batches)
    return batches


def all_pairs(judgment: Judgment) -> list[reward_math.Pair]:
    """The pairs of one ranking, on all axes."""
    return [
        pair
        for ranks in judgment.ranks.values()
        for pair in reward_math.pairs_of(ranks, judgment.responses)
    ]
