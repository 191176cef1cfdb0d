"""Reward models from rankings: `python -m rlhf.training.reward_model RUN_DIR`.

Two are trained, on disjoint sets of prompts. PPO maximizes the train-RM; the test-RM never trains
anything and shows when the two diverge. Each is evaluated on the other's prompts, so that no
ranking has to be held out.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlhf.training import parallel, reward_report
from rlhf.training.configs import RewardModelConfig
from rlhf.training.data import Judgment, Prompt, read_judgments, read_texts
from rlhf.training.language_models import devices
from rlhf.training.model_files import read_shape
from rlhf.training.reward_data import (
    RankedGroup,
    add_prior_features,
    alike_warning,
    all_pairs,
    check_ties,
    group_judgments,
    shuffled_batches,
    split_prompts,
)
from rlhf.training.reward_evaluation import score_pairs, smoothing_of
from rlhf.training.reward_learner import Learner
from rlhf.training.reward_loss import (
    BootstrapCounts,
    batch_loss,
    batch_weight,
    bootstrap_counts,
)
from rlhf.training.reward_models.folder import save_reward_model
from rlhf.training.reward_models.model import RewardModel, member_scores_in_parallel
from rlhf.training.reward_run import RewardRun
from rlhf.training.rundir import CONFIG, log
from rlhf.training.rundir.errors import InputError
from rlhf.training.rundir.files import replace_folder
from rlhf.training.rundir.process import StopRequest, run_stage
from rlhf.training.rundir.reports import write_result
from rlhf.training.settings import load


def main(run_dir: Path, stop: StopRequest) -> None:
    began = time.monotonic()

    # 1. Configuration and data.
    config = load(RewardModelConfig, run_dir / CONFIG)
    judgments = read_judgments(run_dir, config.axes)
    if config.loss == "plackett_luce":
        check_ties(judgments)
    reference = read_texts(run_dir, "reference")
    device = devices.choose_device(config.device)
    threads = devices.be_deterministic(config.seed, config.threads)
    processes = parallel.init_process_group(device, sharded=config.sharded)
    shape = read_shape(config.trunk)
    size = parallel.default_processes(shape.n_parameters if shape else 0, device, threads)
    processes = parallel.share_work(processes, size, threads)

    # 2. Split by prompt, never by pair: both sides of a ranking share their texts.
    train_ids, test_ids = split_prompts(sorted({j.prompt.prompt_id for j in judgments}), config)
    halves = {
        "train": [j for j in judgments if j.prompt.prompt_id in train_ids],
        "test": [j for j in judgments if j.prompt.prompt_id in test_ids],
    }
    total = sum(
        len(members_of(config)) * config.epochs * -(-len(half) // config.rankings_per_batch)
        for half in halves.values()
    )
    run = RewardRun(run_dir, config, stop, total, processes)
    result: dict[str, Any] = {}
    for name, other in (("train", "test"), ("test", "train")):
        # 3. One reward model on each half of the prompts, measured on the other half.
        result |= train_and_measure(name, halves[name], halves[other], reference, run, device)

    # 4. The report.
    parallel.destroy_process_group(processes)
    if not processes.is_main_process:
        return
    run.close()
    result |= {
        "n_judgments": len(judgments),
        "n_prompts": len(train_ids) + len(test_ids),
        "n_pairs": sum(len(all_pairs(judgment)) for judgment in judgments),
        "warnings": run.warnings,
        **run.label_smoothing,
        "updates": run.n_updates,
        "skipped_updates": sum(run.skipped),
        "processes": processes.size,
        "held": run.local_fraction,
        "seconds": time.monotonic() - began,
    }
    write_result(run_dir, result)


def train_and_measure(
    name: str,
    own: Sequence[Judgment],
    others: Sequence[Judgment],
    reference: Sequence[tuple[Prompt, str]],
    run: RewardRun,
    device: torch.device,
) -> dict[str, Any]:
    """Train the train-RM or test-RM (`name`) on its `own` prompts, measure it on the `others`, and
    write its folder; returns its part of `result.json`. Its memory is free again afterwards."""
    config, processes = run.config, run.processes
    annotators = sorted({judgment.annotator for judgment in (*own, *others)})
    # 1. One reward model, of one or several members.
    first = len(run.finished)
    model, reliability = train_members(name, own, annotators, run, device)
    run.n_updates[name] = run.fewest_updates(first)

    # 2. Scores that can be compared: 0 is the reference policy's mean, 1 its standard deviation.
    standardize_on(reference, model, name, run)

    # 3. Accuracy on the prompts of the other half.
    on_batch = run.progress.phase(f"{name}-RM, evaluating", unit="texts")
    pairs, disagreement = score_pairs(model, others, annotators, config, processes, on_batch)
    measured = {
        axis: reward_report.figures([p for p in pairs if p.axis == axis], seed=config.seed)
        | {"disagreement": disagreement.get(axis)}
        for axis in config.axes
    }
    result: dict[str, Any] = {name: measured}
    by_people = not all(a.startswith(reward_report.SIMULATED) for a in annotators)
    for axis, figures in measured.items():
        run.warnings += reward_report.warnings(name, axis, figures, by_people=by_people)
    if name == "train":
        result["calibration"] = {
            axis: reward_report.reliability_diagram([p for p in pairs if p.axis == axis])
            for axis in config.axes
        }
        doubtful = [a for a, r in zip(annotators, reliability, strict=True) if r < 0.3]
        if doubtful:
            run.warnings.append(
                "The rankings of " + ", ".join(doubtful) + " agree little with the others'."
            )
    if processes.is_main_process:
        replace_folder(run.run_dir / name, functools.partial(save_reward_model, model))
    return result


def members_of(config: RewardModelConfig) -> list[tuple[tuple[str, ...], int]]:
    """(axes, seed) of every model to be trained on one half: ensemble members, or one per axis."""
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
    """A reward model before training. The prior never changes, so that members share one."""
    if members:  # the first one continues from the run's random seed
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
        tokens_per_pass=config.tokens_per_pass,
    )
    if (
        config.share_prompts
        and not model.share_prompts_if_possible()
        and name == "train"
        and not members
    ):
        log.info("This trunk reads every response with its own copy of the prompt.")
    return model


def train_members(
    name: str,
    judgments: Sequence[Judgment],
    annotators: Sequence[str],
    run: RewardRun,
    device: torch.device,
) -> tuple[RewardModel, list[float]]:
    """The train-RM or test-RM (`name`) with its members, and the reliability of each annotator."""
    config, first = run.config, len(run.finished)
    run.progress.phase(f"{name}-RM, loading the trunk")
    members: list[RewardModel] = []
    reliability: list[float] = []
    for axes, seed in members_of(config):
        member = new_member(config, axes, seed, device, members, name)
        groups = group_judgments(member, judgments, annotators)
        if not any(group.has_pairs for group in groups):
            raise InputError(
                alike_warning(name, groups, member.max_length)
                or f"No ranking for the {name}-RM prefers one response to another; rank more "
                "responses, or check that the axes in the file are "
                + " and ".join(axes)
                + "."
            )
        if not members and (warning := alike_warning(name, groups, member.max_length)):
            run.warnings.append(warning)
        on_batch = run.progress.phase(f"{name}-RM, reading", _n_texts(groups), "texts")
        add_prior_features(member, groups, config.batch_size, run.processes, on_batch)
        own = dataclasses.replace(config, stored=True, seed=seed)
        if config.smoothing == "agreement":
            share = smoothing_of(member, groups)
            own = dataclasses.replace(own, stored=True, smoothing="fixed", label_smoothing=share)
            run.label_smoothing[f"{name}_label_smoothing"] = share
        reliability = train(member, groups, len(annotators), name, run, own)
        members.append(member)
    run.warn_of_skipped(name, first)
    members[0].others = members[1:]
    return members[0], reliability


def train(
    model: RewardModel,
    groups: Sequence[RankedGroup],
    n_annotators: int,
    name: str,
    run: RewardRun,
    config: RewardModelConfig,
) -> list[float]:
    """Fit a reward model to rankings; returns each annotator's reliability, from 0 (chance) to 2.

    The loss is Bradley & Terry's (1952) with Davidson's (1970) ties, or Plackett & Luce's of whole
    rankings (`reward_math`). Each process computes its share of every batch; gradients are summed.
    """
    processes = run.processes
    groups = [group for group in groups if group.has_pairs]
    batches = shuffled_batches(groups, config)

    # 1. Trained parameters: trunk (or adapters), heads, tie rates, annotators' reliabilities. A
    #    resumed run begins with update `first`.
    learner = Learner(model, n_annotators, processes, config)
    first = run.begin_model(name, learner, updates=len(batches))

    # 2. Each head of an ensemble has its own bootstrap sample of the rankings.
    counts = bootstrap_counts(groups, model, config.seed)

    for update, batch in enumerate(batches[first:], start=first):
        # 3. Learning rates: linear warm-up, then linear decay to 0.
        learner.set_learning_rates(update, total=len(batches))

        # 4. The loss and its gradients, in passes that fit into memory.
        on_pass = run.progress.phase(f"{name}-RM, update {update + 1}", unit="passes")
        sums = processes.all_reduce_numbers(add_gradients(learner, batch, counts, on_pass))

        # 5. One step of AdamW (Loshchilov & Hutter 2019). A gradient that is not finite would break
        #    every weight: its update is skipped and counted.
        grad_norm = learner.sum_and_clip_gradients(config.max_grad_norm)
        numbers = {"loss": sums["loss"], "gradient": grad_norm}
        not_finite = [what for what, value in numbers.items() if not math.isfinite(value)]
        if not not_finite:
            learner.optimizer.step()

        # 6. Metrics, the checkpoint, and whether to stop.
        accuracy = sums["right"] / max(sums["decided"], 1)
        run.record(update, not_finite, loss=sums["loss"], accuracy=accuracy, grad_norm=grad_norm)
        run.save_if_due(update + 1)

    run.end_model()
    return learner.finish()


def add_gradients(
    learner: Learner,
    batch: Sequence[RankedGroup],
    counts: BootstrapCounts,
    on_pass: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, float]:
    """Compute the gradients of one batch, of which each process does its share; returns this
    process's share of the `loss`, of the `decided` pairs, and of those that it got `right`.

    One score per response, not per pair (InstructGPT, Ouyang et al. 2022, section 3.5). The loss is
    the mean over rankings of the mean over their pairs; scores are kept near 0 (Eisenstein et al.
    2023, "Helping or herding?"), reliabilities near 1.
    """
    model, config, processes = learner.model, learner.config, learner.processes
    total, n_texts = batch_weight(batch, counts), sum(len(group.texts) for group in batch)
    sums = {"loss": 0.0, "right": 0.0, "decided": 0.0}

    def loss_of(groups: Sequence[RankedGroup], weight: float, scores: Tensor) -> Tensor:
        reliability = learner.reliability()  # (annotators,)
        loss, right, decided = batch_loss(model, groups, scores, reliability, config, counts, total)
        sums["right"] += weight * right
        sums["decided"] += weight * decided
        share = sum(len(group.texts) for group in groups) / n_texts
        loss = weight * (loss + config.centering * (scores**2).mean() * share)
        if config.reliability and processes.is_main_process and groups[0] is batch[0]:
            loss = loss + 1e-3 * (learner.log_reliability**2).sum()
        return loss

    learner.optimizer.zero_grad()
    passes = learner.passes(batch[processes.share], spare=batch)
    for number, (groups, weight) in enumerate(passes, start=1):
        sums["loss"] += learner.add_gradients(groups, functools.partial(loss_of, groups, weight))
        on_pass(number, len(passes))
    return sums


def _n_texts(groups: Sequence[RankedGroup]) -> int:
    return sum(len(group.texts) for group in groups)


def standardize_on(
    reference: Sequence[tuple[Prompt, str]], model: RewardModel, name: str, run: RewardRun
) -> None:
    """Give the scores of the reference policy's texts mean 0 and deviation 1 on every axis."""
    on_batch = run.progress.phase(f"{name}-RM, scoring the reference", unit="texts")
    members = member_scores_in_parallel(
        model,
        [prompt.messages for prompt, _ in reference],
        [text for _, text in reference],
        run.processes,
        batch_size=run.config.batch_size,
        standardized=False,
        on_batch=on_batch,
    )
    raw = {axis: scores.mean(dim=1) for axis, scores in members.items()}
    if not all(bool(torch.isfinite(scores).all()) for scores in raw.values()):
        raise InputError(f"The {name}-RM diverged to NaN; lower learning_rate.")
    model.scale.fit(raw, [prompt.risk for prompt, _ in reference])
    for axis, scores in raw.items():
        if len(scores) > 1 and float(scores.std()) < 1e-3:
            run.warnings.append(
                f"The {name}-RM gives all reference texts nearly the same {axis} score."
            )


if __name__ == "__main__":
    run_stage(main)
