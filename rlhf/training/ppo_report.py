"""The outputs of a PPO run: metrics and progress of each step, samples, the policy, the result."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlhf.training import parallel, ppo_math
from rlhf.training.configs import PPOConfig
from rlhf.training.data import Prompt
from rlhf.training.intervals import wilson
from rlhf.training.ppo_keeper import PolicyKeeper
from rlhf.training.ppo_updates import Rollout
from rlhf.training.rundir import AVERAGE, POLICY
from rlhf.training.rundir.files import write_jsonl
from rlhf.training.rundir.reports import (
    MetricsWriter,
    read_metrics,
    write_result,
)
from rlhf.training.sampling import Sampled


class StepClock:
    """How long each part of a step takes."""

    def __init__(self) -> None:
        self._began = self._last = time.monotonic()
        self.seconds: dict[str, float] = {}

    def mark(self, part: str) -> None:
        """The part has ended, and the next begins."""
        now = time.monotonic()
        self.seconds[part], self._last = now - self._last, now

    @property
    def total(self) -> float:
        """Seconds from the start to the last mark."""
        return self._last - self._began


def describe_rollout(
    rollout: Rollout, reference_logprobs: Tensor, scores: Tensor, responses: Sequence[Sampled]
) -> dict[str, float]:
    """Means over a rollout's responses, for the curves; KL in nats per response."""
    logprobs, mask = rollout.logprobs, rollout.mask
    kl_k1 = ppo_math.kl_k1(logprobs, reference_logprobs) * mask
    kl_k3 = ppo_math.kl_k3(logprobs, reference_logprobs) * mask
    finished = torch.tensor([response.finished for response in responses], device=mask.device)
    return {
        "reward": float(scores.mean()),
        "kl": float(kl_k3.sum(dim=1).mean()),
        "kl_k1": float(kl_k1.sum(dim=1).mean()),
        "length": float(mask.sum()) / len(responses),
        "finished_fraction": float(finished.float().mean()),
        "value_explained": ppo_math.explained_variance(rollout.returns, rollout.values, mask),
    }


class RunReport:
    """The files of one run; only the main process writes them."""

    def __init__(self, run_dir: Path, keeper: PolicyKeeper) -> None:
        self.run_dir, self.keeper = run_dir, keeper
        self.config: PPOConfig = keeper.config
        self.group = keeper.models.group
        self.metrics = (
            MetricsWriter(run_dir, resume_after=keeper.state.step)
            if self.group.is_main_process
            else None
        )

    def write_step(self, step: int, clock: StepClock, metrics: dict[str, float]) -> None:
        """A line of metrics.jsonl, and progress.json."""
        if self.metrics is None:
            return
        state, steps = self.keeper.state, self.config.steps
        self.metrics.write(
            step,
            **metrics,
            skipped_updates=state.skipped,
            rollbacks=state.rollbacks,
            samples_per_second=self.config.responses_per_step / clock.total,
            **{f"seconds_{part}": seconds for part, seconds in clock.seconds.items()},
        )
        self.keeper.models.progress.of_run(
            step,
            steps,
            "steps",
            f"reward {state.reward:+.2f}, KL {metrics['kl']:.2f}",
            state.seconds / step * (steps - step),
        )

    def write_outputs(self) -> None:
        """samples.jsonl, policy/, average/ and result.json of the policy that the run keeps."""
        keeper, models, group = self.keeper, self.keeper.models, self.group
        kept_step, after = keeper.finish()
        state = keeper.state
        if keeper.watch_prompts and group.is_main_process:
            rows = _side_by_side(kept_step, keeper.watch_prompts, state.before, after)
            write_jsonl(self.run_dir / "samples.jsonl", list(rows))
        fraction = parallel.local_fraction([p for _, p in models.trained()])
        fractions = group.all_gather([fraction], group.size)
        weights = models.trained_weights() if group.sharded else {}
        parallel.destroy_process_group(group)
        if self.metrics is None:
            return
        self.metrics.close()
        models.save(self.run_dir / POLICY, weights)
        if self.config.ema.export == "beside" and keeper.average:
            models.save(self.run_dir / AVERAGE, keeper.average)
        write_result(
            self.run_dir,
            {
                "steps": state.step,
                "stop_reason": state.stop_reason or "steps",
                "reward": state.reward,
                "kl": state.kl,
                "unfinished": self._unfinished(),
                "samples_per_second": state.samples / max(state.seconds, 1e-9),
                "best_step": state.best_step,
                "kept_step": kept_step,
                "skipped_updates": state.skipped,
                "rollbacks": state.rollbacks,
                "seconds": state.seconds,
                "processes": group.size,
                "held": fractions,
            },
        )

    def _unfinished(self) -> dict[str, Any] | None:
        """The share of the last rollout's responses without an end, with its Wilson interval."""
        last = read_metrics(self.run_dir, after_step=self.keeper.state.step - 1)
        if not last:
            return None
        share, n = 1 - last[-1]["finished_fraction"], self.config.rollout.prompts_per_step
        return {"value": share, "ci": list(wilson(share, n)), "n": n}


def _side_by_side(
    step: int,
    prompts: Sequence[Prompt],
    before: Sequence[dict[str, Any]],
    after: Sequence[dict[str, Any]],
) -> Iterator[dict[str, Any]]:
    """The rows of samples.jsonl: the answers to the watch prompts by the policies of step 0 and of
    `step`."""
    for prompt, old, new in zip(prompts, before, after, strict=True):
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
            "finished_before": old.get("finished"),  # a checkpoint of an earlier version has none
            "finished_after": new.get("finished"),
        }
