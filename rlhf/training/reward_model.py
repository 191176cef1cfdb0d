"""Reward models from rankings: `python -m rlhf.training.reward_model RUN_DIR`.

Two are trained, on disjoint sets of prompts. PPO climbs the train-RM; the test-RM never trains
anything and watches for the moment when the two part company. Each is measured on the prompts of
the other, so no ranking has to be set aside.
"""

import dataclasses
import functools
import math
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlhf.training import parallel, reward_math, reward_report
from rlhf.training.configs import RewardModelConfig
from rlhf.training.data import read_judgments, read_texts
from rlhf.training.language_models import devices, pretrained
from rlhf.training.reward_checkpoint import LeftOff, learnt, put
from rlhf.training.reward_data import (
    Group,
    all_pairs,
    batches_of,
    check_ties,
    groups_of,
    split,
    with_prior,
)
from rlhf.training.reward_models.folder import save_reward_model
from rlhf.training.reward_models.model import RewardModel, member_scores_in_parallel
from rlhf.training.reward_verdicts import measure, smoothing_of
from rlhf.training.rundir import CONFIG
from rlhf.training.rundir.checkpoints import find_checkpoint, save_checkpoint
from rlhf.training.rundir.errors import InputError, Stopped
from rlhf.training.rundir.files import replace_folder
from rlhf.training.rundir.process import StopRequest, run_stage
from rlhf.training.rundir.reports import MetricsWriter, write_progress, write_result
from rlhf.training.schedule import learning_rate_at
from rlhf.training.settings import load

FEW_NUMBERS_RATE = 0.3
"""Peak step size of the tie rate and the annotators' reliabilities: logits of a few numbers, each
seen in many rankings, that must arrive within some dozens of steps."""

MAX_SKIPPED_IN_A_ROW = 20
"""Updates that are not finite, after which the run is given up."""


