"""The groups of settings of the stage `ppo`, in the order in which a step of PPO needs them.

Sources in the help texts: LHP is lm-human-preferences (Ziegler et al. 2019), N+ is Huang et al.
(2024).
"""

from dataclasses import dataclass

from rlhf.training.configs.shared import (
    MOST_RANK,
    MOST_SAMPLES,
    long_prompts_setting,
    tokens_per_pass_setting,
)
from rlhf.training.settings import (
    SettingGroup,
    above,
    chosen,
    either,
    given,
    naming,
    setting,
)

ADAPTIVE = (chosen("kl.controller", "adaptive"), above("kl.weight", 0))
LAGRANGE = chosen("reward.combine", "lagrange")


@dataclass(frozen=True, kw_only=True)
class RolloutSettings(SettingGroup):
    """Sampling: how many responses, of which length, by which engine."""

    prompts_per_step: int = setting(128, "Prompts per rollout.", minimum=1)
    samples_per_prompt: int = setting(
        1, "Responses to each prompt of a rollout.", minimum=1, maximum=MOST_SAMPLES
    )
    long_prompts: str = long_prompts_setting()
    max_new_tokens: int = setting(64, "The longest response, in tokens.", minimum=1)
    temperature: float = setting(
        1.0, "Temperature of sampling and of every log-probability.", minimum=0.01, maximum=10.0
    )
    engine: str = setting(
        "own",
        "own: our decoder, whose samples depend on the seed alone. continuous: the continuous "
        "batching of transformers, for decoder-only policies; server: a vLLM server at "
        "ROLLOUT_SERVER_URL, which requires lora.rank.",
        choices=("own", "continuous", "server"),
    )
    decode_batch_size: int = setting(
        256,
        "Responses decoded in parallel.",
        minimum=1,
        requires=either(
            chosen("rollout.engine", "own", "continuous"), above("reward.normalize_samples", 0)
        ),
        maximum=MOST_SAMPLES,
    )
    server_timeout: float = setting(
        600.0,
        "Timeout in seconds for all responses to one prompt.",
        minimum=0.01,
        requires=chosen("rollout.engine", "server"),
    )


@dataclass(frozen=True, kw_only=True)
class RewardSettings(SettingGroup):
    """How the reward models' scores become one score per response."""

    combine: str = setting(
        "threshold",
        "threshold: Llama 2's rule; the safety score if it is low or the prompt is harmful, else "
        "the mean of the other axes. weights: a weighted sum of the axes; lagrange: "
        "helpfulness minus a learned multiple of the cost, which is minus safety (Safe RLHF).",
        choices=("threshold", "weights", "lagrange"),
    )
    safety_threshold: float = setting(
        0.15,
        "The safety score counts if sigmoid(safety) is below this (Llama 2: 0.15). 0: only on "
        "harmful prompts.",
        minimum=0.0,
        maximum=1.0,
        requires=chosen("reward.combine", "threshold"),
    )
    weights: dict[str, float] = setting(
        {}, "Weight of each axis (default 1).", requires=chosen("reward.combine", "weights")
    )
    ensemble: str = setting(
        "mean",
        "Score of an ensemble: the mean of its members, min (the most pessimistic), or mean_std "
        "(Coste et al. 2023). The test-RM always uses the mean.",
        choices=("mean", "min", "mean_std"),
    )
    ensemble_penalty: float = setting(
        1.0,
        "Standard deviations of the members that mean_std subtracts.",
        minimum=0.0,
        requires=chosen("reward.ensemble", "mean_std"),
    )
    scale: str = setting(
        "standard",
        "standard: mean 0 and deviation 1 on texts of the reference (LHP's gain and bias). mean: "
        "mean 0 in the reward model's own unit (N+'s bias); raw: unchanged.",
        choices=("standard", "mean", "raw"),
    )
    normalize_samples: int = setting(
        0,
        "Responses of the reference, sampled before the first step, on which the reward models' "
        "mean and deviation are measured again (LHP: 256). 0: as the reward_model stage measured.",
        minimum=0,
        requires=either(
            chosen("reward.scale", "standard", "mean"), chosen("reward.combine", "threshold")
        ),
        maximum=MOST_SAMPLES,
    )
    clip: float = setting(3.0, "Scores are clipped to +- this (OpenRLHF: 10; 0: off).", minimum=0.0)
    no_eos_score: float = setting(
        -2.0, "Replaces the score of a response without an end token (LHP: -1)."
    )
    overlong_buffer: int = setting(
        0,
        "In the last tokens before max_new_tokens, as many as this, a length penalty rises linearly "
        "(DAPO, OpenRLHF; 0: off).",
        minimum=0,
    )
    overlong_penalty: float = setting(
        1.0,
        "Length penalty of a response of max_new_tokens.",
        minimum=0.0,
        requires=above("reward.overlong_buffer", 0),
    )


