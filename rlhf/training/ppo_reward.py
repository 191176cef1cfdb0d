"""The score that PPO optimizes, from the train-RM and rules; and the test-RM, which only measures.

The axes are combined by Llama 2's rule (if safety is one of several), by weights, or by a Lagrange
multiplier (Safe RLHF, Dai et al. 2023); rules add points. The test-RM scores the watch prompts
alone, and nothing is trained on its scores.
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
from rlhf.training.reward_models.model import OnBatch, RewardModel, member_scores_in_parallel
from rlhf.training.reward_models.scale import ScoreScale
from rlhf.training.rewards import rules_of
from rlhf.training.rundir.errors import InputError

NOT_COUNTED = {"helpfulness": "harmful", "safety": "harmless"}
"""Prompts that do not count for an axis: helpfulness on harmful prompts is not good, and safety on
harmless prompts says little."""


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
        self.on_batch: OnBatch = lambda done, total: None
        most = config.optimizer.tokens_per_pass
        self.scorer = load_reward_model(
            config.reward_model, device=device, dtype=dtype, tokens_per_pass=most
        )
        self.test_scorer = (
            load_reward_model(
                config.test_reward_model,
                device=device,
                dtype=dtype,
                prior=self.scorer.prior if _same_prior(config) else None,
                tokens_per_pass=most,
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
        """Mean, deviation and reference of each reward model's scores, for a checkpoint."""
        return [
            {"mean": s.scale.mean, "scale": s.scale.deviation, "reference": s.scale.reference}
            for s in self.scorers
        ]

    @scales.setter
    def scales(self, given: Sequence[dict[str, Any]]) -> None:
        for scorer, scale in zip(self.scorers, given, strict=False):
            scorer.scale = ScoreScale(scale["mean"], scale["scale"], scale["reference"])

    def score(
        self, prompts: Sequence[Prompt], texts: Sequence[str]
    ) -> tuple[Tensor, dict[str, float]]:
        """The score of each response (B,), before `shape_by_ending`, and the means of its parts for
        the curves."""
        risks = [p.risk for p in prompts]
        member_scores = self._member_scores(self.scorer, [p.messages for p in prompts], texts)
        axes = self._axis_scores(member_scores, self.config.reward.ensemble)
        total = self._combine(self.scorer, axes, risks, self.multiplier)
        means = {axis: _mean_where(s, risks, NOT_COUNTED.get(axis)) for axis, s in axes.items()}
        for axis, s in member_scores.items():
            if s.shape[1] > 1:
                means[f"disagreement_{axis}"] = float(s.std(dim=1, unbiased=False).mean())
        if self.config.reward.combine == "lagrange":
            means["cost"] = -float(axes["safety"].mean())
            means["multiplier"] = self.multiplier.value
        for rule, points in self._rule_points(prompts, texts).items():
            means[f"rule_{rule}"] = float(points.mean())
            total = total + self.config.rule_rewards.weights[rule] * points
        return total, means

    def shape_by_ending(self, scores: Tensor, lengths: Sequence[int], finished: Tensor) -> Tensor:
        """Scores (B,) minus the penalty for responses of nearly too many tokens, and a fixed score
        for responses without an end token; on the device of `finished` (B,) bool."""
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
        """Both RMs' scores of one response to each watch prompt; `finished` (B,) bool: which ended.

        Returns a row for each prompt, and the means for the tripwire: `reward` (train-RM) and
        `test`. Both means stay on one scale for the whole run. They leave out the rules, whose
        points could hide that a reward model's score falls. Under `lagrange` they use the
        multiplier's first value, because a growing one would lower the score of an unchanged
        policy. The rows' `reward` is on that scale too, with the rules. The test-RM uses the mean
        of its members: only the scores that PPO optimizes are pessimistic.
        """
        conversations, risks = [p.messages for p in prompts], [p.risk for p in prompts]

        def combine(scorer: RewardModel, members: dict[str, Tensor], ensemble: str) -> Tensor:
            axes = self._axis_scores(members, ensemble)
            return self._combine(scorer, axes, risks, self._new_multiplier())

        def mean(scores: Tensor) -> float:
            ended = reward_shaping.replace_unfinished(
                scores, finished, self.config.reward.no_eos_score
            )
            return float(ended.mean())

        member_scores = self._member_scores(self.scorer, conversations, texts)
        scores = combine(self.scorer, member_scores, self.config.reward.ensemble)
        means = {"reward": mean(scores), "test": 0.0}
        if self.test_scorer is not None:
            test_scores = self._member_scores(self.test_scorer, conversations, texts)
            means["test"] = mean(combine(self.test_scorer, test_scores, "mean"))
        for rule, points in self._rule_points(prompts, texts).items():
            scores = scores + self.config.rule_rewards.weights[rule] * points
        rewards = reward_shaping.replace_unfinished(
            scores, finished, self.config.reward.no_eos_score
        )
        axes = self._axis_scores(member_scores, "mean")
        rows = [
            {
                "text": text,
                "reward": float(rewards[i]),
                "scores": {axis: float(s[i]) for axis, s in axes.items()},
                "finished": bool(finished[i]),
            }
            for i, text in enumerate(texts)
        ]
        return rows, means

    def normalize(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> None:
        """Measure mean and deviation of both reward models on these answers."""
        for scorer in self.scorers:
            member_scores = self._member_scores(
                scorer, [p.messages for p in prompts], texts, standardized=False
            )
            means = {axis: s.mean(dim=1) for axis, s in member_scores.items()}
            scorer.scale.fit(means, [p.risk for p in prompts])
            scorer.scale.change_unit(self.config.reward.scale)

    def update_multiplier(self, means: dict[str, float]) -> None:
        """Move the Lagrange multiplier by the mean cost of a rollout, if there is one."""
        if self.config.reward.combine == "lagrange":
            self.multiplier.update(means["cost"])

    def _axis_scores(self, members: dict[str, Tensor], ensemble: str) -> dict[str, Tensor]:
        """One score (B,) for each axis from its members' scores (B, M)."""
        penalty = self.config.reward.ensemble_penalty
        return {
            axis: reward_math.combine_members(scores, ensemble, penalty=penalty)
            for axis, scores in members.items()
        }

    def _combine(
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

    def _rule_points(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> dict[str, Tensor]:
        """The points of each rule for each response (B,), before its weight."""
        return {name: torch.tensor(rule(prompts, texts)) for name, rule in self.rules.items()}

    def _member_scores(
        self,
        scorer: RewardModel,
        conversations: Sequence[Any],
        texts: Sequence[str],
        *,
        standardized: bool = True,
    ) -> dict[str, Tensor]:
        """Each member's scores of each axis (B, M)."""
        size = self.config.optimizer.microbatch_size
        return member_scores_in_parallel(
            scorer,
            conversations,
            texts,
            self.group,
            batch_size=size,
            standardized=standardized,
            on_batch=self.on_batch,
        )

    def _new_multiplier(self) -> reward_shaping.Multiplier:
        """The Lagrange multiplier as the run begins."""
        config = self.config
        return reward_shaping.Multiplier(
            config.lagrange.multiplier, config.lagrange.cost_limit, config.lagrange.rate
        )

    def _check(self) -> None:
        """`InputError` if a reward model lacks what the configuration needs."""
        config = self.config
        for name, scorer in zip(("reward model", "test reward model"), self.scorers, strict=False):
            axes = scorer.every_axis
            scored = f"the {name} scores {' and '.join(axes)} only"
            if config.reward.combine == "lagrange" and not {"helpfulness", "safety"} <= set(axes):
                raise InputError(
                    "reward.combine = lagrange needs a helpfulness and a safety score, but "
                    f"{scored}; set reward.combine to weights, or train it on both axes."
                )
            if unknown := sorted(set(config.reward.weights) - set(axes)):
                raise InputError(
                    f"reward.weights has {unknown[0]!r}, but {scored}; leave it out, or train it on that "
                    "axis."
                )
        members = max(self.scorer.members_of(axis) for axis in self.scorer.every_axis)
        if config.reward.ensemble != "mean" and members == 1:
            raise InputError(
                f"reward.ensemble is {config.reward.ensemble}, but the reward model has one member; set "
                "reward.ensemble to mean, or train a reward model with more members."
            )


def _same_prior(config: PPOConfig) -> bool:
    """Whether both reward models have the same prior, which is then loaded once."""
    train, test = (Path(p) / "prior" for p in (config.reward_model, config.test_reward_model))
    names = sorted(file.name for file in train.glob("*"))
    return (
        bool(names)
        and test.is_dir()
        and names == sorted(file.name for file in test.glob("*"))
        and filecmp.cmpfiles(train, test, names, shallow=False)[0] == names
    )


def _mean_where(scores: Tensor, risks: Sequence[str], left_out: str | None) -> float:
    kept = [i for i, risk in enumerate(risks) if risk != left_out]
    return float(scores[kept].mean()) if kept else float(scores.mean())
