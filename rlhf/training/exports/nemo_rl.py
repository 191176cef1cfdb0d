"""A PPO run for NeMo-RL: overrides of its configuration, prompts as JSON Lines.

NVIDIA-NeMo/RL is used from a checkout; names are those of the commit `NEMO_RL`, checked by
`benchmarks/export_schemas.py`.
"""

import json
from pathlib import Path
from typing import Any

from rlhf.training.exports.job import Job, label
from rlhf.training.rundir.files import write_jsonl

NEMO_RL = "0352cb765e9cd4857dc64856859d21b3130f5bae"
"""The commit whose ppo_math_1B.yaml was read."""


def nemo_rl(job: Job) -> tuple[dict[str, Any], set[str]]:
    """Overrides of NeMo-RL's `ppo_math_1B.yaml`, and the settings without counterpart there.

    A rollout's batch is counted in prompts, a training batch in responses.
    """
    config, folder = job.config, job.folder
    overrides = _common_overrides(job)
    for model, rate in (
        ("policy", config.optimizer.learning_rate),
        ("value", config.critic.learning_rate),
    ):
        overrides |= {
            f"{model}.optimizer.kwargs.lr": rate,
            f"{model}.optimizer.kwargs.weight_decay": config.optimizer.weight_decay,
            f"{model}.optimizer.kwargs.eps": config.optimizer.adam_epsilon,
        }
    if config.lora.rank:
        overrides |= {
            "policy.dtensor_cfg.lora_cfg.dim": config.lora.rank,
            "policy.dtensor_cfg.lora_cfg.alpha": config.lora.alpha,
        }
    if job.watch:
        overrides |= {
            "data.validation.dataset_name": "ResponseDataset",
            "data.validation.data_path": folder / "watch.jsonl",
        }
    else:
        overrides |= {"data.validation": None, "checkpointing.metric_name": None}
    without_counterpart = {
        "advantage.whiten_rewards",
        "rule_rewards.weights",
        "reward.no_eos_score",
        "loss.entropy_bonus",
    }
    without_counterpart |= {
        "optimizer.learning_rate_floor",
        "optimizer.warmup_steps",
    }  # its schedule counts updates, not rollouts
    without_counterpart |= {"kl.controller", "kl.target", "kl.horizon"}  # its KL weight is fixed
    if config.reference != config.policy:
        without_counterpart.add("reference")
    return overrides, without_counterpart


def _common_overrides(job: Job) -> dict[str, Any]:
    """The overrides that every run has."""
    config, folder = job.config, job.folder
    micro = max(1, config.optimizer.microbatch_size // job.gpus)
    length = job.longest + config.rollout.max_new_tokens
    return {
        "ppo.num_prompts_per_step": config.rollout.prompts_per_step,
        "ppo.num_generations_per_prompt": config.rollout.samples_per_prompt,
        "ppo.max_num_steps": config.steps,
        "ppo.max_num_epochs": job.passes,
        "ppo.ppo_epochs": config.optimizer.epochs,
        "ppo.policy_training_start_step": config.critic.warmup_steps,
        "ppo.seed": config.seed,
        "ppo.val_period": config.tripwire.watch_every if job.watch else 0,
        "ppo.val_at_start": False,
        "ppo.skip_reference_policy_logprobs_calculation": config.kl.weight == 0,
        "ppo.reward_shaping.enabled": False,
        "ppo.reward_scaling.enabled": False,
        "ppo.adv_estimator.name": "gae",
        "ppo.adv_estimator.gae_lambda": config.advantage.lam,
        "ppo.adv_estimator.gae_gamma": config.advantage.gamma,
        "ppo.adv_estimator.normalize_advantages": config.advantage.whiten,
        "loss_fn.reference_policy_kl_penalty": config.kl.weight,
        "loss_fn.reference_policy_kl_type": "k1",
        "loss_fn.use_kl_in_reward": True,
        "loss_fn.ratio_clip_min": config.loss.clip,
        "loss_fn.ratio_clip_max": config.loss.clip_high or config.loss.clip,
        "loss_fn.ratio_clip_c": config.loss.dual_clip or None,
        "loss_fn.token_level_loss": config.loss.average == "tokens",
        "value_loss_fn.cliprange": config.critic.value_clip,
        "policy.model_name": folder / "policy",
        "policy.train_global_batch_size": config.optimizer.minibatch_size,
        "policy.train_micro_batch_size": micro,
        "policy.max_total_sequence_length": length,
        "policy.precision": "float32" if config.dtype == "float32" else "bfloat16",
        "policy.max_grad_norm": config.optimizer.max_grad_norm or 1e6,  # it can't be switched off
        "policy.dtensor_cfg.tensor_parallel_size": job.tensor_parallel,
        "policy.dtensor_cfg.lora_cfg.enabled": bool(config.lora.rank),
        "policy.generation.max_new_tokens": config.rollout.max_new_tokens,
        "policy.generation.temperature": config.rollout.temperature,
        "policy.generation.vllm_cfg.tensor_parallel_size": job.tensor_parallel,
        "value.model_name": folder / "policy",
        "value.max_grad_norm": config.optimizer.max_grad_norm or 1e6,
        "value.dtensor_cfg.tensor_parallel_size": job.tensor_parallel,
        "data.max_input_seq_length": job.longest,
        "data.train.dataset_name": "ResponseDataset",
        "data.train.data_path": folder / "prompts.jsonl",
        "data.default.processor": "ground_control",
        "data.default.env_name": "ground_control",
        "env.ground_control.reward": folder / "reward.json",
        "checkpointing.checkpoint_dir": folder / "checkpoints",
        "logger.log_dir": folder / "logs",
        "cluster.gpus_per_node": job.gpus,
        "cluster.num_nodes": 1,
    }


def nemo_rl_command(overrides: dict[str, Any]) -> list[str]:
    """The command line, in Hydra's grammar; `++` adds a name or changes it."""
    command = ["python3", "start.py"]
    for name, value in overrides.items():
        plain = isinstance(value, str | Path)
        command.append(f"++{name}={value if plain else json.dumps(value)}")
    return command


def write_nemo_rl_prompts(job: Job) -> None:
    """`prompts.jsonl` and, where some are watched, `watch.jsonl`."""
    for name, prompts in (("prompts", job.prompts), ("watch", job.watch)):
        if prompts:
            rows = [{"messages": p.messages, "label": label(p)} for p in prompts]
            write_jsonl(job.folder / f"{name}.jsonl", rows)
