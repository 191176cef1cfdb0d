"""Refine a policy by PPO against a reward model: `python -m rlhf.training.ppo RUN_DIR`.

Proximal policy optimisation (Schulman et al. 2017) as it is done on language models (Ziegler et
al. 2019, Stiennon et al. 2020, Ouyang et al. 2022), with the details collected by Huang et al.
(2024, "The N+ implementation details of RLHF with PPO"). Read `main` from top to bottom.

Whatever is drawn at a step depends on the seed and the step's number alone, so a run that was
killed and resumed makes the same draws as one that was not. Several processes may share the work of
each step (parallel.py); one of them writes.
"""

import functools
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlhf.training import parallel, ppo_math, ptx
from rlhf.training.configs import PPOConfig
from rlhf.training.data import Prompt
from rlhf.training.language_models import devices
from rlhf.training.ppo_checkpoint import (
    State,
    load_checkpoint,
    trained_tensors,
    write_checkpoint,
)
from rlhf.training.ppo_models import Models, mix, read_inputs
from rlhf.training.rundir import AVERAGE, CONFIG, POLICY
from rlhf.training.rundir.checkpoints import find_checkpoint, save_checkpoint
from rlhf.training.rundir.errors import InputError, Stopped
from rlhf.training.rundir.files import write_jsonl
from rlhf.training.rundir.process import StopRequest, run_stage
from rlhf.training.rundir.reports import MetricsWriter, write_progress, write_result
from rlhf.training.schedule import learning_rate_at
from rlhf.training.settings import load

MAX_SKIPPED_IN_A_ROW = 20
"""Updates with a gradient that is not finite, also over several rollouts, after which the rest of a
rollout is left and the run goes back to its last checkpoint."""

CLEARLY = 0.02
"""By how much more the test-RM must like a later policy than the one that was kept for it to be kept
instead, in standard deviations of the reference."""

BOTH_FALL = 2
"""How many times `tripwire_drop` the test-RM's mean must fall for the tripwire where the train-RM's
falls too: then it is not over-optimisation, but a policy that comes apart, or noise."""

MAX_ROLLBACKS = 3
"""Returns to the last checkpoint, after which the run is given up."""


@dataclass
class Rollout:
    """The responses of one step and all that PPO needs to know of them; B rows, T tokens."""

    prompts: list[list[int]]
    """Token ids of the prompt of each response."""
    responses: list[list[int]]
    mask: Tensor
    """(B, T) bool: which positions are sampled tokens."""
    logprobs: Tensor
    """(B, T) nats, of the sampled tokens under the policy that sampled them: "old" in the ratio."""
    advantages: Tensor
    """(B, T) whitened if the configuration says so."""
    returns: Tensor
    """(B, T) what the critic is to learn: advantages before whitening, plus values."""
    values: Tensor
    """(B, T) by the critic before the updates."""
    importance: Tensor | None = None
    """(B, T) weights of tokens that were sampled by other arithmetic."""


