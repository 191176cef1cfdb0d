"""Which policy a PPO run keeps, and when it stops: tripwire, KL budget, averages, rollback,
checkpoints.

None of this is part of PPO's algorithm, which is in `ppo`.
"""

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlhf.training import parallel
from rlhf.training.configs import PPOConfig
from rlhf.training.data import Prompt
from rlhf.training.ppo_checkpoint import State, load_checkpoint, trained_tensors, write_checkpoint
from rlhf.training.ppo_inputs import Inputs
from rlhf.training.ppo_math import AdaptiveKL, FixedKL
from rlhf.training.ppo_models import Models, derive_seed
from rlhf.training.ppo_updates import UpdateResult
from rlhf.training.rollouts import MAX_GAP
from rlhf.training.rundir import log
from rlhf.training.rundir.checkpoints import find_checkpoint, save_checkpoint
from rlhf.training.rundir.errors import InputError, Stopped
from rlhf.training.rundir.process import StopRequest

Weights = dict[str, Tensor]

MIN_IMPROVEMENT = 0.02
"""A later policy replaces the kept one if its test-RM score is higher by this, in standard
deviations of the reference."""

MAX_FLOAT32_GAP = 0.01
"""The largest difference of log-probabilities (nats) in float32 that rounding explains."""

BOTH_FALL = 2
"""The tripwire's drop is multiplied by this if the train-RM's mean falls too: that is not
over-optimization, but a collapse of the policy, or noise."""

MAX_ROLLBACKS = 3
"""The run fails after this many rollbacks to the last checkpoint."""


