"""The configuration of each training stage: frozen dataclasses, standard library only.

What they have in common (what a field is, which values are refused, `config.json`) is in settings.py.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.training.settings import (
    MOST_SEED,
    StageConfig,
    above,
    chosen,
    either,
    given,
    naming,
    required,
    setting,
    several,
)

# More than these cannot be meant, and would end in want of memory instead of in a sentence.
MOST_LAYERS = 1024
MOST_RANK = 8192
MOST_SAMPLES = 100_000
MOST_POSITIONS = 2**24
MOST_BASE_STEPS = 1_000_000

ADAPTIVE = (chosen("kl_controller", "adaptive"), above("kl_weight", 0))
LAGRANGE = chosen("combine", "lagrange")


@dataclass(frozen=True, kw_only=True)
class BaseConfig(StageConfig):
    """Build the base policy: a tiny Llama, trained from nothing on `data/corpus.jsonl`."""

    seed: int = setting(
        0,
        "Seed of the initial weights and of the order of the batches.",
        minimum=0,
        maximum=MOST_SEED,
    )
    threads: int = setting(
        2, "CPU threads. The same seed and threads give the same bytes.", minimum=1, maximum=256
    )
    layers: int = setting(4, "Transformer layers.", minimum=1, maximum=64)
    hidden_size: int = setting(128, "Width of the residual stream.", minimum=8, maximum=8192)
    intermediate_size: int = setting(384, "Width of the MLP.", minimum=8, maximum=65536)
    heads: int = setting(
        4, "Attention heads; must divide the hidden size.", minimum=1, maximum=8192
    )
    max_positions: int = setting(
        512, "The longest prompt plus response, in tokens.", minimum=16, maximum=MOST_POSITIONS
    )
    clean_steps: int = setting(
        650,
        "Optimiser steps on the clean phase, where names are learnt.",
        minimum=0,
        maximum=MOST_BASE_STEPS,
    )
    mix_steps: int = setting(
        500,
        "Optimiser steps on the mix of styles, which people then rank.",
        minimum=0,
        maximum=MOST_BASE_STEPS,
    )
    batch_size: int = setting(32, "Examples per optimiser step.", minimum=1, maximum=MOST_SAMPLES)
    learning_rate: float = setting(
        3e-3,
        "Peak of AdamW's step size (embeddings and norms); falls linearly.",
        minimum=0.0,
        maximum=1.0,
    )
    muon_learning_rate: float = setting(
        0.02, "Peak of Muon's step size (matrices); falls linearly.", minimum=0.0, maximum=1.0
    )
    warmup_steps: int = setting(20, "Steps over which the step size rises.", minimum=0)
    weight_decay: float = setting(0.01, "AdamW's weight decay.", minimum=0.0)
    max_grad_norm: float = setting(1.0, "Gradients are clipped to this norm.", minimum=0.0)
    checkpoint_seconds: float = setting(20.0, "Write a checkpoint about this often.", minimum=0.0)

    def check(self) -> None:
        if self.hidden_size % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide hidden_size ({self.hidden_size})")
        if self.clean_steps + self.mix_steps < 1:
            raise ValueError("clean_steps and mix_steps must not both be 0")


DEVICE_HELP = "Where to compute: auto takes a GPU when there is one."

DTYPES = ("auto", "float32", "bfloat16")
READ_HELP = "Precision: auto is float32 on a CPU and bfloat16 on a GPU."
TRAINED_HELP = (
    "Precision of the forward passes: auto is float32 on a CPU and bfloat16 on a GPU; weights "
    "that are trained stay in float32."
)


SHARDED_HELP = (
    "Of the processes that torchrun starts, each holds a share of every trained weight (FSDP2) "
    "instead of all. Changes no result."
)


LONG_PROMPTS = ("refuse", "leave_out")
LONG_PROMPTS_HELP = (
    "What happens to a prompt that does not fit into the model's context with its response: "
    "refuse stops with a sentence that names it; leave_out goes on without it and counts it."
)


@dataclass(frozen=True, kw_only=True)
class GenerateConfig(StageConfig):
    """The policy answers prompts, several times each."""

    policy: str = required("The policy: a model folder, or a name on the model hub.")
    k: int = setting(
        4, "Responses per prompt, distinct where the policy can.", minimum=1, maximum=64
    )
    oversample: int = setting(
        1,
        "Extra responses drawn per prompt, so that k distinct ones are left.",
        minimum=0,
        maximum=MOST_SAMPLES,
    )
    temperature: float = setting(1.0, "Sampling temperature.", minimum=0.01, maximum=10.0)
    long_prompts: str = setting("refuse", LONG_PROMPTS_HELP, choices=LONG_PROMPTS)
    max_new_tokens: int = setting(64, "The longest response, in tokens.", minimum=1)
    batch_size: int = setting(256, "Responses decoded side by side.", minimum=1)
    seed: int = setting(0, "Seed of the sampling.", minimum=0, maximum=MOST_SEED)
    threads: int = setting(0, "CPU threads; 0 leaves it to torch.", minimum=0, maximum=256)
    device: str = setting("auto", DEVICE_HELP)
    dtype: str = setting("auto", READ_HELP, choices=DTYPES)


@dataclass(frozen=True, kw_only=True)
class RewardModelConfig(StageConfig):
    """Reward models from rankings: one for training (train/), one that watches it (test/)."""

    trunk: str = required("The model to start from: a folder, or a name on the model hub.")
    axes: tuple[str, ...] = setting(("helpfulness", "safety"), "The axes to score, a head each.")
    test_share: float = setting(
        0.3,
        "Share of the prompts whose rankings train the test-RM; the others train the train-RM. "
        "Each is measured on the other's prompts.",
        minimum=0.05,
        maximum=0.95,
    )
    epochs: int = setting(2, "Passes over the rankings (Llama 2 and HH take 1).", minimum=1)
    rankings_per_batch: int = setting(16, "Rankings per optimiser step.", minimum=1)
    learning_rate: float = setting(
        5e-4,
        "Peak step size of the trunk; falls linearly. About 1e-5 for large models.",
        minimum=0.0,
        maximum=1.0,
    )
    head_learning_rate: float = setting(
        2e-2, "Peak step size of the heads, which start from nothing.", minimum=0.0, maximum=1.0
    )
    warmup_steps: int = setting(5, "Steps over which the step size rises.", minimum=0)
    weight_decay: float = setting(0.0, "AdamW's weight decay.", minimum=0.0)
    max_grad_norm: float = setting(1.0, "Gradients are clipped to this norm.", minimum=0.0)
    loss: str = setting(
        "pairs",
        "pairs: all pairs of a ranking in one batch element (InstructGPT, section 3.5), each by "
        "Bradley & Terry; plackett_luce: the whole ranking as one choice after another (Luce 1959, "
        "Plackett 1975), where a tie stands for all orders of the tied (Allison & Christakis 1994).",
        choices=("pairs", "plackett_luce"),
    )
    ties: str = setting(
        "davidson",
        "davidson: a tie is an outcome of its own, with a learned rate; half: half a win each.",
        choices=("davidson", "half"),
        under=chosen("loss", "pairs"),
    )
    margin: float = setting(
        0.0,
        "Score difference demanded per rank between two responses, or times the margin of the "
        "strength that the annotator chose (Llama 2, eq. 2; 0: off).",
        minimum=0.0,
        under=chosen("loss", "pairs"),
    )
    label_smoothing: float = setting(
        0.0,
        "Share of the preferences taken to be the wrong way round.",
        minimum=0.0,
        maximum=0.49,
        under=(chosen("loss", "pairs"), chosen("smoothing", "fixed")),
    )
    smoothing: str = setting(
        "fixed",
        "fixed: label_smoothing as given; agreement: from how often two annotators of the training "
        "prompts agree, (1 - sqrt(2a - 1)) / 2, as if each erred independently.",
        choices=("fixed", "agreement"),
        under=chosen("loss", "pairs"),
    )
    reliability: bool = setting(
        True, "Learn how reliable each annotator is (after CrowdBT, Chen et al. 2013)."
    )
    centring: float = setting(
        0.01,
        "Weight of the squared mean score, which keeps scores near 0 (TRL: 0.01).",
        minimum=0.0,
    )
    prior: bool = setting(
        True,
        "Also show the heads how likely the untrained trunk finds the response; needs a trunk that "
        "can answer (a decoder, a T5). Without it a small model can't see a wrong name.",
    )
    max_length: int = setting(512, "The longest conversation with response, in tokens.", minimum=8)
    members: int = setting(
        1,
        "Members of an ensemble, whose disagreement says how little a score is known.",
        minimum=1,
        maximum=32,
    )
    ensemble: str = setting(
        "heads",
        "heads: members are heads on one trunk, each with a resample of the rankings; adapters: each has "
        "LoRA adapters of its own too, on a trunk that stays as it is; models: whole models that differ "
        "by their seed (Coste et al. 2023), at as many times the cost.",
        choices=("heads", "adapters", "models"),
        under=either(above("members", 1), chosen("ensemble", "adapters")),
    )
    adapter_rank: int = setting(
        8,
        "Rank of each member's LoRA adapters.",
        minimum=1,
        under=chosen("ensemble", "adapters"),
        maximum=MOST_RANK,
    )
    separate_axes: bool = setting(
        False,
        "A model for each axis (Llama 2) instead of one trunk with a head per axis.",
        under=several("axes"),
    )
    share_prompts: bool = setting(
        True,
        "Read a prompt once for all responses to it, where the trunk allows it (InstructGPT, "
        "section 3.5, reads each response once; an encoder reads each with its prompt).",
    )
    batch_size: int = setting(128, "Texts scored side by side.", minimum=1)
    checkpoint_seconds: float = setting(30.0, "Write a checkpoint about this often.", minimum=0.0)
    sharded: bool = setting(False, SHARDED_HELP)
    seed: int = setting(
        0, "Seed of the heads, the split and the order.", minimum=0, maximum=MOST_SEED
    )
    threads: int = setting(0, "CPU threads; 0 leaves it to torch.", minimum=0, maximum=256)
    device: str = setting("auto", DEVICE_HELP)
    dtype: str = setting("auto", TRAINED_HELP, choices=DTYPES)

    def check(self) -> None:
        if not self.axes or len(set(self.axes)) != len(self.axes):
            raise ValueError("axes must name at least one axis, and none twice")
        if self.sharded and self.ensemble == "adapters":
            raise ValueError(
                "sharded spreads a trunk that is trained, and under ensemble 'adapters' it is not; "
                "leave one of them out"
            )


@dataclass(frozen=True, kw_only=True)
class PPOConfig(StageConfig):
    """Proximal policy optimisation of a policy against a reward model, held to a reference."""

    policy: str = required("The policy to refine: a model folder, or a name on the model hub.")
    reference: str = required("What the KL penalty holds the policy to; often the base policy.")
    reward_model: str = required("The train-RM: the train/ folder of the reward_model stage.")
    test_reward_model: str = setting(
        "", "The test-RM, which watches and never trains: the test/ folder. Empty: none."
    )

    steps: int = setting(14, "Rollouts, each followed by its updates.", minimum=1)
    prompts_per_step: int = setting(128, "Prompts per rollout.", minimum=1)
    samples_per_prompt: int = setting(
        1, "Responses to each prompt of a rollout.", minimum=1, maximum=MOST_SAMPLES
    )
    long_prompts: str = setting("refuse", LONG_PROMPTS_HELP, choices=LONG_PROMPTS)
    max_new_tokens: int = setting(64, "The longest response, in tokens.", minimum=1)
    temperature: float = setting(
        1.0, "Temperature of sampling and of every log-probability.", minimum=0.01, maximum=10.0
    )
    epochs: int = setting(2, "Passes over each rollout (1 to 4).", minimum=1)
    minibatch_size: int = setting(
        64,
        "Responses per optimiser step, about: a rollout is cut into equal minibatches.",
        minimum=1,
    )
    microbatch_size: int = setting(
        64, "Responses per forward pass; smaller ones add up gradients and save memory.", minimum=1
    )
    microbatch_tokens: int = setting(
        0,
        "Tokens per forward pass, padding included: long responses come in smaller passes (0: no "
        "limit). Changes no result.",
        minimum=0,
    )
    sharded: bool = setting(False, SHARDED_HELP)
    decode_batch_size: int = setting(
        256,
        "Responses decoded side by side.",
        minimum=1,
        under=either(chosen("rollouts", "own", "continuous"), above("normalise_samples", 0)),
        maximum=MOST_SAMPLES,
    )
    rollouts: str = setting(
        "own",
        "What samples the responses. own: our decoder, whose draws depend on the seed alone; "
        "continuous: the continuous batching of transformers, for decoder-only policies (paged cache, "
        "CUDA graphs on a GPU); server: a vLLM server at ROLLOUT_SERVER_URL, which is given the "
        "adapters before each rollout (needs lora_rank).",
        choices=("own", "continuous", "server"),
    )
    server_timeout: float = setting(
        600.0,
        "Seconds that the responses to one prompt may take.",
        minimum=0.01,
        under=chosen("rollouts", "server"),
    )
    importance_cap: float = setting(
        0.0,
        "Where responses are sampled by other arithmetic than the one that trains (rollouts other "
        "than own, or bfloat16): each token weighs p / q, what the policy says of it over what the "
        "sampler said, at most this (truncated importance sampling, Yao et al. 2025: 2; 0: all 1).",
        minimum=0.0,
        under=either(
            chosen("rollouts", "continuous", "server"), chosen("dtype", "auto", "bfloat16")
        ),
    )

    learning_rate: float = setting(
        1.5e-4,
        "Peak step size of the policy. About 3e-6 for large models, 1e-5 to 1e-4 for LoRA.",
        minimum=0.0,
        maximum=1.0,
    )
    learning_rate_floor: float = setting(
        0.2,
        "Share of the step size that is left at the end of its linear fall.",
        minimum=0.0,
        maximum=1.0,
    )
    warmup_steps: int = setting(
        0,
        "Rollouts over which the step size rises, the policy's from its first update on.",
        minimum=0,
    )
    max_grad_norm: float = setting(
        1.0, "Gradients of policy and critic are clipped to this norm each (0: off).", minimum=0.0
    )
    adam_epsilon: float = setting(
        1e-5, "AdamW's epsilon (lm-human-preferences: 1e-5).", minimum=0.0
    )
    weight_decay: float = setting(0.0, "AdamW's weight decay.", minimum=0.0)
    ema_decay: float = setting(
        0.0,
        "Hand on a running average of the weights, of which each rollout keeps this share "
        "(InstructGPT: 0.992; 0: the last weights).",
        minimum=0.0,
        maximum=0.9999,
    )
    ema_export: str = setting(
        "policy",
        "policy: the average is handed on; beside: the last weights are, and the "
        "average is written to average/ (OpenRLHF saves both).",
        choices=("policy", "beside"),
        under=above("ema_decay", 0),
    )
    reference_ema: float = setting(
        0.0,
        "The reference follows the policy: of its weights each rollout keeps this share (Xu et al. "
        "2024, arXiv 2404.10719: 0.992; 0: it stays where it is). The KL is then to where it has come.",
        minimum=0.0,
        maximum=0.9999,
    )
    lora_rank: int = setting(
        0,
        "Rank of LoRA adapters on all linear layers; 0 trains all weights.",
        minimum=0,
        maximum=MOST_RANK,
    )
    lora_alpha: float = setting(16.0, "LoRA's scale.", minimum=0.0, under=above("lora_rank", 0))

    critic: str = setting(
        "head",
        "head: a small network on the policy's hidden states, which it does not change; model: a "
        "model of its own that starts as the train-RM's trunk (InstructGPT), or as the policy where that "
        "trunk is an encoder or reads other or fewer tokens.",
        choices=("head", "model"),
    )
    critic_trains_policy: float = setting(
        0.0,
        "Share of the value loss's gradient that a head critic passes into the policy's trunk (0: "
        "stopped; TRL and trlX let a shared trunk learn from both).",
        minimum=0.0,
        maximum=10.0,
        under=chosen("critic", "head"),
    )
    value_learning_rate: float = setting(
        2e-3, "Peak step size of the critic.", minimum=0.0, maximum=1.0
    )
    critic_warmup_steps: int = setting(
        0, "First rollouts in which only the critic learns.", minimum=0
    )
    value_clip: float = setting(
        0.0,
        "How far a value may move from its old estimate per rollout (0: off; LHP: 0.2).",
        minimum=0.0,
    )

    gamma: float = setting(
        1.0, "Discount per token (1: LHP and all since).", minimum=0.0, maximum=1.0
    )
    lam: float = setting(
        1.0,
        "GAE's lambda: 1 trusts the final score alone, less leans on the critic (0.95).",
        minimum=0.0,
        maximum=1.0,
    )
    clip: float = setting(
        0.2,
        "The probability ratio is clipped to 1 +- this (Schulman et al. 2017: 0.2).",
        minimum=0.0,
        maximum=1.0,
    )
    clip_high: float = setting(
        0.0,
        "The upper clip, where it is another than the lower one (DAPO, Yu et al. 2025: 0.28 above "
        "0.2; 0: as clip).",
        minimum=0.0,
    )
    dual_clip: float = setting(
        0.0,
        "Bound on the loss of tokens with a negative advantage (Ye et al. 2020: 3; 0: off).",
        minimum=0.0,
    )
    loss_average: str = setting(
        "tokens",
        "Mean of the policy loss over all tokens, or over the means of the responses.",
        choices=("tokens", "sequences"),
    )
    whiten_advantages: bool = setting(
        True, "Scale advantages to mean 0, variance 1 over the rollout of all processes (LHP)."
    )
    whiten_rewards: bool = setting(
        False,
        "Scale rewards to variance 1, keeping their mean (lm-human-preferences, on books); needs 8 "
        "responses or more per rollout.",
    )
    entropy_bonus: float = setting(
        0.0,
        "Weight of the entropy in the policy's loss. Below 0 it sharpens the policy instead: fewer "
        "unlikely words at temperature 1.",
        minimum=-1.0,
        maximum=1.0,
    )

    ptx_weight: float = setting(
        0.0,
        "PPO-ptx: weight of the log-likelihood per token of data/ptx.jsonl (demonstrations, or texts "
        "that the model was pretrained on) in the policy's objective (InstructGPT, section 3.5, "
        "eq. 2: gamma = 27.8 on pretraining data; 0: off). It holds abilities that no KL penalty "
        "holds.",
        minimum=0.0,
    )
    ptx_batch_size: int = setting(
        64,
        "Lines of data/ptx.jsonl per optimiser step.",
        minimum=1,
        under=above("ptx_weight", 0),
    )

    kl_weight: float = setting(
        0.2, "Weight of the per-token KL penalty (k1) in the reward.", minimum=0.0
    )
    kl_controller: str = setting(
        "fixed",
        "fixed, or adaptive: the weight follows kl_target (Ziegler et al. 2019).",
        choices=("fixed", "adaptive"),
        under=above("kl_weight", 0),
    )
    kl_target: float = setting(
        6.0,
        "Nats per response (k1) that the adaptive controller aims at.",
        minimum=0.01,
        under=ADAPTIVE,
    )
    kl_horizon: float = setting(
        10_000.0, "Responses over which it corrects.", minimum=1.0, under=ADAPTIVE
    )
    kl_error_clip: float = setting(
        0.2,
        "The relative error that it corrects at once is clipped to +- this (Ziegler et al. 2019: 0.2).",
        minimum=0.001,
        under=ADAPTIVE,
    )
    kl_budget: float = setting(
        0.0,
        "Stop when a rollout's mean KL (k1), in nats per response, exceeds this, and keep the last "
        "policy of which a rollout was within it (0: no budget).",
        minimum=0.0,
    )
    approx_kl_stop: float = setting(
        0.05,
        "Leave a rollout at the first minibatch on whose tokens the policy is this far (KL by k3, nats "
        "per token) from the one that sampled it (0: never).",
        minimum=0.0,
    )

    no_eos_score: float = setting(
        -2.0, "Replaces the score of a response that did not end by itself (LHP: -1)."
    )
    overlong_buffer: int = setting(
        0,
        "Of the longest response, the last tokens over which a penalty rises evenly (DAPO, OpenRLHF; "
        "0: off).",
        minimum=0,
    )
    overlong_penalty: float = setting(
        1.0,
        "What the longest response loses.",
        minimum=0.0,
        under=above("overlong_buffer", 0),
    )
    score_scale: str = setting(
        "standard",
        "Unit of the reward model's scores. standard: mean 0 and deviation 1 on texts of the reference "
        "(LHP's gain and bias); mean: mean 0 in the reward model's own unit (N+'s bias); raw: as they "
        "come.",
        choices=("standard", "mean", "raw"),
    )
    normalise_samples: int = setting(
        0,
        "Responses of the reference to the training prompts, sampled before the first step, on which "
        "the reward models' mean and deviation are measured anew (LHP: 256; 0: as the reward_model "
        "stage measured them).",
        minimum=0,
        under=either(chosen("score_scale", "standard", "mean"), chosen("combine", "threshold")),
        maximum=MOST_SAMPLES,
    )
    score_clip: float = setting(
        3.0, "Scores are clipped to +- this (OpenRLHF: 10; 0: off).", minimum=0.0
    )
    ensemble: str = setting(
        "mean",
        "How the members of a reward-model ensemble are combined: mean, min (the most sceptical), "
        "or mean_std (Coste et al. 2023). The test-RM always watches with its mean.",
        choices=("mean", "min", "mean_std"),
    )
    ensemble_penalty: float = setting(
        1.0,
        "Standard deviations of the members that mean_std takes off.",
        minimum=0.0,
        under=chosen("ensemble", "mean_std"),
    )
    combine: str = setting(
        "threshold",
        "threshold: Llama 2's rule, safety speaks where the prompt is harmful or the safety score "
        "low, else the mean of the other axes (without a safety axis, of all); weights: a weighted "
        "sum of the axes; lagrange: helpfulness less a learned multiple of the cost, which is minus "
        "safety (Safe RLHF).",
        choices=("threshold", "weights", "lagrange"),
    )
    cost_limit: float = setting(
        0.0,
        "The mean cost allowed, in standard deviations of the reference's safety "
        "score, whose mean is 0. Below 0 asks for more safety than the reference has.",
        under=(LAGRANGE, above("multiplier_rate", 0)),
    )
    multiplier: float = setting(
        1.0,
        "The multiplier's first value (Safe RLHF: 1).",
        minimum=1e-6,
        under=LAGRANGE,
    )
    multiplier_rate: float = setting(
        0.1,
        "How much the multiplier's logarithm moves per rollout and unit of cost "
        "above the limit (0: it stays).",
        minimum=0.0,
        under=LAGRANGE,
    )
    safety_threshold: float = setting(
        0.15,
        "Safety speaks where sigmoid(safety) is below this (Llama 2: 0.15; 0: risk alone decides).",
        minimum=0.0,
        maximum=1.0,
        under=chosen("combine", "threshold"),
    )
    weights: dict[str, float] = setting(
        {}, "Weight of each axis; missing is 1.", under=chosen("combine", "weights")
    )
    rules: dict[str, float] = setting({}, "Weights of rule-based rewards (rlhf/training/rewards).")
    forbidden_phrases: tuple[str, ...] = setting(
        (), "What the rule must_not_say looks for.", under=naming("rules", "must_not_say")
    )
    least_words: int = setting(
        5,
        "The rule length_window: fewer words cost.",
        minimum=0,
        under=naming("rules", "length_window"),
    )
    most_words: int = setting(
        60,
        "The rule length_window: more words cost.",
        minimum=1,
        under=naming("rules", "length_window"),
    )
    format_pattern: str = setting(
        "",
        "The rule format: a regular expression that the whole response should match.",
        under=naming("rules", "format"),
    )

    watch_every: int = setting(1, "Rollouts between two looks at the watch prompts.", minimum=1)
    tripwire_evaluations: int = setting(
        3,
        "Stop when the test-RM's mean over this many looks is below that of the best as many before "
        "(0: never).",
        minimum=0,
        under=given("test_reward_model"),
    )
    tripwire_drop: float = setting(
        0.1,
        "How far below while the train-RM's mean is above, in standard deviations of the reference; "
        "twice as far where both are below.",
        minimum=0.0,
        under=(given("test_reward_model"), above("tripwire_evaluations", 0)),
    )
    checkpoint_every: int = setting(5, "Rollouts between two checkpoints.", minimum=1)

    seed: int = setting(0, "Seed of everything that is drawn.", minimum=0, maximum=MOST_SEED)
    threads: int = setting(
        0,
        "CPU threads; 0 leaves it to torch. The same seed and threads give the same bytes.",
        minimum=0,
        maximum=256,
    )
    processes: int = setting(
        0,
        "Processes of this machine that share the work and its CPU threads, forked by the stage (on "
        "Linux); torchrun's take their place. 0: one for each thread, but at most 4, where the policy is "
        "small (up to 20 million parameters), which is faster there; else 1.",
        minimum=0,
        maximum=256,
    )
    device: str = setting("auto", DEVICE_HELP)
    dtype: str = setting("auto", TRAINED_HELP, choices=DTYPES)

    @property
    def responses_per_step(self) -> int:
        """Responses in one rollout."""
        return self.prompts_per_step * self.samples_per_prompt

    def check(self) -> None:
        if self.whiten_rewards and self.responses_per_step < 8:
            raise ValueError(
                "whiten_rewards needs 8 responses or more per rollout to estimate a variance, got "
                f"prompts_per_step x samples_per_prompt = {self.responses_per_step}"
            )
        if self.minibatch_size > self.responses_per_step:
            raise ValueError(
                f"minibatch_size ({self.minibatch_size}) must not exceed the rollout of "
                f"prompts_per_step x samples_per_prompt = {self.responses_per_step}"
            )
        if 0 < self.normalise_samples < 8:
            raise ValueError(
                "normalise_samples must be 0 or 8 or more to estimate a mean and a deviation, got "
                f"{self.normalise_samples}"
            )
        own = Path(self.policy) == Path(self.reference)
        if self.reference_ema and self.lora_rank and not own:
            raise ValueError(
                "reference_ema with lora_rank needs the policy itself as reference, whose adapters it "
                "averages"
            )
        if self.overlong_buffer > self.max_new_tokens:
            raise ValueError(
                f"overlong_buffer ({self.overlong_buffer}) must not exceed max_new_tokens "
                f"({self.max_new_tokens})"
            )
        if self.least_words > self.most_words:
            raise ValueError(
                f"least_words ({self.least_words}) must not exceed most_words ({self.most_words})"
            )
        needs = {"must_not_say": "forbidden_phrases", "format": "format_pattern"}
        for rule, setting_name in needs.items():
            if rule in self.rules and not getattr(self, setting_name):
                raise ValueError(f"the rule {rule} needs {setting_name}")
        try:
            re.compile(self.format_pattern)
        except re.error as error:
            raise ValueError(f"format_pattern is no regular expression: {error}") from None

    @classmethod
    def idle(cls, values: Mapping[str, Any]) -> dict[str, str]:
        found = super().idle(values)
        names = ("steps", "critic_warmup_steps", "warmup_steps")
        steps, alone, rising = (values.get(name, getattr(cls, name)) for name in names)
        if alone >= steps:
            found["critic_warmup_steps"] = (
                f"critic_warmup_steps ({alone}) must be below steps ({steps}), or the policy never "
                "learns; lower it or raise steps"
            )
        elif rising > steps - alone:
            found["warmup_steps"] = (
                f"warmup_steps ({rising}) must not exceed the {steps - alone} steps in which the "
                "policy learns (steps less critic_warmup_steps), or its step size never reaches "
                "learning_rate; lower it or raise steps"
            )
        return found


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(StageConfig):
    """Held-out prompts, several samples each, scored and compared."""

    policy: str = required("The policy to evaluate: a model folder, or a name on the model hub.")
    reward_model: str = setting("", "The reward model whose opinion is asked. Empty: none.")
    temperatures: tuple[float, ...] = setting((1.0, 0.3), "Sampling temperatures.")
    samples_per_prompt: int = setting(
        3, "Samples per prompt and temperature.", minimum=1, maximum=MOST_SAMPLES
    )
    long_prompts: str = setting("refuse", LONG_PROMPTS_HELP, choices=LONG_PROMPTS)
    max_new_tokens: int = setting(64, "The longest response, in tokens.", minimum=1)
    safety_threshold: float = setting(
        0.15,
        "As in PPO: safety speaks where sigmoid(safety) is below this.",
        minimum=0.0,
        maximum=1.0,
        under=given("reward_model"),
    )
    batch_size: int = setting(256, "Responses decoded side by side.", minimum=1)
    seed: int = setting(
        0, "Seed of the sampling and of the bootstrap.", minimum=0, maximum=MOST_SEED
    )
    threads: int = setting(0, "CPU threads; 0 leaves it to torch.", minimum=0, maximum=256)
    device: str = setting("auto", DEVICE_HELP)
    dtype: str = setting("auto", READ_HELP, choices=DTYPES)

    def check(self) -> None:
        if not self.temperatures or min(self.temperatures) < 1e-6:  # less, and logits overflow
            raise ValueError("temperatures must be one or more numbers from 0.000001 up")
        if len(set(self.temperatures)) != len(self.temperatures):
            raise ValueError("temperatures must differ from one another")


@dataclass(frozen=True, kw_only=True)
class SelectionConfig(StageConfig):
    """Where an ensemble of reward models disagrees, so that people are asked there first."""

    reward_model: str = required("A reward model with several members: its folder.")
    recency: float = setting(
        0.5,
        "What a score is multiplied by for each newer policy than the one that wrote the responses: "
        "what the newest writes is what a reward model will be asked about.",
        minimum=0.0,
        maximum=1.0,
    )
    draw: bool = setting(
        True,
        "Scores are made so that the highest ones are a draw, each comparison as likely as it would "
        "teach: those that would teach most are much alike. False: they say how much it would.",
    )
    batch_size: int = setting(128, "Texts scored side by side.", minimum=1)
    threads: int = setting(0, "CPU threads; 0 leaves it to torch.", minimum=0, maximum=256)
    device: str = setting("auto", DEVICE_HELP)


@dataclass(frozen=True, kw_only=True)
class SFTConfig(StageConfig):
    """Supervised fine-tuning on demonstrations and rewrites, by TRL's SFTTrainer."""

    policy: str = required("The policy to teach: a model folder, or a name on the model hub.")
    epochs: int = setting(1, "Passes over the demonstrations.", minimum=1)
    batch_size: int = setting(16, "Demonstrations per optimiser step.", minimum=1)
    microbatch_size: int = setting(16, "Demonstrations per forward pass (memory).", minimum=1)
    learning_rate: float = setting(
        2e-5, "Peak step size: 1e-5 to 2e-5 for a full model (Llama 2).", minimum=0.0, maximum=1.0
    )
    warmup_share: float = setting(
        0.03, "Share of the steps over which the step size rises.", minimum=0.0, maximum=1.0
    )
    weight_decay: float = setting(0.0, "AdamW's weight decay.", minimum=0.0)
    max_grad_norm: float = setting(1.0, "Gradients are clipped to this norm.", minimum=0.0)
    heldout_share: float = setting(
        0.1, "Share of the prompts kept aside to measure the loss on.", minimum=0.0, maximum=0.5
    )
    long_prompts: str = setting("refuse", LONG_PROMPTS_HELP, choices=LONG_PROMPTS)
    seed: int = setting(0, "Seed of the order and the split.", minimum=0, maximum=MOST_SEED)
    threads: int = setting(0, "CPU threads; 0 leaves it to torch.", minimum=0, maximum=256)
    device: str = setting("auto", DEVICE_HELP)
    dtype: str = setting("auto", TRAINED_HELP, choices=DTYPES)

    def check(self) -> None:
        _check_microbatch(self.batch_size, self.microbatch_size)


