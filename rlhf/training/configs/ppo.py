"""The configuration of the stage `ppo`; its groups of settings are in `ppo_groups.py`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from rlhf.training.configs.ppo_groups import (
    AdvantageSettings,
    CriticSettings,
    EMASettings,
    KLSettings,
    LagrangeSettings,
    LoRASettings,
    LossSettings,
    OptimizerSettings,
    PTXSettings,
    RewardSettings,
    RolloutSettings,
    RuleSettings,
    TripwireSettings,
)
from rlhf.training.configs.shared import ModelConfig, sharded_setting
from rlhf.training.settings import group, required, setting


@dataclass(frozen=True, kw_only=True)
class PPOConfig(ModelConfig):
    """Proximal policy optimization against a reward model, with a KL penalty to a reference."""

    policy: str = required("The policy to refine: a model folder, or a name on the model hub.")
    reference: str = required("The model that the KL penalty refers to; often the base policy.")
    reward_model: str = required("The train-RM: the train/ folder of the reward_model stage.")
    test_reward_model: str = setting(
        "", "The test-RM, which watches and never trains: the test/ folder. Empty: none."
    )
    steps: int = setting(14, "Rollouts, each followed by its updates.", minimum=1)
    checkpoint_every: int = setting(5, "Rollouts between two checkpoints.", minimum=1)
    sharded: bool = sharded_setting()
    processes: int = setting(
        0,
        "Processes on this machine (Linux) that share the work and its CPU threads; torchrun's "
        "replace them. 0: one per thread, at most 4, for policies up to 20 million parameters, "
        "where that is faster, else 1.",
        minimum=0,
        maximum=256,
    )

    rollout: RolloutSettings = group(RolloutSettings, "Rollouts")
    reward: RewardSettings = group(RewardSettings, "Reward")
    lagrange: LagrangeSettings = group(LagrangeSettings, "Lagrange multiplier (Safe RLHF)")
    rule_rewards: RuleSettings = group(RuleSettings, "Rule-based rewards")
    kl: KLSettings = group(KLSettings, "KL penalty")
    advantage: AdvantageSettings = group(AdvantageSettings, "Advantages (GAE)")
    loss: LossSettings = group(LossSettings, "Policy loss")
    optimizer: OptimizerSettings = group(OptimizerSettings, "Optimizer")
    critic: CriticSettings = group(CriticSettings, "Critic")
    ptx: PTXSettings = group(PTXSettings, "Pretraining mix (PPO-ptx)")
    lora: LoRASettings = group(LoRASettings, "LoRA")
    ema: EMASettings = group(EMASettings, "Weight averages (EMA)")
    tripwire: TripwireSettings = group(TripwireSettings, "Tripwire")

    OLD_KEYS: ClassVar[Mapping[str, str]] = {
        "prompts_per_step": "rollout.prompts_per_step",
        "samples_per_prompt": "rollout.samples_per_prompt",
        "long_prompts": "rollout.long_prompts",
        "max_new_tokens": "rollout.max_new_tokens",
        "temperature": "rollout.temperature",
        "rollouts": "rollout.engine",
        "decode_batch_size": "rollout.decode_batch_size",
        "server_timeout": "rollout.server_timeout",
        "combine": "reward.combine",
        "safety_threshold": "reward.safety_threshold",
        "weights": "reward.weights",
        "ensemble": "reward.ensemble",
        "ensemble_penalty": "reward.ensemble_penalty",
        "score_scale": "reward.scale",
        "normalise_samples": "reward.normalize_samples",
        "score_clip": "reward.clip",
        "no_eos_score": "reward.no_eos_score",
        "overlong_buffer": "reward.overlong_buffer",
        "overlong_penalty": "reward.overlong_penalty",
        "cost_limit": "lagrange.cost_limit",
        "multiplier": "lagrange.multiplier",
        "multiplier_rate": "lagrange.rate",
        "rules": "rule_rewards.weights",
        "forbidden_phrases": "rule_rewards.forbidden_phrases",
        "least_words": "rule_rewards.least_words",
        "most_words": "rule_rewards.most_words",
        "format_pattern": "rule_rewards.format_pattern",
        "kl_weight": "kl.weight",
        "kl_controller": "kl.controller",
        "kl_target": "kl.target",
        "kl_horizon": "kl.horizon",
        "kl_error_clip": "kl.error_clip",
        "kl_budget": "kl.budget",
        "gamma": "advantage.gamma",
        "lam": "advantage.lam",
        "whiten_advantages": "advantage.whiten",
        "whiten_rewards": "advantage.whiten_rewards",
        "clip": "loss.clip",
        "clip_high": "loss.clip_high",
        "dual_clip": "loss.dual_clip",
        "loss_average": "loss.average",
        "entropy_bonus": "loss.entropy_bonus",
        "importance_cap": "loss.importance_cap",
        "approx_kl_stop": "loss.approx_kl_stop",
        "epochs": "optimizer.epochs",
        "minibatch_size": "optimizer.minibatch_size",
        "microbatch_size": "optimizer.microbatch_size",
        "microbatch_tokens": "optimizer.tokens_per_pass",
        "optimizer.microbatch_tokens": "optimizer.tokens_per_pass",
        "learning_rate": "optimizer.learning_rate",
        "learning_rate_floor": "optimizer.learning_rate_floor",
        "warmup_steps": "optimizer.warmup_steps",
        "max_grad_norm": "optimizer.max_grad_norm",
        "adam_epsilon": "optimizer.adam_epsilon",
        "weight_decay": "optimizer.weight_decay",
        "critic": "critic.kind",
        "critic_trains_policy": "critic.trains_policy",
        "value_learning_rate": "critic.learning_rate",
        "critic_warmup_steps": "critic.warmup_steps",
        "value_clip": "critic.value_clip",
        "ptx_weight": "ptx.weight",
        "ptx_batch_size": "ptx.batch_size",
        "lora_rank": "lora.rank",
        "lora_alpha": "lora.alpha",
        "ema_decay": "ema.decay",
        "ema_export": "ema.export",
        "reference_ema": "ema.reference_decay",
        "watch_every": "tripwire.watch_every",
        "tripwire_evaluations": "tripwire.evaluations",
        "tripwire_drop": "tripwire.drop",
    }

    @property
    def responses_per_step(self) -> int:
        """Responses in one rollout."""
        return self.rollout.prompts_per_step * self.rollout.samples_per_prompt

    def check(self) -> None:
        self._check_batches()
        self._check_rules()
        has_own_reference = Path(self.policy) == Path(self.reference)
        if self.ema.reference_decay and self.lora.rank and not has_own_reference:
            raise ValueError(
                "ema.reference_decay with lora.rank needs the policy itself as reference, whose "
                "adapters it averages"
            )
        if self.reward.overlong_buffer > self.rollout.max_new_tokens:
            raise ValueError(
                f"reward.overlong_buffer ({self.reward.overlong_buffer}) must not exceed "
                f"rollout.max_new_tokens ({self.rollout.max_new_tokens})"
            )

    def _check_batches(self) -> None:
        rollout = (
            f"rollout.prompts_per_step x rollout.samples_per_prompt = {self.responses_per_step}"
        )
        if self.advantage.whiten_rewards and self.responses_per_step < 8:
            raise ValueError(
                "advantage.whiten_rewards needs 8 responses or more per rollout to estimate a "
                f"variance, got {rollout}"
            )
        if self.optimizer.minibatch_size > self.responses_per_step:
            raise ValueError(
                f"optimizer.minibatch_size ({self.optimizer.minibatch_size}) must not exceed the "
                f"rollout of {rollout}"
            )
        if 0 < self.reward.normalize_samples < 8:
            raise ValueError(
                "reward.normalize_samples must be 0 or 8 or more to estimate a mean and a "
                f"deviation, got {self.reward.normalize_samples}"
            )

    def _check_rules(self) -> None:
        rules = self.rule_rewards
        if rules.least_words > rules.most_words:
            raise ValueError(
                f"rule_rewards.least_words ({rules.least_words}) must not exceed "
                f"rule_rewards.most_words ({rules.most_words})"
            )
        needed = {"must_not_say": "forbidden_phrases", "format": "format_pattern"}
        for rule, name in needed.items():
            if rule in rules.weights and not getattr(rules, name):
                raise ValueError(f"the rule {rule} needs rule_rewards.{name}")
        try:
            re.compile(rules.format_pattern)
        except re.error as error:
            raise ValueError(
                f"rule_rewards.format_pattern is not a regular expression: {error}"
            ) from None

    @classmethod
    def idle(cls, values: Mapping[str, Any]) -> dict[str, str]:
        reasons = super().idle(values)
        everything = cls.with_defaults(values)
        steps, critic_alone = everything["steps"], everything["critic.warmup_steps"]
        warmup = everything["optimizer.warmup_steps"]
        if critic_alone >= steps:
            reasons["critic.warmup_steps"] = (
                f"critic.warmup_steps ({critic_alone}) must be below steps ({steps}), or the policy "
                "never learns; lower it or raise steps"
            )
        elif warmup > steps - critic_alone:
            reasons["optimizer.warmup_steps"] = (
                f"optimizer.warmup_steps ({warmup}) must not exceed the {steps - critic_alone} steps "
                "in which the policy learns (steps minus critic.warmup_steps), or its learning rate "
                "never reaches optimizer.learning_rate; lower it or raise steps"
            )
        return reasons