class PolicyKeeper:
    """The copies of the policy that a run keeps, and the state that decides about them. A
    checkpoint has all of it.
    """

    def __init__(
        self,
        run_dir: Path,
        config: PPOConfig,
        models: Models,
        optimizer: torch.optim.Optimizer,
        watch_prompts: Sequence[Prompt],
    ) -> None:
        self.run_dir, self.config = run_dir, config
        self.models, self.optimizer = models, optimizer
        self.watch_prompts = watch_prompts
        self.state = State(kl_weight=config.kl.weight, multiplier=config.lagrange.multiplier)
        self.best: Weights = {}
        """The policy that the test-RM scored highest."""
        self.within_budget: Weights = {}
        """The last policy whose rollout was within the KL budget."""
        self.average: Weights = {}
        """The exponential moving average of the policy's weights."""

    # --- Start and resume ----------------------------------------------------------------------

    def start_or_resume(self, inputs: Inputs, kl_controller: FixedKL | AdaptiveKL) -> None:
        """Resume from the last checkpoint; without one, measure the scores' scale and answer the
        watch prompts with the first policy."""
        models, reward = self.models, self.models.reward
        if (checkpoint := find_checkpoint(self.run_dir)) is not None:
            self.state, copies = load_checkpoint(checkpoint, models, self.optimizer)
            self.best, self.average = copies["best"], copies["average"]
            self.within_budget = copies["within"]
            kl_controller.weight = self.state.kl_weight
            reward.multiplier.value = self.state.multiplier
            reward.scales = self.state.scales
        else:
            if n := self.config.reward.normalize_samples:
                models.normalize(*inputs.choose(n, 0, derive_seed(self.config.seed, -2)))
                self.state.scales = reward.scales
            if self.watch_prompts:
                self.state.before, _ = self._answer_watch_prompts()
        models.group.barrier()  # until all processes have read the checkpoint

    @property
    def should_continue(self) -> bool:
        """Whether there is another step to do."""
        return self.state.step < self.config.steps and not self.state.stop_reason

    # --- Within a step, in this order ----------------------------------------------------------

    def watch(self) -> dict[str, float]:
        """Score the policy on the watch prompts, if it is time; keep it if it is the best so far,
        and stop the run if the tripwire trips. Returns the means for the curves."""
        state, tripwire = self.state, self.config.tripwire
        if not self.watch_prompts or state.step % tripwire.watch_every:
            return {}
        _, means = self._answer_watch_prompts()
        state.watched.append((state.step, means["reward"], means["test"]))
        if self.models.reward.test_scorer is None:
            return {"watch_reward": means["reward"]}
        # A later policy replaces an earlier one only with a clearly higher score: the test-RM is
        # less reliable further from the reference, so among equals the nearest to it is the safest.
        if len(state.watched) == 1 or means["test"] > self._best_score() + MIN_IMPROVEMENT:
            state.best_step = state.step
            if tripwire.evaluations:
                self.best = self.models.trained_weights()
        if is_tripped(state.watched, tripwire.evaluations, tripwire.drop):
            state.stop_reason = "tripwire"
            self.models.restore(self.best)
        return {"watch_reward": means["reward"], "test_reward": means["test"]}

    def check_start(self, logprobs: Tensor, reference_logprobs: Tensor, mask: Tensor) -> None:
        """`InputError` if policy and reference are the same model and yet differ before the first
        update; log-probabilities (B, T) in nats."""
        if self.state.step or Path(self.config.policy) != Path(self.config.reference):
            return
        gap = float((logprobs - reference_logprobs)[mask].abs().quantile(0.9))
        limit = MAX_GAP if self.models.is_bfloat16 else MAX_FLOAT32_GAP
        if gap > limit:
            raise InputError(
                "Policy and reference are the same model, and before the first update their "
                f"log-probabilities differ by {gap:.2g} nats in a tenth of the tokens ({limit:.2g} is "
                "the most that rounding explains): this architecture is not sampled or not read "
                "correctly. Take another model."
            )

    def keep_within_budget(self, mean_kl: float) -> None:
        """Before the updates: copy the policy if its rollout's KL (nats per response) was within
        the budget; the first one in any case."""
        budget = self.config.kl.budget
        if budget and (mean_kl <= budget or not self.within_budget):
            self.within_budget = self.models.trained_weights()
            self.state.within_step = self.state.step

    def after_updates(self, updates: UpdateResult) -> None:
        """Go back to the last checkpoint if weights broke; then move the averages."""
        state, models = self.state, self.models
        state.skipped += updates.skipped
        state.skipped_in_a_row = updates.skipped_in_a_row
        # Weights go back to the last checkpoint; the steps go on.
        if updates.broken or not models.are_finite():
            state.rollbacks, state.skipped_in_a_row = state.rollbacks + 1, 0
            cause = updates.broken or "weights after an update"
            self.average = roll_back(self.run_dir, models, self.optimizer, state.rollbacks, cause)
        models.update_reference()
        if decay := self.config.ema.decay:
            self.average = moving_average(self.average, models.trained_weights(), decay)

    def end_step(
        self, step: int, seconds: float, metrics: dict[str, float], kl_weight: float
    ) -> None:
        """Record the step in the state; `kl_weight` is the next step's."""
        state = self.state
        state.step, state.kl_weight = step, kl_weight
        state.multiplier = self.models.reward.multiplier.value
        state.reward = metrics["reward"]
        state.kl = metrics["kl"] if math.isfinite(metrics["kl"]) else state.kl  # JSON has no NaN
        state.seconds += seconds
        state.samples += self.config.responses_per_step

    def stop_or_save(self, mean_kl: float, stop: StopRequest) -> None:
        """Apply the KL budget to the step's rollout, and write a checkpoint if it is time.

        Raises `Stopped`, after a checkpoint, if any process was asked to stop.
        """
        if self.config.kl.budget and mean_kl > self.config.kl.budget:
            self.state.stop_reason = "kl_budget"
            self.models.restore(self.within_budget)
        is_stopping = self.models.group.any(stop.requested)
        if is_stopping or self.state.step % self.config.checkpoint_every == 0:
            self._save_checkpoint()
        if is_stopping:
            parallel.destroy_process_group(self.models.group)
            raise Stopped

    # --- At the end -----------------------------------------------------------------------------

    def finish(self) -> tuple[int, list[dict[str, Any]]]:
        """Make the policy the one that the run keeps; returns its step, and its answers to the
        watch prompts as rows of samples.jsonl have them."""
        state = self.state
        kept_steps = {"tripwire": state.best_step, "kl_budget": state.within_step}
        kept_step = kept_steps.get(state.stop_reason, state.step)
        if not state.stop_reason and self.config.ema.export == "policy":
            self.models.restore(self.average)
        if not self.watch_prompts:
            return kept_step, []
        answers, means = self._answer_watch_prompts()
        has_test = self.models.reward.test_scorer is not None and state.stop_reason != "tripwire"
        if has_test and means["test"] > self._best_score() + MIN_IMPROVEMENT:
            state.best_step = kept_step
        return kept_step, answers

    def _answer_watch_prompts(self) -> tuple[list[dict[str, Any]], dict[str, float]]:
        return self.models.sample_and_judge(self.watch_prompts, seed=self.config.seed)

    def _best_score(self) -> float:
        """The test-RM's mean of the best policy so far."""
        state = self.state
        return next(test for step, _, test in state.watched if step == state.best_step)

    def _save_checkpoint(self) -> None:
        tensors = trained_tensors(self.models, self.optimizer)
        copies = {"best": self.best, "within": self.within_budget, "average": self.average}
        tensors |= {name: weights for name, weights in copies.items() if weights}
        if self.models.group.is_main_process:
            write = functools.partial(write_checkpoint, tensors, self.state)
            save_checkpoint(self.run_dir, write)