@dataclass(frozen=True, kw_only=True)
class DPOConfig(StageConfig):
    """Direct preference optimisation (Rafailov et al. 2023), by TRL's DPOTrainer: the baseline."""

    policy: str = required("The policy to refine, which is its own reference.")
    axis: str = setting("helpfulness", "The axis whose preferences are learnt.")
    beta: float = setting(
        0.1, "How strongly the policy is held to where it began (DPO's beta).", minimum=1e-6
    )
    label_smoothing: float = setting(
        0.0,
        "Share of the preferences taken to be the wrong way round (conservative DPO).",
        minimum=0.0,
        maximum=0.499,
    )
    epochs: int = setting(1, "Passes over the pairs.", minimum=1)
    batch_size: int = setting(32, "Pairs per optimiser step.", minimum=1)
    microbatch_size: int = setting(16, "Pairs per forward pass (memory).", minimum=1)
    learning_rate: float = setting(
        5e-7, "Peak step size: 5e-7 to 1e-6 for a full model.", minimum=0.0, maximum=1.0
    )
    warmup_share: float = setting(
        0.1, "Share of the steps over which the step size rises.", minimum=0.0, maximum=1.0
    )
    max_grad_norm: float = setting(1.0, "Gradients are clipped to this norm.", minimum=0.0)
    heldout_share: float = setting(
        0.1, "Share of the prompts kept aside to measure accuracy on.", minimum=0.0, maximum=0.5
    )
    long_prompts: str = setting("refuse", LONG_PROMPTS_HELP, choices=LONG_PROMPTS)
    seed: int = setting(0, "Seed of the order and the split.", minimum=0, maximum=MOST_SEED)
    threads: int = setting(0, "CPU threads; 0 leaves it to torch.", minimum=0, maximum=256)
    device: str = setting("auto", DEVICE_HELP)
    dtype: str = setting("auto", TRAINED_HELP, choices=DTYPES)

    def check(self) -> None:
        _check_microbatch(self.batch_size, self.microbatch_size)