def main(run_dir: Path, stop: StopRequest) -> None:
    # 1. Configuration, prompts, models.
    config = load(PPOConfig, run_dir / CONFIG)
    prompts, watch = read_inputs(run_dir, config)
    _check_enough(prompts, config)  # before models are loaded, which takes longer
    devices.be_deterministic(config.seed, config.threads)
    group = parallel.init_process_group(
        devices.choose_device(config.device), sharded=config.sharded
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # until `share_work` knows how many processes there will be
    models = Models(config, group)
    prompts, encoded = models.fitting(prompts)
    ptx_examples = (
        ptx.read(run_dir, models.policy, config.rollout.long_prompts) if config.ptx.weight else []
    )
    if watch:
        watch, _ = models.fitting(watch)
    _check_enough(prompts, config)  # again, without those that are too long
    models.share_work(threads)
    group = models.group
    optimizer = models.optimizer()
    controller = _controller(config)

    # 2. Go on where a killed run left off.
    state = State(kl_weight=config.kl.weight, multiplier=config.lagrange.multiplier)
    best: dict[str, Tensor] = {}
    within_budget: dict[str, Tensor] = {}
    average: dict[str, Tensor] = {}
    if (checkpoint := find_checkpoint(run_dir)) is not None:
        state, copies = load_checkpoint(checkpoint, models, optimizer)
        best, within_budget, average = copies["best"], copies["within"], copies["average"]
        controller.weight = state.kl_weight
        models.reward.multiplier.value = state.multiplier
        models.reward.scales = state.scales
    elif config.reward.normalize_samples:
        some = choose(len(prompts), config.reward.normalize_samples, 0, mix(config.seed, -2))
        models.normalise([prompts[i] for i in some], [encoded[i] for i in some])
        state.scales = models.reward.scales
    if checkpoint is None and watch:
        state.before, _ = models.sample_and_judge(watch, seed=config.seed)
    group.barrier()  # until all have read the checkpoint
    metrics = MetricsWriter(run_dir, resume_after=state.step) if group.is_main_process else None

    while state.step < config.steps and not state.stop_reason:
        began = time.monotonic()
        step = state.step + 1

        # 3. Look at the watch prompts: does the test-RM still agree that things get better?
        watch_means: dict[str, float] = {}
        if watch and state.step % config.tripwire.watch_every == 0:
            _, means = models.sample_and_judge(watch, seed=config.seed)
            state.watched.append((state.step, means["reward"], means["test"]))
            watch_means = {"watch_reward": means["reward"]}
            if models.reward.test_scorer is not None:
                watch_means["test_reward"] = means["test"]
                # A later policy is kept in place of an earlier one only if the test-RM likes it
                # clearly better: it lags behind people, so among equals the nearest to the
                # reference is the safest.
                if len(state.watched) == 1 or means["test"] > liked_best(state) + CLEARLY:
                    state.best_step = state.step
                    if config.tripwire.evaluations:
                        best = models.trained_weights()
                if tripped(state.watched, config.tripwire.evaluations, config.tripwire.drop):
                    state.stop_reason = "tripwire"
                    models.restore(best)
                    break

        # 4. The policy answers the next prompts: by our own decoder, which keeps log-probabilities
        #    and values, or by another engine.
        chosen = choose(len(prompts), config.rollout.prompts_per_step, step - 1, config.seed)
        rows = [i for i in chosen for _ in range(config.rollout.samples_per_prompt)]
        sampled = models.sample(
            [encoded[i] for i in chosen],
            config.rollout.samples_per_prompt,
            seed=mix(config.seed, step),
        )
        answers = [answer for some in sampled for answer in some]
        queries = [encoded[i] for i in rows]
        responses = [answer.tokens for answer in answers]
        generated = time.monotonic()

        # 5. The reward model reads the text. A response that did not end gets a fixed score
        #    instead: the reward model has never seen half a sentence (the EOS trick of
        #    lm-human-preferences, Huang et al. 2024).
        texts = [models.policy.decode(tokens) for tokens in responses]
        scores, score_means = models.reward.judge([prompts[i] for i in rows], texts)
        _check_scores(scores, [prompts[i].prompt_id for i in rows])
        finished = torch.tensor([answer.finished for answer in answers], device=models.device)
        scores = models.reward.by_ending(scores, [len(r) for r in responses], finished)

        # 6. Log-probabilities of the policy and the reference, values of the critic; and how far
        #    off what was sampled is from what is trained, if other arithmetic sampled it.
        logprobs, reference_logprobs, values, mask = models.read(queries, answers)
        importance, sampler_gap = models.compare(answers, logprobs, mask)
        scored = time.monotonic()

        # 7. Reward per token: minus the KL to the reference, and the score at the end. What is
        #    decided by the KL goes by k1: a single token that the policy samples although it finds
        #    it unlikely, and the reference does not, is 10^5 nats to k3.
        kl = ppo_math.kl_k1(logprobs, reference_logprobs) * mask
        mean_kl_k1 = float(kl.sum(dim=1).mean())  # nats per response, as k3 for the curves
        mean_kl_k3 = float((ppo_math.kl_k3(logprobs, reference_logprobs) * mask).sum(dim=1).mean())
        if config.kl.budget and (mean_kl_k1 <= config.kl.budget or not within_budget):
            within_budget, state.within_step = models.trained_weights(), state.step
        kl_weight = controller.weight
        rewards = ppo_math.token_rewards(scores, kl, mask, kl_weight=kl_weight)
        if config.advantage.whiten_rewards:
            rewards = ppo_math.whiten(rewards, mask, shift_mean=False)

        # 8. Advantages and returns, by generalised advantage estimation.
        advantages, returns = ppo_math.advantages_and_returns(
            rewards, values, mask, gamma=config.advantage.gamma, lam=config.advantage.lam
        )
        if config.advantage.whiten:
            advantages = ppo_math.whiten(advantages, mask)
        rollout = Rollout(
            queries, responses, mask, logprobs, advantages, returns, values, importance
        )

        # 9. Updates: several passes over the rollout in shuffled minibatches. With PPO-ptx each of
        #    them also learns from texts that the policy is to go on finding likely.
        stats = update(
            models,
            optimizer,
            rollout,
            config,
            step=step,
            train_policy=step > config.critic.warmup_steps,
            rates=_rates(config, step),
            ptx_examples=ptx_examples,
            skipped_before=state.skipped_in_a_row,
        )
        state.skipped += stats.pop("skipped")
        state.skipped_in_a_row = stats.pop("skipped_in_a_row")
        broken = stats.pop("broken")
        # Where what was learned is not finite, weights go back to the last checkpoint; steps go on.
        if broken or not models.are_finite():
            state.rollbacks, state.skipped_in_a_row = state.rollbacks + 1, 0
            broken = broken or "weights after an update"
            average = roll_back(run_dir, models, optimizer, state.rollbacks, broken)
        models.follow()  # the reference, where it is a running average of the policy
        if config.ema.decay:
            average = running_average(average, models.trained_weights(), config.ema.decay)
        ended = time.monotonic()

        # 10. The KL controller, the books, a checkpoint.
        controller.update(mean_kl_k1, len(answers))
        if config.reward.combine == "lagrange":
            models.reward.multiplier.update(score_means["cost"])
            state.multiplier = models.reward.multiplier.value
        state.step, state.kl_weight = step, controller.weight
        state.reward = float(scores.mean())
        state.kl = mean_kl_k3 if math.isfinite(mean_kl_k3) else state.kl  # JSON has no NaN
        state.seconds += ended - began
        state.samples += len(answers)
        line = dict(
            reward=state.reward,
            **score_means,
            **watch_means,
            **sampler_gap,
            kl=mean_kl_k3,
            kl_k1=mean_kl_k1,
            kl_weight=kl_weight,
            length=float(mask.sum()) / len(answers),
            finished_fraction=float(finished.float().mean()),
            **stats,
            value_explained=_explained(returns, values, mask),
            skipped_updates=state.skipped,
            rollbacks=state.rollbacks,
            samples_per_second=len(answers) / (ended - began),
            seconds_generate=generated - began,
            seconds_score=scored - generated,
            seconds_train=ended - scored,
        )
        if metrics is not None:
            metrics.write(step, **line)
            write_progress(
                run_dir,
                done=step,
                total=config.steps,
                unit="steps",
                note=f"reward {state.reward:+.2f}, KL {mean_kl_k3:.2f}",
                eta_seconds=state.seconds / step * (config.steps - step),
            )
        # The rollout was beyond the budget: the last policy that was not is the one to keep.
        if config.kl.budget and mean_kl_k1 > config.kl.budget:
            state.stop_reason = "kl_budget"
            models.restore(within_budget)
        stopping = group.any(stop.requested)
        if stopping or step % config.checkpoint_every == 0:
            tensors = trained_tensors(models, optimizer)
            copies = {"best": best, "within": within_budget, "average": average}
            tensors |= {name: copy for name, copy in copies.items() if copy}
            if group.is_main_process:
                save_checkpoint(run_dir, functools.partial(write_checkpoint, tensors, state))
        if stopping:
            parallel.destroy_process_group(group)
            raise Stopped

    # 11. Samples before and after, the refined policy, the result. What is kept is the last policy,
    #     or the one that a stop went back to.
    kept_step = {"tripwire": state.best_step, "kl_budget": state.within_step}.get(
        state.stop_reason, state.step
    )
    if not state.stop_reason and config.ema.export == "policy":
        models.restore(average)
    if watch:
        after, means = models.sample_and_judge(watch, seed=config.seed)
        watching = models.reward.test_scorer is not None and state.stop_reason != "tripwire"
        if watching and means["test"] > liked_best(state) + CLEARLY:
            state.best_step = kept_step
        if group.is_main_process:
            sides = _side_by_side(kept_step, watch, state.before, after)
            write_jsonl(run_dir / "samples.jsonl", list(sides))
    held = group.all_gather([parallel.local_fraction([p for _, p in models.trained()])], group.size)
    refined = models.trained_weights() if group.sharded else {}
    parallel.destroy_process_group(group)
    if metrics is None:
        return
    metrics.close()
    models.save(run_dir / POLICY, refined)
    if config.ema.export == "beside" and average:
        models.save(run_dir / AVERAGE, average)
    write_result(
        run_dir,
        {
            "steps": state.step,
            "stop_reason": state.stop_reason or "steps",
            "reward": state.reward,
            "kl": state.kl,
            "samples_per_second": state.samples / max(state.seconds, 1e-9),
            "best_step": state.best_step,
            "kept_step": kept_step,
            "skipped_updates": state.skipped,
            "rollbacks": state.rollbacks,
            "seconds": state.seconds,
            "processes": group.size,
            "held": held,
        },
    )


def update(
    models: Models,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    config: PPOConfig,
    *,
    step: int,
    train_policy: bool,
    rates: tuple[float, float],
    ptx_examples: Sequence[ptx.Example] = (),
    skipped_before: int = 0,
) -> dict[str, Any]:
    """PPO's passes over one rollout; returns the means of what the curves show, and of updates that
    were left out because they were not finite: `skipped`, `skipped_in_a_row` at the end
    (`skipped_before` of them in the rollout before), and `broken`, which names what was not finite
    if nothing else came of the rollout or too many in a row were left out.

    `train_policy` False trains the critic alone. `rates` are the step sizes of policy and critic.
    Every update draws some of the `ptx_examples`.
    """
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    optimizer_parameters = [p for group in optimizer.param_groups for p in group["params"]]
    sums: dict[str, float] = {}
    updates, skipped, in_a_row, causes = 0, 0, skipped_before, ""
    rows = len(rollout.prompts)
    shuffler = torch.Generator().manual_seed(mix(config.seed, step))
    drawer = random.Random(mix(config.seed, step))
    stopped = False
    for _ in range(config.optimizer.epochs):
        order = torch.randperm(rows, generator=shuffler).tolist()
        for minibatch in _minibatches(order, config.optimizer.minibatch_size):
            optimizer.zero_grad(set_to_none=True)
            stats = _losses(models, rollout, minibatch, config, train_policy=train_policy)
            if ptx_examples and train_policy:
                drawn = drawer.sample(ptx_examples, min(config.ptx.batch_size, len(ptx_examples)))
                stats["ptx_loss"] = _ptx_loss(models, drawn, config.ptx.weight)
            models.group.all_reduce_gradients(optimizer_parameters)
            norm = parallel.clip_gradients(
                [p for _, p in models.trained()], config.optimizer.max_grad_norm
            )
            critic_norm = parallel.clip_gradients(
                list(models.critic.parameters()), config.optimizer.max_grad_norm
            )
            # A gradient that is not finite would poison every weight: skip, count, go on.
            numbers = stats | {"policy's gradient": norm, "critic's gradient": critic_norm}
            if broken := [name for name, value in numbers.items() if not math.isfinite(value)]:
                skipped, in_a_row = skipped + 1, in_a_row + 1
                causes = ", ".join(name.replace("_", " ") for name in broken)
                print(f"step {step}: an update was left out, not finite: {causes}")
                if in_a_row >= MAX_SKIPPED_IN_A_ROW:
                    stopped = True
                    break
                continue
            in_a_row = 0
            # Far enough from the policy that sampled: its samples say nothing more.
            if config.loss.approx_kl_stop and stats["approx_kl"] > config.loss.approx_kl_stop:
                stopped = True
                break
            optimizer.step()
            updates += 1
            for name, value in (stats | {"grad_norm": norm}).items():
                sums[name] = sums.get(name, 0.0) + value
        if stopped:
            break
    optimizer.zero_grad(set_to_none=True)
    means = {name: value / updates for name, value in sums.items()}
    given_up = in_a_row >= MAX_SKIPPED_IN_A_ROW or (skipped and not updates)
    return means | {
        "updates": updates,
        "skipped": skipped,
        "skipped_in_a_row": in_a_row,
        "broken": causes if given_up else "",
        "learning_rate": rates[0],
    }


def _losses(
    models: Models,
    rollout: Rollout,
    minibatch: Sequence[int],
    config: PPOConfig,
    *,
    train_policy: bool,
) -> dict[str, float]:
    """Accumulate the gradients of one minibatch; returns its losses and what describes it."""
    tokens = float(rollout.mask[list(minibatch)].sum())
    stats = dict.fromkeys(
        ("policy_loss", "value_loss", "clip_fraction", "approx_kl", "entropy"), 0.0
    )
    sizes = [len(p) + len(r) for p, r in zip(rollout.prompts, rollout.responses, strict=True)]
    # Processes share a minibatch by length, so that all have about as much to do.
    mine = models.group.balanced_share(sorted(minibatch, key=lambda i: (sizes[i], i)))
    microbatches = list(models.microbatches(sizes, mine))
    for rows, counts in models.group.pad_to_equal_count(microbatches, list(minibatch[:1])):
        with models.autocast():
            packed, hidden, picked, entropies = models.sharded_policy(
                models.forward, models.policy, rollout.prompts, rollout.responses, rows
            )
            # While the critic warms up, what it would pass on stops here.
            seen = hidden if train_policy else hidden.detach()
            values = packed.unpack(models.sharded_critic(models.critic, seen, packed))
        width = packed.width
        mask = rollout.mask[rows, :width]
        old, advantages = rollout.logprobs[rows, :width], rollout.advantages[rows, :width]
        logprobs = packed.unpack(picked)
        importance = rollout.importance
        policy_loss, clipped = ppo_math.policy_loss(
            logprobs,
            old,
            advantages,
            mask,
            clip=config.loss.clip,
            clip_high=config.loss.clip_high or None,
            dual_clip=config.loss.dual_clip or None,
            per_sequence=config.loss.average == "sequences",
            importance=None if importance is None else importance[rows, :width],
        )
        value_loss = ppo_math.value_loss(
            values,
            rollout.values[rows, :width],
            rollout.returns[rows, :width],
            mask,
            clip=config.critic.value_clip,
        )
        entropy = entropies.mean()
        # A microbatch weighs as much as its tokens (or responses) in the whole minibatch.
        by_tokens = counts * float(mask.sum()) / tokens
        by_rows = counts * len(rows) / len(minibatch)
        policy_weight = by_rows if config.loss.average == "sequences" else by_tokens
        loss = value_loss * by_tokens
        if train_policy:
            loss = (
                loss + policy_loss * policy_weight - config.loss.entropy_bonus * entropy * by_tokens
            )
        loss.backward()
        approximate = ppo_math.approximate_kl(logprobs.detach(), old, mask)
        stats["policy_loss"] += float(policy_loss.detach()) * policy_weight
        stats["value_loss"] += float(value_loss.detach()) * by_tokens
        stats["clip_fraction"] += float(clipped) * by_tokens
        stats["approx_kl"] += float(approximate) * by_tokens
        stats["entropy"] += float(entropy.detach()) * by_tokens
    return models.group.all_reduce_numbers(stats)


def _ptx_loss(models: Models, examples: Sequence[ptx.Example], weight: float) -> float:
    """Accumulate `weight` times the gradient of the mean negative log-likelihood of the examples'
    tokens, at temperature 1; returns that mean in nats (InstructGPT, eq. 2, third term)."""
    tokens = sum(len(e.response) for e in examples)
    sizes = [len(e.prompt) + len(e.response) for e in examples]
    mine = models.group.balanced_share(sorted(range(len(examples)), key=lambda i: (sizes[i], i)))
    prompts, responses = [e.prompt for e in examples], [e.response for e in examples]
    total = 0.0
    for rows, counts in models.group.pad_to_equal_count(
        list(models.microbatches(sizes, mine)), [0]
    ):
        with models.autocast():
            _, _, logprobs, _ = models.sharded_policy(
                models.forward, models.policy, prompts, responses, rows, 1.0
            )
        loss = -counts * logprobs.sum() / tokens
        (weight * loss).backward()
        total += float(loss.detach())
    return models.group.all_reduce_numbers({"ptx_loss": total})["ptx_loss"]


def roll_back(
    run_dir: Path, models: Models, optimizer: torch.optim.Optimizer, rollbacks: int, broken: str
) -> dict[str, Tensor]:
    """Weights, critic and optimizer as the last checkpoint has them; the steps go on from there.
    Returns the average of the weights as it has it. `broken` names what was not finite.

    `InputError` where there is none, or for the fourth time: then the settings are at fault.
    """
    checkpoint = find_checkpoint(run_dir)
    if checkpoint is None or rollbacks > MAX_ROLLBACKS:
        none = "" if checkpoint else ", and there is no checkpoint yet to go back to"
        raise InputError(
            f"What a rollout taught was not finite ({broken}), {rollbacks} times{none}; start again "
            "with a lower learning_rate, or from another policy."
        )
    saved, copies = load_checkpoint(checkpoint, models, optimizer)
    print(f"rolled back to the weights of step {saved.step}")
    return copies["average"]


def _check_scores(scores: Tensor, prompt_ids: Sequence[str]) -> None:
    broken = [i for i, score in enumerate(scores.tolist()) if not math.isfinite(score)]
    if broken:
        raise InputError(
            f"The reward of an answer to prompt {prompt_ids[broken[0]]} (and {len(broken) - 1} more) "
            "is not a finite number; mend the reward model or the rule that gave it."
        )


def liked_best(state: State) -> float:
    """The test-RM's mean of the policy that was kept."""
    return next(test for step, _, test in state.watched if step == state.best_step)


def tripped(watched: Sequence[tuple[int, float, float]], window: int, drop: float) -> bool:
    """Whether the policy has left behind the best that it was by the test-RM: beside the `window`
    looks that it liked best, the last ones have a mean of the test-RM's that is lower by more than
    `drop` while the train-RM's is higher (over-optimisation, Gao et al. 2023), or by more than
    `BOTH_FALL` times as much, whatever the train-RM says.

    Means of several looks, because single ones are noisy; beside the best, because the test-RM may
    fall so slowly that no look is far below the one before. A window of 0 never trips.
    """
    if window == 0 or len(watched) < 2 * window:
        return False

    def means(end: int) -> tuple[float, float]:
        looks = watched[end - window : end]
        return sum(r for _, r, _ in looks) / window, sum(t for _, _, t in looks) / window

    train, test = max(map(means, range(window, len(watched) - window + 1)), key=lambda m: m[1])
    last_train, last_test = means(len(watched))
    return last_test < test - drop * (1 if last_train > train else BOTH_FALL)


def choose(n_prompts: int, per_step: int, index: int, seed: int) -> list[int]:
    """The prompts of step `index` (from 0): a new shuffled order for every pass over them."""
    chosen: list[int] = []
    position = index * per_step
    while len(chosen) < per_step:
        passed, offset = divmod(position, n_prompts)
        order = list(range(n_prompts))
        random.Random(mix(seed, passed)).shuffle(order)
        taken = order[offset : offset + per_step - len(chosen)]
        chosen += taken
        position += len(taken)
    return chosen


def running_average(
    average: dict[str, Tensor], weights: dict[str, Tensor], decay: float
) -> dict[str, Tensor]:
    """decay * average + (1 - decay) * weights; the first average is the weights."""
    return {
        name: weight if name not in average else average[name].lerp(weight, 1 - decay)
        for name, weight in weights.items()
    }


def _check_enough(prompts: Sequence[Prompt], config: PPOConfig) -> None:
    if len(prompts) < config.rollout.prompts_per_step:
        raise InputError(
            f"data/prompts.jsonl has {len(prompts)} prompts that can be used, fewer than the "
            f"{config.rollout.prompts_per_step} of one step; add prompts or lower prompts_per_step."
        )


def _controller(config: PPOConfig) -> ppo_math.FixedKL | ppo_math.AdaptiveKL:
    if config.kl.controller == "fixed":
        return ppo_math.FixedKL(config.kl.weight)
    return ppo_math.AdaptiveKL(
        config.kl.weight, config.kl.target, config.kl.horizon, config.kl.error_clip
    )


def _rates(config: PPOConfig, step: int) -> tuple[float, float]:
    """Step size of policy and critic at a step (from 1). The policy's schedule begins with its first
    update: it would otherwise rise while the critic warms up, and begin at its peak."""

    def rate(peak: float, late: int) -> float:
        return learning_rate_at(
            step - 1 - late,
            peak=peak,
            warmup=config.optimizer.warmup_steps,
            total=config.steps - late,
            floor=config.optimizer.learning_rate_floor,
        )

    late = config.critic.warmup_steps
    policy = rate(config.optimizer.learning_rate, late) if step > late else 0.0
    return policy, rate(config.critic.learning_rate, 0)


def _minibatches(order: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Equal minibatches of about `size` rows: a small last one would count too much."""
    count = max(1, round(len(order) / size))
    for i in range(count):
        yield order[len(order) * i // count : len(order) * (i + 1) // count]


def _explained(returns: Tensor, values: Tensor, mask: Tensor) -> float:
    """Share of the returns' variance that the critic explains: 1 all, 0 none. Where returns are all
    alike there is nothing to explain: 0."""
    actual, left = returns[mask].var(correction=0), (returns - values)[mask].var(correction=0)
    return 1 - float(left / actual) if float(actual) > 1e-8 else 0.0


def _side_by_side(
    step: int,
    watch: Sequence[Prompt],
    before: Sequence[dict[str, Any]],
    after: Sequence[dict[str, Any]],
) -> Iterator[dict[str, Any]]:
    """The rows of samples.jsonl: what the policy of step 0 said to the watch prompts, and that of
    `step`."""
    for prompt, old, new in zip(watch, before, after, strict=True):
        yield {
            "step": step,
            "prompt_id": prompt.prompt_id,
            "messages": prompt.messages,
            "before": old["text"],
            "after": new["text"],
            "reward_before": old["reward"],
            "reward_after": new["reward"],
            "scores_before": old["scores"],
            "scores_after": new["scores"],
        }


if __name__ == "__main__":
    run_stage(main)
