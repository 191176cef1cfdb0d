"""Reward models from rankings: `python -m rlhf.training.reward_model RUN_DIR`.

Two are trained, on disjoint sets of prompts. PPO climbs the train-RM; the test-RM never trains
anything and watches for the moment when the two part company. Each is measured on the prompts of
the other, so no ranking has to be set aside.
"""

import hashlib
import itertools
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlhf.training import loading, reward_math, scoring
from rlhf.training.configs import RewardModelConfig, load
from rlhf.training.data import Judgment, Prompt, read_judgments, read_texts
from rlhf.training.rundir import (
    CONFIG,
    InputError,
    MetricsWriter,
    Stopped,
    StopRequest,
    run_stage,
    write_progress,
    write_result,
)
from rlhf.training.scorers import RewardModel, Text

FEW_NUMBERS_RATE = 0.3
"""Peak step size of the tie rate and the annotators' reliabilities: logits of a few numbers, each
seen in many rankings, that must arrive within some dozens of steps."""

LEAKAGE = 0.9
"""Held-out accuracy above which people's rankings are suspected to have leaked."""


@dataclass
class Opinion:
    """One judgment of one axis on the responses of a group."""

    axis: int
    annotator: int
    pairs: list[reward_math.Pair]
    ranks: tuple[int | None, ...]
    weight: float


@dataclass
class Group:
    """The responses to one prompt with all judgments of exactly these: read once for all."""

    prompt: Prompt
    responses: tuple[str, ...]
    opinions: list[Opinion]
    texts: list[Text]
    prior: Tensor | None = None