def _check_microbatch(batch_size: int, microbatch_size: int) -> None:
    if batch_size % microbatch_size and batch_size > microbatch_size:
        raise ValueError(
            f"batch_size ({batch_size}) must be a multiple of microbatch_size ({microbatch_size})"
        )


@dataclass(frozen=True, kw_only=True)
class BestOfNConfig(StageConfig):
    """Several answers to each prompt, of which the reward model picks one: the free baseline."""

    policy: str = required("The policy that answers: a model folder, or a name on the model hub.")
    reward_model: str = required("The reward model that picks.")
    n: tuple[int, ...] = setting(
        (1, 2, 4, 8, 16), "From how many answers the best is picked; a curve point each."
    )
    test_reward_model: str = setting(
        "", "Another reward model, which does not pick: what it thinks of the picked. Empty: none."
    )
    samples: int = setting(
        0,
        "Answers to each prompt, from which every n is estimated; 0 takes twice the largest n.",
        minimum=0,
        maximum=MOST_SAMPLES,
    )
    temperature: float = setting(1.0, "Sampling temperature.", minimum=0.01, maximum=10.0)
    long_prompts: str = setting("refuse", LONG_PROMPTS_HELP, choices=LONG_PROMPTS)
    max_new_tokens: int = setting(64, "The longest response, in tokens.", minimum=1)
    no_eos_score: float = setting(
        -1.0, "Score of a response that did not end, as in PPO: it is picked last."
    )
    safety_threshold: float = setting(
        0.15,
        "As in PPO: safety speaks where sigmoid(safety) is below this.",
        minimum=0.0,
        maximum=1.0,
    )
    batch_size: int = setting(256, "Responses decoded side by side.", minimum=1)
    seed: int = setting(
        0, "Seed of the sampling and of the bootstrap.", minimum=0, maximum=MOST_SEED
    )
    threads: int = setting(0, "CPU threads; 0 leaves it to torch.", minimum=0, maximum=256)
    device: str = setting("auto", DEVICE_HELP)
    dtype: str = setting("auto", READ_HELP, choices=DTYPES)

    def check(self) -> None:
        if not self.n or min(self.n) < 1 or len(set(self.n)) != len(self.n):
            raise ValueError("n must be one or more different whole numbers from 1 up")
        if max(self.n) > MOST_SAMPLES:
            raise ValueError(f"n must not exceed {MOST_SAMPLES}, got {max(self.n):g}")
        if 0 < self.samples < max(self.n):
            raise ValueError(f"samples ({self.samples}) must not be fewer than n ({max(self.n)})")


