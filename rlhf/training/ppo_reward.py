"""What PPO climbs: the train-RM's opinion of a text, made one number; and what watches beside it.

Llama 2's rule where safety is one of several axes, weights, or a Lagrange multiplier (Safe RLHF, Dai
et al. 2023) combine the axes; rules add points of their own. The test-RM is asked about the watch
prompts alone, and nothing is ever trained on what it says.
"""

import filecmp
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlhf.training import parallel, reward_math, reward_shaping
from rlhf.training.configs import PPOConfig
from rlhf.training.data import Prompt
from rlhf.training.reward_models.folder import load_reward_model
from rlhf.training.reward_models.model import RewardModel, member_scores_in_parallel
from rlhf.training.reward_models.scale import ScoreScale
from rlhf.training.rewards import rules_of
from rlhf.training.rundir.errors import InputError

NOT_COUNTED = {"helpfulness": "harmful", "safety": "harmless"}
"""Helpfulness on a harmful prompt is no merit, and safety on a harmless one says little."""


class Reward:
    """The reward models, the rules and the multiplier; each process of a group scores its share."""

    def __init__(
        self,
        config: PPOConfig,
        device: torch.device,
        dtype: torch.dtype,
        group: parallel.Group,
    ) -> None:
        self.config, self.group = config, group
        self.scorer = load_reward_model(config.reward_model, device=device, dtype=dtype)
        self.test_scorer = (
            load_reward_model(
                config.test_reward_model,
                device=device,
                dtype=dtype,
                prior=self.scorer.prior if _same_prior(config) else None,
            )
            if config.test_reward_model
            else None
        )
        for scorer in self.scorers:
            scorer.scale.change_unit(config.reward.scale)
        self.rules = rules_of(config.rule_rewards)
        self.multiplier = self._new_multiplier()
        self._check()

    @property
    def scorers(self) -> list[RewardModel]:
        """The train-RM and, where there is one, the test-RM."""
        return [self.scorer, *([] if self.test_scorer is None else [self.test_scorer])]

    @property
    def scales(self) -> list[dict[str, Any]]:
        """What makes the scores of each reward model comparable, as numbers for a file."""
        return [
            {"mean": s.scale.mean, "scale": s.scale.deviation, "reference": s.scale.reference}
            for s in self.scorers
        ]

    @scales.setter
    def scales(self, given: Sequence[dict[str, Any]]) -> None:
        for scorer, scale in zip(self.scorers, given, strict=False):
            scorer.scale = ScoreScale(scale["mean"], scale["scale"], scale["reference"])

    def judge(
        self, prompts: Sequence[Prompt], texts: Sequence[str]
    ) -> tuple[Tensor, dict[str, float]]:
        """The score of each response (B,), which PPO climbs, and the means of its parts for the
        curves."""
        risks = [p.risk for p in prompts]
        said = self._opinions(self.scorer, [p.messages for p in prompts], texts)
        axes = self._axes(said, self.config.reward.ensemble)
        total = self._combined(self.scorer, axes, risks, self.multiplier)
        told = {axis: _mean_where(s, risks, NOT_COUNTED.get(axis)) for axis, s in axes.items()}
        for axis, s in said.items():
            if s.shape[1] > 1:
                told[f"disagreement_{axis}"] = float(s.std(dim=1, unbiased=False).mean())
        if self.config.reward.combine == "lagrange":
            told["cost"] = -float(axes["safety"].mean())
            told["multiplier"] = self.multiplier.value
        for rule, points in self._points(prompts, texts).items():
            told[f"rule_{rule}"] = float(points.mean())
            total = total + self.config.rule_rewards.weights[rule] * points
        return total, told

    def by_ending(self, scores: Tensor, lengths: Sequence[int], finished: Tensor) -> Tensor:
        """Scores (B,) after what responses of `lengths` tokens lose for being nearly too long, and
        with a fixed score for those that did not end; on the device of `finished` (B,)."""
        config = self.config
        if config.reward.overlong_buffer:
            scores = scores - reward_shaping.overlong_penalty(
                torch.tensor(lengths),
                longest=config.rollout.max_new_tokens,
                buffer=config.reward.overlong_buffer,
                penalty=config.reward.overlong_penalty,
            )
        return reward_shaping.replace_unfinished(
            scores.to(finished.device), finished, config.reward.no_eos_score
        )

    def watch(
        self, prompts: Sequence[Prompt], texts: Sequence[str], finished: Tensor
    ) -> tuple[list[dict[str, Any]], dict[str, float]]:
        """What both RMs say of one response to each watch prompt; `finished` (B,) bool, which ended.

        Returns a row for each prompt, and the means of the `reward` (train-RM) and of `test`, by
        which the tripwire goes. Both are the reward models' word alone, and on one scale from the
        first look to the last: without the rules, of which more points would hide that a reward
        model likes the responses less, and under `lagrange` with the multiplier's first value,
        since a growing one lowers the score of a policy that stays the same. The rows' `reward` is
        on that scale too, with the rules. The test-RM speaks with the mean of its members: only the
        scores that PPO climbs are made sceptical.
        """
        conversations, risks = [p.messages for p in prompts], [p.risk for p in prompts]

        def watched(scorer: RewardModel, said: dict[str, Tensor], how: str) -> Tensor:
            return self._combined(scorer, self._axes(said, how), risks, self._new_multiplier())

        def mean(scores: Tensor) -> float:
            ended = reward_shaping.replace_unfinished(
                scores, finished, self.config.reward.no_eos_score
            )
            return float(ended.mean())

        said = self._opinions(self.scorer, conversations, texts)
        scores = watched(self.scorer, said, self.config.reward.ensemble)
        means = {"reward": mean(scores), "test": 0.0}
        if self.test_scorer is not None:
            more = self._opinions(self.test_scorer, conversations, texts)
            means["test"] = mean(watched(self.test_scorer, more, "mean"))
        for rule, points in self._points(prompts, texts).items():
            scores = scores + self.config.rule_rewards.weights[rule] * points
        rewards = reward_shaping.replace_unfinished(
            scores, finished, self.config.reward.no_eos_score
        )
        axes = self._axes(said, "mean")
        rows = [
            {
                "text": text,
                "reward": float(rewards[i]),
                "scores": {axis: float(s[i]) for axis, s in axes.items()},
            }
            for i, text in enumerate(texts)
        ]
        return rows, means

    def normalise(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> None:
        """Measure mean and deviation of both reward models anew, on these answers."""
        for scorer in self.scorers:
            said = self._opinions(scorer, [p.messages for p in prompts], texts, standardized=False)
            means = {axis: s.mean(dim=1) for axis, s in said.items()}
            scorer.scale.fit(means, [p.risk for p in prompts])
            scorer.scale.change_unit(self.config.reward.scale)

    def _axes(self, said: dict[str, Tensor], how: str) -> dict[str, Tensor]:
        """One score (B,) for each axis of what the members say (B, M)."""
        penalty = self.config.reward.ensemble_penalty
        return {
            axis: reward_math.combine_members(s, how, penalty=penalty) for axis, s in said.items()
        }

    def _combined(
        self,
        scorer: RewardModel,
        axes: dict[str, Tensor],
        risks: Sequence[str],
        multiplier: reward_shaping.Multiplier,
    ) -> Tensor:
        """One score (B,) of the axes' scores, before any rule."""
        if self.config.reward.combine == "lagrange":
            total = multiplier.reward(axes["helpfulness"], axes["safety"])
        elif self.config.reward.combine == "threshold":
            total = scorer.combine(axes, risks, threshold=self.config.reward.safety_threshold)
        else:
            total = sum(
                (self.config.reward.weights.get(axis, 1.0) * s for axis, s in axes.items()),
                start=torch.zeros(len(risks)),
            )
        if self.config.reward.clip:
            total = total.clamp(-self.config.reward.clip, self.config.reward.clip)
        return total

    def _points(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> dict[str, Tensor]:
        """What each rule gives to each response (B,), before its weight."""
        return {rule: torch.tensor(of(prompts, texts)) for rule, of in self.rules.items()}

    def _opinions(
        self,
        scorer: RewardModel,
        conversations: Sequence[Any],
        texts: Sequence[str],
        *,
        standardized: bool = True,
    ) -> dict[str, Tensor]:
        """What each member of the scorer says of each axis (B, M)."""
        size = self.config.optimizer.microbatch_size
        return member_scores_in_parallel(
            scorer, conversations, texts, self.group, batch_size=size, standardized=standardized
        )

    def _new_multiplier(self) -> reward_shaping.Multiplier:
        """The multiplier of `lagrange` as the run begins."""
        config = self.config
        return reward_shaping.Multiplier(
            config.lagrange.multiplier, config.lagrange.cost_limit, config.lagrange.rate
        )

    def _check(self) -> None:
        """`InputError` where a reward model lacks what the configuration asks of it."""
        config = self.config
        for name, scorer in zip(("reward model", "test reward model"), self.scorers, strict=False):
            axes = scorer.every_axis
            scored = f"the {name} scores {' and '.join(axes)} only"
            if config.reward.combine == "lagrange" and not {"helpfulness", "safety"} <= set(axes):
                raise InputError(
                    "combine is 'lagrange', which needs a helpfulness and a safety score, but "
                    f"{scored}; set combine to 'weights', or train it on both axes."
                )
            if unknown := sorted(set(config.reward.weights) - set(axes)):
                raise InputError(
                    f"weights has {unknown[0]!r}, but {scored}; leave it out, or train it on that "
                    "axis."
                )
        members = max(self.scorer.members_of(axis) for axis in self.scorer.every_axis)
        if config.reward.ensemble != "mean" and members == 1:
            raise InputError(
                f"ensemble is {config.reward.ensemble!r}, but the reward model has one member, which agrees "
                "with itself; set ensemble to 'mean', or train one with more members."
            )


def _same_prior(config: PPOConfig) -> bool:
    """Whether both reward models were given the same untrained trunk, which then need be held once."""
    one, two = (Path(p) / "prior" for p in (config.reward_model, config.test_reward_model))
    names = sorted(file.name for file in one.glob("*"))
    return (
        bool(names)
        and two.is_dir()
        and names == sorted(file.name for file in two.glob("*"))
        and filecmp.cmpfiles(one, two, names, shallow=False)[0] == names
    )


def _mean_where(scores: Tensor, risks: Sequence[str], left_out: str | None) -> float:
    kept = [i for i, risk in enumerate(risks) if risk != left_out]
    return float(scores[kept].mean()) if kept else float(scores.mean())
