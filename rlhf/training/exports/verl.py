"""A PPO run for verl: overrides of its configuration, prompts as Parquet.

Names are those of verl 0.9.1, checked by `benchmarks/export_schemas.py`.
"""

import json
from typing import Any

from rlhf.training.exports.job import Job, label
from rlhf.training.rundir.errors import InputError

VERL = "0.9.1"


def verl(job: Job) -> tuple[dict[str, Any], set[str]]:
    """Overrides of verl's `ppo_trainer`, and the settings that have no counterpart there.

    Its minibatch is counted in prompts.
    """
    config, actor = job.config, "actor_rollout_ref.actor"
    overrides = _common_overrides(job)
    if config.optimizer.max_grad_norm:
        overrides |= {
            f"{actor}.grad_clip": config.optimizer.max_grad_norm,
            "critic.grad_clip": config.optimizer.max_grad_norm,
        }
    without_counterpart = {
        "advantage.whiten_rewards",
        "rule_rewards.weights",
        "reward.no_eos_score",
        "optimizer.adam_epsilon",
    }
    if not config.advantage.whiten:
        without_counterpart.add("advantage.whiten")
    if config.reference != config.policy:
        without_counterpart.add("reference")
    return overrides, without_counterpart


def _common_overrides(job: Job) -> dict[str, Any]:
    """The overrides that every run has."""
    config, folder = job.config, job.folder
    per_gpu = max(1, config.optimizer.microbatch_size // job.gpus)
    actor, rollout = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
    validation = "watch.parquet" if job.watch else "prompts.parquet"
    return {
        "data.train_files": folder / "prompts.parquet",
        "data.val_files": folder / validation,
        "data.prompt_key": "prompt",
        "data.train_batch_size": config.rollout.prompts_per_step,
        "data.max_prompt_length": job.longest,
        "data.max_response_length": config.rollout.max_new_tokens,
        "data.truncation": "error",
        "data.filter_overlong_prompts": config.rollout.long_prompts == "leave_out",
        "data.seed": config.seed,
        "actor_rollout_ref.model.path": folder / "policy",
        "actor_rollout_ref.model.lora_rank": config.lora.rank,
        "actor_rollout_ref.model.lora_alpha": config.lora.alpha,
        f"{actor}.optim.lr": config.optimizer.learning_rate,
        f"{actor}.optim.weight_decay": config.optimizer.weight_decay,
        f"{actor}.optim.min_lr_ratio": config.optimizer.learning_rate_floor,
        f"{actor}.optim.lr_warmup_steps": config.optimizer.warmup_steps,
        f"{actor}.ppo_mini_batch_size": max(
            1, config.optimizer.minibatch_size // config.rollout.samples_per_prompt
        ),
        f"{actor}.ppo_micro_batch_size_per_gpu": per_gpu,
        f"{actor}.ppo_epochs": config.optimizer.epochs,
        f"{actor}.clip_ratio": config.loss.clip,
        f"{actor}.clip_ratio_low": config.loss.clip,
        f"{actor}.clip_ratio_high": config.loss.clip_high or config.loss.clip,
        f"{actor}.clip_ratio_c": config.loss.dual_clip
        or 1e6,  # it can't be switched off; so far away it has no effect
        f"{actor}.entropy_coeff": config.loss.entropy_bonus,
        f"{actor}.loss_agg_mode": "token-mean"
        if config.loss.average == "tokens"
        else "seq-mean-token-mean",
        f"{actor}.use_kl_loss": False,
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu": per_gpu,
        f"{rollout}.name": "vllm",
        f"{rollout}.n": config.rollout.samples_per_prompt,
        f"{rollout}.temperature": config.rollout.temperature,
        f"{rollout}.seed": config.seed,
        f"{rollout}.tensor_model_parallel_size": job.tensor_parallel,
        f"{rollout}.log_prob_micro_batch_size_per_gpu": per_gpu,
        "critic.model.path": folder / "policy",
        "critic.optim.lr": config.critic.learning_rate,
        "critic.optim.weight_decay": config.optimizer.weight_decay,
        "critic.ppo_micro_batch_size_per_gpu": per_gpu,
        "critic.cliprange_value": config.critic.value_clip,
        "algorithm.adv_estimator": "gae",
        "algorithm.gamma": config.advantage.gamma,
        "algorithm.lam": config.advantage.lam,
        "algorithm.use_kl_in_reward": True,
        "algorithm.kl_penalty": "kl",
        "algorithm.kl_ctrl.type": config.kl.controller,
        "algorithm.kl_ctrl.kl_coef": config.kl.weight,
        "algorithm.kl_ctrl.horizon": round(config.kl.horizon),
        "algorithm.kl_ctrl.target_kl": config.kl.target,
        "reward.custom_reward_function.path": folder / "reward.py",
        "reward.custom_reward_function.name": "compute_score",
        "trainer.nnodes": 1,
        "trainer.n_gpus_per_node": job.gpus,
        "trainer.total_epochs": job.passes,
        "trainer.total_training_steps": config.steps,
        "trainer.critic_warmup": config.critic.warmup_steps,
        "trainer.val_before_train": False,
        "trainer.logger": ["console"],
        "trainer.project_name": "ground-control",
        "trainer.experiment_name": folder.parent.parent.name,
        "trainer.default_local_dir": folder / "checkpoints",
    }


def verl_command(overrides: dict[str, Any]) -> list[str]:
    """The command line, in Hydra's grammar."""
    command = ["python3", "-m", "verl.trainer.main_ppo"]
    for name, value in overrides.items():
        if isinstance(value, bool | list):
            value = json.dumps(value)
        command.append(f"{name}={value}")
    return command


def write_verl_prompts(job: Job) -> None:
    """`prompts.parquet` and, where some are watched, `watch.parquet`."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise InputError("verl reads Parquet, which needs pyarrow; pip install pyarrow.") from None
    for name, prompts in (("prompts", job.prompts), ("watch", job.watch)):
        if prompts:
            records = [
                {
                    "data_source": "ground-control",
                    "prompt": p.messages,
                    "ability": p.category,
                    "reward_model": {"style": "model", "ground_truth": label(p)},
                    "extra_info": {"index": i, "prompt_id": p.prompt_id},
                }
                for i, p in enumerate(prompts)
            ]
            pq.write_table(pa.Table.from_pylist(records), job.folder / f"{name}.parquet")