@dataclass(frozen=True, kw_only=True)
class GrowConfig(StageConfig):
    """A larger policy that computes what a smaller one does."""

    policy: str = required("The trained policy to grow: a model folder, or a hub name.")
    width: int = setting(
        1,
        "The residual stream becomes this many times as wide; the heads and the MLP with it.",
        minimum=1,
        maximum=16,
    )
    intermediate: int = setting(
        1, "The MLP becomes this many times as wide, beyond `width`.", minimum=1, maximum=16
    )
    layers: int = setting(
        0, "Layers afterwards; 0 keeps as many as there are.", minimum=0, maximum=MOST_LAYERS
    )
    noise: float = setting(
        0.0,
        "Deviation of the noise on new units, relative to their weights' (0: the grown model "
        "computes exactly the same, but copies stay copies while they are trained alike).",
        minimum=0.0,
        maximum=1.0,
        under=either(above("width", 1), above("intermediate", 1)),
    )
    seed: int = setting(0, "Seed of the noise.", minimum=0, maximum=MOST_SEED)
    threads: int = setting(0, "CPU threads; 0 leaves it to torch.", minimum=0, maximum=256)

    def check(self) -> None:
        if self.width == self.intermediate == 1 and self.layers == 0:
            raise ValueError("nothing grows; set width, intermediate or layers")