@dataclass(frozen=True, kw_only=True)
class LagrangeSettings(SettingGroup):
    """The multiplier of the cost (Dai et al. 2023, Safe RLHF)."""

    cost_limit: float = setting(
        0.0,
        "The largest mean cost, in standard deviations of the reference's safety score (mean 0). "
        "Below 0: the policy must be safer than the reference.",
        requires=(LAGRANGE, above("lagrange.rate", 0)),
    )
    multiplier: float = setting(
        1.0, "The multiplier's initial value (Safe RLHF: 1).", minimum=1e-6, requires=LAGRANGE
    )
    rate: float = setting(
        0.1,
        "Change of the multiplier's logarithm per rollout and unit of cost above the limit. 0: "
        "constant.",
        minimum=0.0,
        requires=LAGRANGE,
    )


@dataclass(frozen=True, kw_only=True)
class RuleSettings(SettingGroup):
    """Rule-based rewards, which are added to the score."""

    weights: dict[str, float] = setting(
        {}, "Weights of rule-based rewards by name (rlhf/training/rewards)."
    )
    forbidden_phrases: tuple[str, ...] = setting(
        (),
        "Phrases that the rule must_not_say penalizes.",
        requires=naming("rule_rewards.weights", "must_not_say"),
    )
    least_words: int = setting(
        5,
        "The rule length_window penalizes fewer words.",
        minimum=0,
        requires=naming("rule_rewards.weights", "length_window"),
    )
    most_words: int = setting(
        60,
        "The rule length_window penalizes more words.",
        minimum=1,
        requires=naming("rule_rewards.weights", "length_window"),
    )
    format_pattern: str = setting(
        "",
        "The rule format rewards responses that match this regular expression as a whole.",
        requires=naming("rule_rewards.weights", "format"),
    )


@dataclass(frozen=True, kw_only=True)
class KLSettings(SettingGroup):
    """The penalty that keeps the policy close to the reference."""

    weight: float = setting(
        0.2, "Weight of the per-token KL penalty (k1) in the reward.", minimum=0.0
    )
    controller: str = setting(
        "fixed",
        "fixed, or adaptive: the weight follows kl.target (Ziegler et al. 2019).",
        choices=("fixed", "adaptive"),
        requires=above("kl.weight", 0),
    )
    target: float = setting(
        6.0,
        "Target of the adaptive controller, in nats per response (k1).",
        minimum=0.01,
        requires=ADAPTIVE,
    )
    horizon: float = setting(
        10_000.0,
        "Time constant of the adaptive controller, in responses.",
        minimum=1.0,
        requires=ADAPTIVE,
    )
    error_clip: float = setting(
        0.2,
        "The controller's relative error is clipped to +- this (Ziegler et al. 2019: 0.2).",
        minimum=0.001,
        requires=ADAPTIVE,
    )
    budget: float = setting(
        0.0,
        "Stop when a rollout's mean KL (k1, nats per response) exceeds this, and keep the last "
        "policy within it. 0: no budget.",
        minimum=0.0,
    )


