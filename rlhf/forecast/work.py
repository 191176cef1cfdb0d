"""What each stage will do, in units that have a price: tokens read and trained, decoding steps.

The counts are those of the stages' own code (`rlhf/training`), for the prompts that exist and not
for those that were requested.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

STAGES = ("generate", "reward_model", "ppo", "evaluate")
"""The stages of a round that compute, in their order."""


@dataclass(frozen=True)
class Counts:
    """The data that a round will really use."""

    ranking: int
    """Prompts whose responses are ranked."""
    comparisons: int
    """Comparisons that the reward models learn from, those of earlier rounds included."""
    ppo: int
    watch: int
    heldout: int
    axes: int = 2
    has_previous: bool = False
    """Whether the evaluation has a second opponent in addition to the base."""


@dataclass(frozen=True)
class Lengths:
    """Mean tokens of a prompt, the share of tokens after which a response ends, and how a reward model
    reads the two."""

    prompt: float
    stop_rate: float
    shares_prompts: bool = True
    """Whether the reward model reads a prompt once for all responses to it."""

    def response(self, budget: int) -> float:
        """Mean tokens of a response within a budget: geometric, cut off at the budget."""
        rate = min(max(self.stop_rate, 0.0), 1.0)
        if rate < 1e-6:
            return float(budget)
        return (1 - (1 - rate) ** budget) / rate


@dataclass(frozen=True)
class Decode:
    """So many batches of responses that are decoded together, up to `budget` tokens each."""

    batches: float
    rows: int
    budget: int


@dataclass
class Work:
    """A stage's work. Tokens are those of prompt and response together, unless named otherwise."""

    decodes: list[Decode] = field(default_factory=list)
    prefill_tokens: float = 0.0
    """Prompt tokens read before decoding."""
    read_tokens: float = 0.0
    """Read without gradients."""
    train_tokens: float = 0.0
    """Read with gradients, and backwards."""
    updates: float = 0.0
    score_tokens: float = 0.0
    """Read by a reward model's trunk."""
    prior_tokens: float = 0.0
    reward_tokens: float = 0.0
    """Trained on by a reward model."""
    reward_updates: float = 0.0
    loads: float = 0.0
    reward_loads: float = 0.0

    def sample(self, prompts: float, k: int, budget: int, batch_size: int, mean: float) -> None:
        """Add k responses to each of some prompts, whose mean length is `mean`."""
        if prompts <= 0:
            return
        per_batch = max(1, batch_size // k)
        full, rest = divmod(math.ceil(prompts), per_batch)
        if full:
            self.decodes.append(Decode(full, per_batch * k, budget))
        if rest:
            self.decodes.append(Decode(1, rest * k, budget))
        self.prefill_tokens += prompts * mean

    def score(self, responses: float, tokens: float, *, prior: bool) -> None:
        """Add the scoring of some responses of so many tokens each."""
        self.score_tokens += responses * tokens
        self.prior_tokens += responses * tokens * prior


def work_of(stage: str, config: Mapping[str, Any], counts: Counts, lengths: Lengths) -> Work:
    """A stage's work under a round's configuration (`FrozenConfig.sections`)."""
    work = Work()
    _WORK[stage](work, config, counts, lengths)
    return work


def _generate(work: Work, config: Mapping[str, Any], counts: Counts, lengths: Lengths) -> None:
    own = config["generate"]
    k = own.k + own.oversample
    work.loads = 1
    work.sample(counts.ranking, k, own.max_new_tokens, own.batch_size, lengths.prompt)


def _reward_model(work: Work, config: Mapping[str, Any], counts: Counts, lengths: Lengths) -> None:
    own, generate = config["reward_model"], config["generate"]
    response = lengths.response(generate.max_new_tokens)
    text = min(lengths.prompt + response, own.max_length)
    group = generate.k * text
    if lengths.shares_prompts and own.share_prompts:
        group = min(lengths.prompt, own.max_length) + generate.k * response
    models = (own.members if own.ensemble == "models" else 1) * (
        counts.axes if own.separate_axes else 1
    )
    passes = own.members if own.ensemble == "adapters" else 1
    sides = split(counts.comparisons, own.test_share)
    work.reward_tokens = own.epochs * sum(sides) * group * models * passes
    work.reward_updates = models * sum(
        own.epochs * math.ceil(side / own.rankings_per_batch) for side in sides
    )
    # The prior reads each text once for training; both models then score the reference's texts and
    # the other side's.
    texts = sum(sides) * generate.k
    if own.prior:
        work.prior_tokens = texts * text
    reference = min(config["round"].reference_prompts, max(counts.ranking, sum(sides)))
    work.score((2 * reference + texts) * models * passes, text, prior=own.prior)
    work.reward_loads = 2 * models


def split(comparisons: int, test_share: float) -> tuple[int, int]:
    """Comparisons of the train-RM and of the test-RM, as `reward_data.split_prompts` divides them."""
    test = min(max(round(comparisons * test_share), 1), max(comparisons - 1, 0))
    return comparisons - test, test


def _ppo(work: Work, config: Mapping[str, Any], counts: Counts, lengths: Lengths) -> None:
    own, prior = config["ppo"], config["reward_model"].prior
    rollout, optimizer = own.rollout, own.optimizer
    responses = rollout.prompts_per_step * rollout.samples_per_prompt
    text = lengths.prompt + lengths.response(rollout.max_new_tokens)
    for _ in range(own.steps):
        work.sample(
            rollout.prompts_per_step,
            rollout.samples_per_prompt,
            rollout.max_new_tokens,
            rollout.decode_batch_size,
            lengths.prompt,
        )
    work.score(own.steps * responses, text, prior=prior)
    work.read_tokens = own.steps * responses * text
    if own.critic.kind == "model":
        work.read_tokens += own.steps * responses * text
        work.reward_tokens = own.steps * responses * text * optimizer.epochs
    trained = max(0, own.steps - own.critic.warmup_steps)
    work.train_tokens = trained * responses * text * optimizer.epochs
    # While the critic warms up, the policy is read for it and not trained.
    work.read_tokens += (own.steps - trained) * responses * text * optimizer.epochs
    minibatches = max(1, round(responses / optimizer.minibatch_size))
    work.updates = trained * optimizer.epochs * minibatches
    if counts.watch:
        # In the beginning, every `watch_every` steps, and at the end; by both reward models.
        rounds = 2 + math.ceil(own.steps / own.tripwire.watch_every)
        for _ in range(rounds):
            work.sample(
                counts.watch,
                1,
                rollout.max_new_tokens,
                rollout.decode_batch_size,
                lengths.prompt,
            )
        work.score(2 * rounds * counts.watch, text, prior=prior)
    if own.reward.normalize_samples:
        n = own.reward.normalize_samples
        work.sample(n, 1, rollout.max_new_tokens, rollout.decode_batch_size, lengths.prompt)
        work.score(2 * n, text, prior=prior)
    work.loads = 1 if own.lora.rank else 2
    work.reward_loads = 1 + bool(counts.watch)


def _evaluate(work: Work, config: Mapping[str, Any], counts: Counts, lengths: Lengths) -> None:
    own = config["evaluate"]
    for _ in own.temperatures:
        work.sample(
            counts.heldout,
            own.samples_per_prompt,
            own.max_new_tokens,
            own.batch_size,
            lengths.prompt,
        )
    policies = 2 + counts.has_previous
    responses = counts.heldout * own.samples_per_prompt * len(own.temperatures) * policies
    text = lengths.prompt + lengths.response(own.max_new_tokens)
    work.score(responses, text, prior="reward_model" in config and config["reward_model"].prior)
    work.loads = work.reward_loads = 1


_WORK: Mapping[str, Callable[..., None]] = {
    "generate": _generate,
    "reward_model": _reward_model,
    "ppo": _ppo,
    "evaluate": _evaluate,
}