def is_tripped(watched: Sequence[tuple[int, float, float]], window: int, drop: float) -> bool:
    """Whether the policy is clearly past its best by the test-RM; `watched` as in `State`.

    Compares the means of the last `window` evaluations with those of the best `window` in a row.
    The tripwire trips if the test-RM's mean fell by more than `drop` while the train-RM's rose
    (over-optimization, Gao et al. 2023), or by `BOTH_FALL` times as much in any case. Single
    evaluations are noisy, and a slow fall shows only against the best. A window of 0 never trips.
    """
    if window == 0 or len(watched) < 2 * window:
        return False

    def means(end: int) -> tuple[float, float]:
        evaluations = watched[end - window : end]
        train = sum(reward for _, reward, _ in evaluations) / window
        return train, sum(test for _, _, test in evaluations) / window

    ends = range(window, len(watched) - window + 1)
    best_train, best_test = max(map(means, ends), key=lambda train_and_test: train_and_test[1])
    last_train, last_test = means(len(watched))
    return last_test < best_test - drop * (1 if last_train > best_train else BOTH_FALL)


def moving_average(average: Weights, weights: Weights, decay: float) -> Weights:
    """decay * average + (1 - decay) * weights; the first average is the weights."""
    return {
        name: weight if name not in average else average[name].lerp(weight, 1 - decay)
        for name, weight in weights.items()
    }


def roll_back(
    run_dir: Path, models: Models, optimizer: torch.optim.Optimizer, rollbacks: int, cause: str
) -> Weights:
    """Load weights, critic and optimizer from the last checkpoint, and return its average of the
    weights. `cause` names what was not finite.

    `InputError` without a checkpoint, or the fourth time: then the settings are at fault.
    """
    checkpoint = find_checkpoint(run_dir)
    if checkpoint is None or rollbacks > MAX_ROLLBACKS:
        missing = "" if checkpoint else ", and there is no checkpoint yet to go back to"
        raise InputError(
            f"The updates of a rollout were not finite ({cause}), {rollbacks} times{missing}; start "
            "again with a lower optimizer.learning_rate, or from another policy."
        )
    saved, copies = load_checkpoint(checkpoint, models, optimizer)
    log.warning(f"rolled back to the weights of step {saved.step}")
    return copies["average"]