@dataclass(frozen=True, kw_only=True)
class AdvantageSettings(SettingGroup):
    """Generalized advantage estimation (Schulman et al. 2016), and whitening."""

    gamma: float = setting(
        1.0, "Discount per token (1: LHP and all since).", minimum=0.0, maximum=1.0
    )
    lam: float = setting(
        1.0,
        "GAE's lambda. 1 uses the observed rewards alone; smaller values rely more on the critic "
        "(0.95).",
        minimum=0.0,
        maximum=1.0,
    )
    whiten: bool = setting(
        True, "Scale advantages to mean 0, variance 1 over the rollout of all processes (LHP)."
    )
    whiten_rewards: bool = setting(
        False,
        "Scale rewards to variance 1 and keep their mean (LHP, on books). Needs 8 responses or more "
        "per rollout.",
    )


@dataclass(frozen=True, kw_only=True)
class LossSettings(SettingGroup):
    """The clipped objective of the policy (Schulman et al. 2017)."""

    clip: float = setting(
        0.2,
        "The probability ratio is clipped to 1 +- this (Schulman et al. 2017: 0.2).",
        minimum=0.0,
        maximum=1.0,
    )
    clip_high: float = setting(
        0.0,
        "A different upper clip (DAPO, Yu et al. 2025: 0.28 above 0.2). 0: same as loss.clip.",
        minimum=0.0,
    )
    dual_clip: float = setting(
        0.0,
        "Bound on the loss of tokens with a negative advantage (Ye et al. 2020: 3; 0: off).",
        minimum=0.0,
    )
    average: str = setting(
        "tokens",
        "Mean of the policy loss over all tokens, or over the means of the responses.",
        choices=("tokens", "sequences"),
    )
    entropy_bonus: float = setting(
        0.0,
        "Weight of the entropy in the policy loss. Below 0 it sharpens the policy: fewer unlikely "
        "words at temperature 1.",
        minimum=-1.0,
        maximum=1.0,
    )
    importance_cap: float = setting(
        0.0,
        "Weight each token by the policy's probability over the sampler's, at most this (truncated "
        "importance sampling, Yao et al. 2025: 2; 0: off). For engines other than own and for "
        "bfloat16, where the two differ.",
        minimum=0.0,
        requires=either(
            chosen("rollout.engine", "continuous", "server"), chosen("dtype", "auto", "bfloat16")
        ),
    )
    approx_kl_stop: float = setting(
        0.05,
        "Skip the rest of a rollout's updates at the first minibatch whose KL (k3, nats per token) "
        "to the policy that sampled it exceeds this. 0: never.",
        minimum=0.0,
    )


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings(SettingGroup):
    """Minibatches, microbatches and AdamW."""

    epochs: int = setting(2, "Epochs over each rollout (1 to 4).", minimum=1)
    minibatch_size: int = setting(
        64,
        "Responses per optimizer step, approximately: a rollout is split into equal minibatches.",
        minimum=1,
    )
    microbatch_size: int = setting(
        64,
        "Responses per forward pass; smaller ones accumulate gradients and save memory.",
        minimum=1,
    )
    tokens_per_pass: int = tokens_per_pass_setting()
    learning_rate: float = setting(
        1.5e-4,
        "Peak learning rate of the policy. About 3e-6 for large models, 1e-5 to 1e-4 for LoRA.",
        minimum=0.0,
        maximum=1.0,
    )
    learning_rate_floor: float = setting(
        0.2,
        "Share of the peak learning rate at the end of its linear decay.",
        minimum=0.0,
        maximum=1.0,
    )
    warmup_steps: int = setting(
        0,
        "Rollouts over which the learning rate rises; the policy's starts with its first update.",
        minimum=0,
    )
    max_grad_norm: float = setting(
        1.0,
        "The gradients of policy and critic are each clipped to this norm (0: off).",
        minimum=0.0,
    )
    adam_epsilon: float = setting(1e-5, "Epsilon of AdamW (LHP: 1e-5).", minimum=0.0)
    weight_decay: float = setting(0.0, "Weight decay of AdamW.", minimum=0.0)