def main(run_dir: Path, stop: StopRequest) -> None:
    began = time.monotonic()

    # 1. Configuration and data.
    config = load(RewardModelConfig, run_dir / CONFIG)
    judgments = read_judgments(run_dir, config.axes)
    if config.loss == "plackett_luce":
        check_ties(judgments)
    reference = read_texts(run_dir, "reference")
    device = devices.choose_device(config.device)
    devices.be_deterministic(config.seed, config.threads)
    peers = parallel.init_process_group(device, sharded=config.sharded)
    warnings: list[str] = []

    # 2. Split by prompt, never by pair: both sides of a ranking share their texts.
    train_ids, test_ids = split(sorted({j.prompt.prompt_id for j in judgments}), config)
    halves = {
        "train": [j for j in judgments if j.prompt.prompt_id in train_ids],
        "test": [j for j in judgments if j.prompt.prompt_id in test_ids],
    }

    # 3. One reward model on each side, measured on the other side.
    annotators = sorted({j.annotator for j in judgments})
    people = not all(name.startswith(reward_report.SIMULATED) for name in annotators)
    plans = plans_of(config)
    total = sum(
        len(plans) * config.epochs * -(-len(h) // config.rankings_per_batch)
        for h in halves.values()
    )
    run = Run(run_dir, config, stop, total, peers)
    result: dict[str, Any] = {}
    for name, other in (("train", "test"), ("test", "train")):
        members: list[RewardModel] = []
        reliability: list[float] = []
        first = len(run.trained)
        for axes, seed in plans:
            member = new_member(config, axes, seed, device, members, name)
            mine = groups_of(member, halves[name], annotators)
            if not any(o.pairs for g in mine for o in g.opinions):
                raise InputError(
                    f"No ranking for the {name}-RM prefers one response to another; rank more "
                    "responses, or check that the axes in the file are " + " and ".join(axes) + "."
                )
            with_prior(member, mine, config.batch_size, peers)
            mine_config = dataclasses.replace(config, stored=True, seed=seed)
            if config.smoothing == "agreement":
                share = smoothing_of(member, mine)
                mine_config = dataclasses.replace(
                    mine_config, stored=True, smoothing="fixed", label_smoothing=share
                )
                run.note[f"{name}_label_smoothing"] = share
            reliability = train(member, mine, len(annotators), name, run, mine_config)
            members.append(member)
        model = members[0]
        model.others = members[1:]
        if skipped := sum(run.skipped[first : len(run.updates)]):
            warnings.append(
                f"{skipped} of {sum(run.updates[first:])} updates of the {name}-RM were left out, "
                "because they were not finite; log.txt names what was not."
            )

        # 4. Scores with a meaning: 0 is the reference policy's mean, 1 its standard deviation.
        opinions = member_scores_in_parallel(
            model,
            [p.messages for p, _ in reference],
            [text for _, text in reference],
            peers,
            batch_size=config.batch_size,
            standardized=False,
        )
        raw = {axis: scores.mean(dim=1) for axis, scores in opinions.items()}
        if not all(bool(torch.isfinite(s).all()) for s in raw.values()):
            raise InputError(f"The {name}-RM diverged to NaN; lower learning_rate.")
        model.scale.fit(raw, [p.risk for p, _ in reference])
        for axis, scores in raw.items():
            if len(scores) > 1 and float(scores.std()) < 1e-3:
                warnings.append(
                    f"The {name}-RM gives all reference texts nearly the same {axis} score."
                )

        # 5. How right it is on prompts that it has not seen.
        verdicts, spread = measure(model, halves[other], annotators, config, peers)
        result[name] = {}
        for axis in config.axes:
            seen = [v for v in verdicts if v.axis == axis]
            told = reward_report.figures(seen, seed=config.seed)
            told["disagreement"] = spread.get(axis)
            result[name][axis] = told
            warnings.append(reward_report.suspicion(name, axis, told, people=people))
            if name == "train":
                result.setdefault("calibration", {})[axis] = reward_report.reliability(
                    [v.difference for v in seen]
                )[1]
        doubtful = [a for a, r in zip(annotators, reliability, strict=True) if r < 0.3]
        if name == "train" and doubtful:
            warnings.append(
                "The rankings of " + ", ".join(doubtful) + " hardly agree with the others'."
            )
        if peers.is_main_process:
            replace_folder(run_dir / name, functools.partial(save_reward_model, model))

    # 6. The report.
    parallel.destroy_process_group(peers)
    if not peers.is_main_process:
        return
    run.close()
    everything = [p for j in judgments for p in all_pairs(j)]
    result |= {
        "n_judgments": len(judgments),
        "n_prompts": len(train_ids) + len(test_ids),
        "n_pairs": len(everything),
        "warnings": [warning for warning in warnings if warning],
        **run.note,
        "skipped_updates": sum(run.skipped),
        "processes": peers.size,
        "held": run.held,
        "seconds": time.monotonic() - began,
    }
    write_result(run_dir, result)


class Run:
    """What the training loop shares over all models: metrics, progress, the checkpoint, the wish to
    stop, the processes that work together."""

    def __init__(
        self,
        run_dir: Path,
        config: RewardModelConfig,
        stop: StopRequest,
        total: int,
        peers: parallel.Group = parallel.Group(),  # noqa: B008 - it never changes
    ) -> None:
        self.run_dir, self.config, self.stop, self.total = run_dir, config, stop, total
        self.peers = peers
        self.began = self.saved_at = time.monotonic()
        self.trained: list[tuple[RewardModel, Tensor]] = []
        """The models that are done, with what annotators are worth to them, in their order."""
        self.updates: list[int] = []
        """How many updates each model has, the one that is being trained the last;"""
        self.skipped: list[int] = []
        """and how many were left out so far of those of each model that was begun."""
        self.held = 1.0
        """The share of the trunk that this process held while it was trained."""
        self.note: dict[str, float] = {}
        """What else the report should say."""
        self.step = self.done_before = 0
        self.left_off: LeftOff | None = None
        if (checkpoint := find_checkpoint(run_dir)) is not None:
            self.left_off = LeftOff.read(checkpoint)
            self.step = self.done_before = self.left_off.total_steps
            self.skipped = self.left_off.skipped
        peers.barrier()  # until all have read the checkpoint
        self.metrics = MetricsWriter(run_dir, resume_after=self.step)

    def save(self, step: int, weights: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
        """A checkpoint after `step` steps of the model that is being trained. All ask together."""
        moments = parallel.optimizer_state(optimizer)
        if self.peers.is_main_process:
            trained = [learnt(*done) for done in self.trained]
            left_off = LeftOff(step, self.step, weights, moments, trained, self.skipped)
            save_checkpoint(self.run_dir, left_off.write)
        self.saved_at = time.monotonic()

    def is_time(self) -> bool:
        """Whether the one that writes finds that a checkpoint is due."""
        due = time.monotonic() - self.saved_at >= self.config.checkpoint_seconds
        return self.peers.any(due and self.peers.is_main_process)

    def told(self, name: str, **metrics: float) -> None:
        self.step += 1
        if not self.peers.is_main_process:
            return
        named = {f"{name}_{k}": v for k, v in metrics.items()}
        self.metrics.write(self.step, **named, skipped_updates=sum(self.skipped))
        if self.step % 5 == 0 or self.step == self.total:
            seconds = (time.monotonic() - self.began) / (self.step - self.done_before)
            write_progress(
                self.run_dir,
                done=self.step,
                total=max(self.total, self.step),
                unit="updates",
                note=f"{name}-RM",
                eta_seconds=seconds * max(self.total - self.step, 0),
            )

    def close(self) -> None:
        self.metrics.close()


def plans_of(config: RewardModelConfig) -> list[tuple[tuple[str, ...], int]]:
    """(axes, seed) of every model to be trained on one side: members, or one for each axis."""
    axes = [(axis,) for axis in config.axes] if config.separate_axes else [config.axes]
    members = config.members if config.ensemble == "models" else 1
    return [(some, config.seed + member) for some in axes for member in range(members)]


def new_member(
    config: RewardModelConfig,
    axes: tuple[str, ...],
    seed: int,
    device: torch.device,
    members: Sequence[RewardModel],
    name: str,
) -> RewardModel:
    """A reward model that knows nothing yet. The prior never changes, so members have one."""
    if members:  # the first goes on from where the run's seed is
        torch.manual_seed(seed)
    model = RewardModel.new(
        config.trunk,
        axes,
        use_prior=config.prior,
        max_length=config.max_length,
        device=device,
        n_heads=1 if config.ensemble == "models" else config.members,
        adapter_rank=config.adapter_rank if config.ensemble == "adapters" else 0,
        prior=members[0].prior if members else None,
        dtype=devices.choose_dtype(config.dtype, device),
    )
    if (
        config.share_prompts
        and not model.share_prompts_if_possible()
        and name == "train"
        and not members
    ):
        print("This trunk reads every response with its own copy of the prompt.")
    return model


def train(
    model: RewardModel,
    groups: list[Group],
    n_annotators: int,
    name: str,
    run: Run,
    config: RewardModelConfig,
) -> list[float]:
    """Fit a reward model to the opinions of `groups`; returns each annotator's reliability, between 0
    (a coin) and 2.

    Where it has several heads per axis, each learns from a resample of the groups of its own (the
    bootstrap, by Poisson weights): heads on one trunk that saw the same would say the same. Their
    errors are correlated all the same, because the trunk is one.

    Each process takes its share of every batch; what they learn from it is added up.
    """
    peers = run.peers
    groups = [g for g in groups if any(o.pairs for o in g.opinions)]
    generator = random.Random(config.seed)
    steps = config.epochs * -(-len(groups) // config.rankings_per_batch)
    warmup = min(config.warmup_steps, steps // 4)

    # What learns: trunk (or its adapters), heads, tie rates, what each annotator is worth.
    log_reliability = nn.Parameter(torch.zeros(n_annotators, device=model.device))
    shares_prompts = model.shares_prompts
    if peers.sharded:  # gradients that come back through a cache fetch no layer's weights
        model.shares_prompts = False
    sharded_trunk = peers.shard(model.trunk, model.device)  # replaces its parameters
    trunk = [p for p in model.trunk.parameters() if p.requires_grad]
    trained = [*trunk, *model.heads.parameters(), model.log_nu, log_reliability]
    run.held = min(run.held, parallel.local_fraction(trunk))
    optimizer = torch.optim.AdamW(
        [
            {"params": trunk, "peak": config.learning_rate},
            {"params": [*model.heads.parameters()], "peak": config.head_learning_rate},
            {"params": [model.log_nu, log_reliability], "peak": FEW_NUMBERS_RATE},
        ],
        weight_decay=config.weight_decay,
        fused=True,
    )

    # Where a killed run left off: models that it had finished need no step, the one that it was at
    # goes on, later ones begin.
    left_off, done = run.left_off, 0
    if left_off is not None and len(run.trained) < len(left_off.trained):
        put(model, log_reliability, left_off.trained[len(run.trained)])
        done = steps
    elif left_off is not None:
        put(model, log_reliability, left_off.weights)
        parallel.load_optimizer_state(optimizer, left_off.moments)
        done, run.left_off = left_off.step, None
    model.trunk.train()

    # How often each head takes each group.
    drawn = torch.ones(len(groups), model.n_heads)
    if model.n_heads > 1:
        drawn = torch.poisson(drawn, generator=torch.Generator().manual_seed(config.seed))
    resample = {id(group): drawn[i].to(model.device) for i, group in enumerate(groups)}

    run.updates.append(steps)
    number = len(run.trained)  # this model's, also where a later one was left off
    if len(run.skipped) == number:
        run.skipped.append(0)
    step = in_a_row = 0

    for _ in range(config.epochs):
        for batch in batches_of(groups, config.rankings_per_batch, generator):
            if step < done:
                step += 1
                continue
            for some in optimizer.param_groups:
                some["lr"] = learning_rate_at(
                    step, peak=some["peak"], warmup=warmup, total=steps, floor=0.0
                )

            # One forward pass per response, whatever the number of pairs it is in.
            mine, counts = batch[peers.share], 1.0
            if not mine:  # a last batch of fewer rankings than processes
                mine, counts = batch[:1], 0.0
            texts = [t for g in mine for t in g.texts]
            priors = [g.prior for g in mine if g.prior is not None]
            scores = sharded_trunk(model.raw_scores, texts, torch.cat(priors) if priors else None)
            reliability = (
                torch.sigmoid(log_reliability) * 2
                if config.reliability
                else torch.ones_like(log_reliability)
            )
            loss, right, decided = batch_loss(
                model,
                mine,
                scores,
                reliability,
                config,
                [resample[id(g)] for g in mine],
                opinions_in(batch, resample),
            )
            share = sum(len(g.texts) for g in mine) / sum(len(g.texts) for g in batch)
            loss = counts * (loss + config.centring * (scores**2).mean() * share)
            if config.reliability and peers.is_main_process:
                # Without rankings that say otherwise, everyone counts as 1.
                loss = loss + 1e-3 * (log_reliability**2).sum()

            optimizer.zero_grad()
            loss.backward()
            peers.all_reduce_gradients(trained)
            norm = parallel.clip_gradients(trained[:-1], config.max_grad_norm)
            stats = peers.all_reduce_numbers(
                {
                    "loss": float(loss.detach()),
                    "right": counts * right,
                    "decided": counts * decided,
                }
            )

            # A gradient that is not finite would poison every weight: skip, count, go on.
            numbers = {"loss": stats["loss"], "gradient": norm}
            broken = [what for what, value in numbers.items() if not math.isfinite(value)]
            if broken:
                run.skipped[number] += 1
                in_a_row += 1
                causes = ", ".join(broken)
                print(f"{name}-RM, update {step + 1}: was left out, not finite: {causes}")
            else:
                in_a_row = 0
                optimizer.step()
            step += 1
            accuracy = stats["right"] / max(stats["decided"], 1)
            run.told(name, loss=stats["loss"], accuracy=accuracy, grad_norm=norm)
            if in_a_row >= MAX_SKIPPED_IN_A_ROW:
                raise InputError(
                    f"{in_a_row} updates in a row of the {name}-RM were not finite ({causes}); "
                    "start again with a lower learning_rate, or look at the rankings' weights."
                )

            stopping = peers.any(run.stop.requested)
            if stopping or run.is_time():
                run.save(step, learnt(model, log_reliability), optimizer)
            if stopping:
                parallel.destroy_process_group(peers)
                raise Stopped

    if run.skipped[number] == steps:
        raise InputError(
            f"Of the {name}-RM not one of the {steps} updates that it was to learn by was finite; "
            "log.txt names what was not. Start again with a lower learning_rate, or look at the "
            "rankings' weights."
        )
    if peers.sharded:  # whole again, to be read and saved
        weights = learnt(model, log_reliability)
        model.trunk = pretrained.load_trunk(config.trunk, "trunk").to(model.device)
        pretrained.disable_dropout(model.trunk)
        put(model, log_reliability, weights)
        model.shares_prompts = shares_prompts
    run.trained.append((model, log_reliability))
    model.trunk.eval()
    for parameter in model.parameters():
        parameter.requires_grad = False
    return (torch.sigmoid(log_reliability) * 2).tolist()


def opinions_in(batch: Sequence[Group], resample: dict[int, Tensor]) -> Tensor:
    """How many opinions a batch holds for each head (heads,), by their weight."""
    counted = [o.weight * resample[id(g)] for g in batch for o in g.opinions if o.pairs]
    return torch.stack(counted).sum(dim=0).clamp(min=1e-9)


def batch_loss(
    model: RewardModel,
    batch: Sequence[Group],
    scores: Tensor,
    reliability: Tensor,
    config: RewardModelConfig,
    resample: Sequence[Tensor],
    total: Tensor,
) -> tuple[Tensor, float, float]:
    """Mean over opinions of the mean over their pairs, and of how many decided pairs it is right.

    All pairs of one ranking count as one element (InstructGPT, section 3.5): as elements of their
    own they let the model overfit to the few texts that they share. `scores` is (texts, heads,
    axes); `reliability` (annotators,) multiplies score differences: at 0 an annotator's choices are
    coin flips, from which nothing is to be learnt. `resample` holds for each group how often each
    head (heads,) takes it; `total` (heads,) is what the mean is over, if `batch` is only a part.
    """
    start = 0
    first: list[int] = []
    second: list[int] = []
    axis: list[int] = []
    tie: list[bool] = []
    margin: list[float] = []
    who: list[int] = []
    weight: list[float] = []
    taken: list[Tensor] = []
    listwise: list[Tensor] = []
    for group, times in zip(batch, resample, strict=True):
        for opinion in group.opinions:
            if not opinion.pairs:
                continue
            if config.loss == "plackett_luce":
                mine = scores[start : start + len(group.texts), :, opinion.axis]
                by_head = (mine * reliability[opinion.annotator]).T
                loss = reward_math.plackett_luce_loss(by_head, opinion.ranks)
                listwise.append(opinion.weight * times * loss)
            for pair in opinion.pairs:
                first.append(start + pair.better)
                second.append(start + pair.worse)
                axis.append(opinion.axis)
                tie.append(pair.tie)
                margin.append(config.margin * pair.margin)
                who.append(opinion.annotator)
                weight.append(opinion.weight / len(opinion.pairs))
                taken.append(times)
        start += len(group.texts)
    axes = torch.tensor(axis, device=scores.device)
    ties = torch.tensor(tie, device=scores.device)
    a, b = scores[first, :, axes], scores[second, :, axes]  # (pairs, heads)
    decided = ~ties
    said = a.mean(dim=1) > b.mean(dim=1)
    right = float((said & decided).sum()), float(decided.sum())
    if config.loss == "plackett_luce":
        return (torch.stack(listwise).sum(dim=0) / total).mean(), *right
    # Only differences matter to the likelihood, so reliability may scale the scores themselves.
    by = reliability[who][:, None]
    middle = (a + b) / 2
    losses = reward_math.pair_losses(
        middle + by * (a - middle),
        middle + by * (b - middle),
        ties[:, None],
        log_nu=model.log_nu[axes][:, None] if config.ties == "davidson" else None,
        margin=torch.tensor(margin, device=scores.device)[:, None] if config.margin else None,
        label_smoothing=config.label_smoothing,
    )
    weights = torch.tensor(weight, device=scores.device)[:, None] * torch.stack(taken)
    return ((losses * weights).sum(dim=0) / total).mean(), *right


if __name__ == "__main__":
    run_stage(main)