def main(run_dir: Path, stop: StopRequest) -> None:
    began = time.monotonic()

    # 1. Configuration and data.
    config = load(RewardModelConfig, run_dir / CONFIG)
    judgments = read_judgments(run_dir, config.axes)
    reference = read_texts(run_dir, "reference")
    device = loading.choose_device(config.device)
    loading.be_deterministic(config.seed, config.threads)
    warnings: list[str] = []

    # 2. Split by prompt, never by pair: both sides of a ranking share their texts.
    train_ids, test_ids = split(sorted({j.prompt.prompt_id for j in judgments}), config)
    halves = {
        "train": [j for j in judgments if j.prompt.prompt_id in train_ids],
        "test": [j for j in judgments if j.prompt.prompt_id in test_ids],
    }

    # 3. One reward model on each side, measured on the other side.
    annotators = sorted({j.annotator for j in judgments})
    total = sum(config.epochs * -(-len(h) // config.rankings_per_batch) for h in halves.values())
    run = Run(run_dir, config, stop, total)
    result: dict[str, Any] = {}
    for name, other in (("train", "test"), ("test", "train")):
        model = RewardModel.new(
            config.trunk,
            config.axes,
            use_prior=config.prior,
            max_length=config.max_length,
            device=device,
        )
        if config.share_prompts and not model.share_prompts() and name == "train":
            print("This trunk reads every response with its own copy of the prompt.")
        mine = groups_of(model, halves[name], annotators)
        theirs = groups_of(model, halves[other], annotators)
        if not any(o.pairs for g in mine for o in g.opinions):
            raise InputError(
                f"No ranking for the {name}-RM prefers one response to another; rank more "
                "responses, or check that the axes in the file are "
                + " and ".join(config.axes)
                + "."
            )
        with_prior(model, mine, theirs, config.batch_size)
        reliability = train(model, mine, len(annotators), name, run)

        # 4. Scores with a meaning: 0 is the reference policy's mean, 1 its standard deviation.
        raw = model.score(
            [p.messages for p, _ in reference],
            [text for _, text in reference],
            batch_size=config.batch_size,
            standardised=False,
        )
        if not all(bool(torch.isfinite(s).all()) for s in raw.values()):
            raise InputError(f"The {name}-RM diverged to NaN; lower learning_rate.")
        model.standardise(raw, [p.risk for p, _ in reference])
        for axis, scores in raw.items():
            if len(scores) > 1 and float(scores.std()) < 1e-3:
                warnings.append(
                    f"The {name}-RM gives all reference texts nearly the same {axis} score."
                )

        # 5. How right it is on prompts that it has not seen.
        measured, calibration = measure(model, theirs, config)
        for axis, figures in measured.items():
            if figures["n"] < 30:
                warnings.append(
                    f"Only {figures['n']} held-out pairs measure the {name}-RM's {axis}."
                )
            elif figures["accuracy"] > LEAKAGE:
                warnings.append(
                    f"The {name}-RM is right on {figures['accuracy']:.0%} of held-out {axis} "
                    "pairs, more than people usually agree: check that no prompt is there twice."
                )
        doubtful = [a for a, r in zip(annotators, reliability, strict=True) if r < 0.3]
        if name == "train" and doubtful:
            warnings.append(
                "The rankings of " + ", ".join(doubtful) + " hardly agree with the others'."
            )
        result[name] = measured
        if name == "train":
            result["calibration"] = calibration
        model.save(run_dir / name)

    # 6. The report.
    run.close()
    everything = [p for j in judgments for p in _all_pairs(j)]
    result |= {
        "n_judgments": len(judgments),
        "n_prompts": len(train_ids) + len(test_ids),
        "n_pairs": len(everything),
        "warnings": warnings,
        "seconds": time.monotonic() - began,
    }
    write_result(run_dir, result)


class Run:
    """What the training loop shares over both models: metrics, progress, the wish to stop."""

    def __init__(
        self, run_dir: Path, config: RewardModelConfig, stop: StopRequest, total: int
    ) -> None:
        self.run_dir, self.config, self.stop, self.total = run_dir, config, stop, total
        self.metrics = MetricsWriter(run_dir)
        self.began = time.monotonic()
        self.step = 0

    def told(self, name: str, **metrics: float) -> None:
        self.step += 1
        self.metrics.write(self.step, **{f"{name}_{k}": v for k, v in metrics.items()})
        if self.step % 5 == 0 or self.step == self.total:
            seconds = (time.monotonic() - self.began) / self.step
            write_progress(
                self.run_dir,
                done=self.step,
                total=max(self.total, self.step),
                unit="updates",
                note=f"{name}-RM",
                eta_seconds=seconds * max(self.total - self.step, 0),
            )
        if self.stop.requested:  # minutes at most, so it begins again instead of resuming
            raise Stopped

    def close(self) -> None:
        self.metrics.close()


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
            read = model.read_all(conversations, responses)
            found[key] = Group(judgment.prompt, responses, [], read)
        for axis, name in enumerate(model.axes):
            ranks = judgment.ranks.get(name)
            if ranks is None:
                continue
            pairs = [
                reward_math.Pair(
                    place[judgment.responses[p.better]],
                    place[judgment.responses[p.worse]],
                    p.tie,
                    p.margin,
                )
                for p in reward_math.pairs_of(ranks, judgment.responses)
            ]
            placed: list[int | None] = [None] * len(responses)
            for text, rank in zip(judgment.responses, ranks, strict=True):
                placed[place[text]] = rank
            found[key].opinions.append(
                Opinion(axis, number[judgment.annotator], pairs, tuple(placed), judgment.weight)
            )
    return list(found.values())


def with_prior(
    model: RewardModel, mine: Sequence[Group], theirs: Sequence[Group], batch_size: int
) -> None:
    """Compute the prior's features once per text; only the model's own texts say what is usual."""
    for groups in (mine, theirs):
        features = model.prior_features([t for g in groups for t in g.texts], batch_size=batch_size)
        if features is None:
            return
        if groups is mine:
            features = model.fit_features(features)
        start = 0
        for group in groups:
            group.prior = features[start : start + len(group.texts)]
            start += len(group.texts)


def train(
    model: RewardModel, groups: list[Group], n_annotators: int, name: str, run: Run
) -> list[float]:
    """Fit a reward model to the opinions of `groups`; returns each annotator's reliability."""
    config = run.config
    groups = [g for g in groups if any(o.pairs for o in g.opinions)]
    generator = random.Random(config.seed)
    steps = config.epochs * -(-len(groups) // config.rankings_per_batch)
    warmup = min(config.warmup_steps, steps // 4)
    log_reliability = nn.Parameter(torch.zeros(n_annotators, device=model.device))
    optimizer = torch.optim.AdamW(
        [
            {"params": list(model.trunk.parameters()), "peak": config.learning_rate},
            {"params": [*model.heads.parameters()], "peak": config.head_learning_rate},
            {"params": [model.log_nu, log_reliability], "peak": FEW_NUMBERS_RATE},
        ],
        weight_decay=config.weight_decay,
        fused=True,
    )
    model.trunk.train()
    step = 0
    for _ in range(config.epochs):
        for batch in _batches(groups, config.rankings_per_batch, generator):
            for group in optimizer.param_groups:
                group["lr"] = loading.learning_rate_at(
                    step, peak=group["peak"], warmup=warmup, total=steps, floor=0.0
                )
            # One forward pass per response, whatever the number of pairs it is in.
            texts = [t for g in batch for t in g.texts]
            priors = [g.prior for g in batch if g.prior is not None]
            scores = model.raw_scores(texts, torch.cat(priors) if priors else None)
            reliability = (
                torch.sigmoid(log_reliability) * 2
                if config.reliability
                else torch.ones_like(log_reliability)
            )
            loss, accuracy = batch_loss(model, batch, scores, reliability, config)
            loss = loss + config.centring * (scores**2).mean()
            if config.reliability:  # without rankings that say otherwise, everyone counts as 1
                loss = loss + 1e-3 * (log_reliability**2).sum()
            optimizer.zero_grad()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(
                model.parameters(), config.max_grad_norm or float("inf")
            )
            shown = float(loss.detach())
            if loading.is_finite(shown, float(norm)):
                optimizer.step()
            step += 1
            run.told(name, loss=shown, accuracy=accuracy, grad_norm=float(norm))
    model.trunk.eval()
    for parameter in model.parameters():
        parameter.requires_grad = False
    return (torch.sigmoid(log_reliability) * 2).tolist()


def batch_loss(
    model: RewardModel,
    batch: Sequence[Group],
    scores: Tensor,
    reliability: Tensor,
    config: RewardModelConfig,
) -> tuple[Tensor, float]:
    """Mean over opinions of the mean over their pairs, and the accuracy on decided pairs.

    All pairs of one ranking count as one element (InstructGPT, section 3.5): as elements of their
    own they let the model overfit to the few texts that they share. `scores` is (texts, axes);
    `reliability` (annotators,) multiplies score differences: at 0 an annotator's choices are
    coin flips, from which nothing is to be learnt.
    """
    start = 0
    first: list[int] = []
    second: list[int] = []
    axis: list[int] = []
    tie: list[bool] = []
    margin: list[float] = []
    who: list[int] = []
    weight: list[float] = []
    listwise: list[Tensor] = []
    total = 0.0
    for group in batch:
        for opinion in group.opinions:
            if not opinion.pairs:
                continue
            total += opinion.weight
            if config.loss == "plackett_luce":
                mine = scores[start : start + len(group.texts), opinion.axis]
                loss = reward_math.plackett_luce_loss(
                    mine * reliability[opinion.annotator], opinion.ranks
                )
                listwise.append(opinion.weight * loss)
            for pair in opinion.pairs:
                first.append(start + pair.better)
                second.append(start + pair.worse)
                axis.append(opinion.axis)
                tie.append(pair.tie)
                margin.append(config.margin * pair.margin)
                who.append(opinion.annotator)
                weight.append(opinion.weight / len(opinion.pairs))
        start += len(group.texts)
    axes = torch.tensor(axis, device=scores.device)
    ties = torch.tensor(tie, device=scores.device)
    a, b = scores[first, axes], scores[second, axes]
    decided = ~ties
    accuracy = float(((a > b) & decided).sum() / decided.sum().clamp(min=1))
    if config.loss == "plackett_luce":
        return torch.stack(listwise).sum() / max(total, 1e-9), accuracy
    # Only differences matter to the likelihood, so reliability may scale the scores themselves.
    by = reliability[who]
    middle = (a + b) / 2
    losses = reward_math.pair_losses(
        middle + by * (a - middle),
        middle + by * (b - middle),
        ties,
        log_nu=model.log_nu[axes] if config.ties == "davidson" else None,
        margin=torch.tensor(margin, device=scores.device) if config.margin else None,
        label_smoothing=config.label_smoothing,
    )
    weights = torch.tensor(weight, device=scores.device)
    return (losses * weights).sum() / max(total, 1e-9), accuracy


def measure(
    model: RewardModel, groups: Sequence[Group], config: RewardModelConfig
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Per axis: accuracy on the decided pairs of unseen prompts, its interval, ECE, agreement."""
    rights: dict[int, list[float]] = defaultdict(list)
    prompts: dict[int, list[str]] = defaultdict(list)
    probabilities: dict[int, list[float]] = defaultdict(list)
    agreed: dict[int, list[float]] = defaultdict(list)
    texts = [t for g in groups for t in g.texts]
    features = [g.prior for g in groups if g.prior is not None]
    prior = torch.cat(features) if features else None
    scores = torch.zeros(len(texts), len(model.axes))
    with torch.no_grad():
        for start in range(0, len(texts), config.batch_size):
            part = slice(start, start + config.batch_size)
            chosen = None if prior is None else prior[part]
            scores[part] = model.raw_scores(texts[part], chosen).cpu()
    start = 0
    for group in groups:
        said: dict[tuple[int, int, int], list[tuple[int, bool]]] = defaultdict(list)
        for opinion in group.opinions:
            for pair in opinion.pairs:
                if pair.tie:
                    continue
                difference = float(
                    scores[start + pair.better, opinion.axis]
                    - scores[start + pair.worse, opinion.axis]
                )
                rights[opinion.axis].append(0.5 if difference == 0 else float(difference > 0))
                prompts[opinion.axis].append(group.prompt.prompt_id)
                probabilities[opinion.axis].append(float(torch.sigmoid(torch.tensor(difference))))
                low, high = sorted((pair.better, pair.worse))
                said[opinion.axis, low, high].append((opinion.annotator, pair.better == low))
        for (axis, _, _), votes in said.items():
            for (who, one), (whom, other) in itertools.combinations(votes, 2):
                if who != whom:
                    agreed[axis].append(float(one == other))
        start += len(group.texts)
    figures: dict[str, Any] = {}
    calibration: dict[str, Any] = {}
    for i, name in enumerate(model.axes):
        n = len(rights[i])
        if n == 0:
            figures[name] = dict.fromkeys(("accuracy", "accuracy_ci", "ece", "human_agreement"))
            figures[name] |= {"n": 0}
            calibration[name] = []
            continue
        accuracy, interval, _ = scoring.mean_with_interval(rights[i], prompts[i], seed=config.seed)
        error, bins = reward_math.expected_calibration_error(probabilities[i], [1.0] * n)
        figures[name] = {
            "accuracy": accuracy,
            "accuracy_ci": list(interval),
            "ece": error,
            "n": n,
            "human_agreement": sum(agreed[i]) / len(agreed[i]) if agreed[i] else None,
        }
        calibration[name] = bins
    return figures, calibration


def _all_pairs(judgment: Judgment) -> list[reward_math.Pair]:
    return [
        pair
        for ranks in judgment.ranks.values()
        for pair in reward_math.pairs_of(ranks, judgment.responses)
    ]


def _batches(groups: list[Group], size: int, generator: random.Random) -> list[list[Group]]:
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


if __name__ == "__main__":
    run_stage(main)