@dataclass(frozen=True, kw_only=True)
class CriticSettings(SettingGroup):
    """The critic, which estimates values: its architecture and its training."""

    kind: str = setting(
        "head",
        "head: a small network on the policy's hidden states. model: a separate model, initialized "
        "from the train-RM's trunk (InstructGPT), or from the policy if that trunk is an encoder or "
        "has another vocabulary or a shorter context.",
        choices=("head", "model"),
    )
    trains_policy: float = setting(
        0.0,
        "Share of the value loss's gradient that a head critic passes into the policy's trunk (0: "
        "none). TRL and trlX train a shared trunk on both losses.",
        minimum=0.0,
        maximum=10.0,
        requires=chosen("critic.kind", "head"),
    )
    learning_rate: float = setting(
        2e-3, "Peak learning rate of the critic.", minimum=0.0, maximum=1.0
    )
    warmup_steps: int = setting(
        0, "Number of first rollouts in which only the critic is trained.", minimum=0
    )
    value_clip: float = setting(
        0.0,
        "Values are clipped to +- this around their old estimate (0: off; LHP: 0.2).",
        minimum=0.0,
    )


@dataclass(frozen=True, kw_only=True)
class PTXSettings(SettingGroup):
    """PPO-ptx: a pretraining loss in PPO's objective (InstructGPT, section 3.5)."""

    weight: float = setting(
        0.0,
        "Weight of the log-likelihood per token of data/ptx.jsonl in the policy's objective "
        "(InstructGPT, eq. 2: gamma = 27.8; 0: off). It preserves abilities that no KL penalty "
        "preserves.",
        minimum=0.0,
    )
    batch_size: int = setting(
        64,
        "Lines of data/ptx.jsonl per optimizer step.",
        minimum=1,
        requires=above("ptx.weight", 0),
    )


@dataclass(frozen=True, kw_only=True)
class LoRASettings(SettingGroup):
    """Low-rank adapters (Hu et al. 2021)."""

    rank: int = setting(
        0,
        "Rank of LoRA adapters on all linear layers; 0 trains all weights.",
        minimum=0,
        maximum=MOST_RANK,
    )
    alpha: float = setting(16.0, "LoRA's scale.", minimum=0.0, requires=above("lora.rank", 0))


@dataclass(frozen=True, kw_only=True)
class EMASettings(SettingGroup):
    """Exponential moving averages of the weights."""

    decay: float = setting(
        0.0,
        "Decay per rollout of a moving average of the weights (InstructGPT: 0.992; 0: off).",
        minimum=0.0,
        maximum=0.9999,
    )
    export: str = setting(
        "policy",
        "policy: the average is the resulting policy. beside: the last weights are the resulting "
        "policy, and average/ has the average (OpenRLHF saves both).",
        choices=("policy", "beside"),
        requires=above("ema.decay", 0),
    )
    reference_decay: float = setting(
        0.0,
        "Decay per rollout of a reference that is a moving average of the policy (Xu et al. 2024, "
        "arXiv 2404.10719: 0.992; 0: fixed reference). KL values are to the moving reference.",
        minimum=0.0,
        maximum=0.9999,
    )


@dataclass(frozen=True, kw_only=True)
class TripwireSettings(SettingGroup):
    """Early stopping by the test-RM."""

    watch_every: int = setting(
        1, "Rollouts between two evaluations on the watch prompts.", minimum=1
    )
    evaluations: int = setting(
        3,
        "Stop when the test-RM's mean over this many evaluations is below its best earlier mean over "
        "the same number. 0: never.",
        minimum=0,
        requires=given("test_reward_model"),
    )
    drop: float = setting(
        0.1,
        "The drop that stops the run while the train-RM's mean rises, in standard deviations of the "
        "reference. If both fall, twice this.",
        minimum=0.0,
        requires=(given("test_reward_model"), above("tripwire.evaluations", 0)),
    )
