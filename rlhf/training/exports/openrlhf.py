"""A PPO run for OpenRLHF: arguments of its command line, prompts as JSON Lines.

Names are those of OpenRLHF 0.11.2, checked by `benchmarks/export_schemas.py`.
"""

from typing import Any

from rlhf.training.exports.job import Job, label
from rlhf.training.rundir.files import write_jsonl

OPENRLHF = "0.11.2"


def openrlhf(job: Job) -> tuple[dict[str, Any], set[str]]:
    """Arguments of `openrlhf.cli.train_ppo_ray`, and the settings that have no counterpart there.

    True is a switch. A rollout's batch is counted in prompts, a training batch in responses.
    """
    config = job.config
    arguments = _common_arguments(job)
    if config.optimizer.max_grad_norm:
        arguments |= {
            "actor.max_norm": config.optimizer.max_grad_norm,
            "critic.max_norm": config.optimizer.max_grad_norm,
        }
    if config.reward.clip:
        arguments["reward.clip_range"] = [-config.reward.clip, config.reward.clip]
    if config.loss.dual_clip:
        arguments["actor.dual_clip"] = config.loss.dual_clip
    if config.loss.entropy_bonus:
        arguments["actor.entropy_coef"] = config.loss.entropy_bonus
    if config.kl.controller == "adaptive":
        arguments |= {
            "algo.kl.target": config.kl.target,
            "algo.kl.horizon": round(config.kl.horizon),
        }
    if config.lora.rank:
        arguments |= {"ds.lora.rank": config.lora.rank, "ds.lora.alpha": round(config.lora.alpha)}
    without_counterpart = {"advantage.whiten_rewards", "rule_rewards.weights", "loss.clip_high"}
    if config.reward.no_eos_score < 0:  # a negative coefficient replaces the reward of a cut answer
        arguments["reward.stop_properly_penalty_coef"] = config.reward.no_eos_score
    else:
        without_counterpart.add("reward.no_eos_score")
    if not config.advantage.whiten:  # it always whitens
        without_counterpart.add("advantage.whiten")
    if config.reference != config.policy:  # its reference is what its actor starts from
        without_counterpart.add("reference")
    return arguments, without_counterpart


def _common_arguments(job: Job) -> dict[str, Any]:
    """The arguments that every run has."""
    config, folder = job.config, job.folder
    return {
        "actor.model_name_or_path": folder / "policy",
        "critic.model_name_or_path": folder / "policy",
        "reward.remote_url": folder / "reward.py",
        "data.prompt_dataset": folder / "prompts.jsonl",
        "data.input_key": "input",
        "data.label_key": "label",
        "data.apply_chat_template": True,
        "data.max_len": job.longest + config.rollout.max_new_tokens,
        "rollout.max_new_tokens": config.rollout.max_new_tokens,
        "rollout.batch_size": config.rollout.prompts_per_step,
        "rollout.n_samples_per_prompt": config.rollout.samples_per_prompt,
        "rollout.micro_batch_size": max(1, config.optimizer.microbatch_size // job.gpus),
        "rollout.temperature": config.rollout.temperature,
        "train.batch_size": config.optimizer.minibatch_size,
        "train.micro_batch_size": max(1, config.optimizer.microbatch_size // job.gpus),
        "train.max_epochs": config.optimizer.epochs,
        "train.num_episodes": job.passes,
        "train.seed": config.seed,
        "actor.adam.lr": config.optimizer.learning_rate,
        "actor.adam.eps": config.optimizer.adam_epsilon,
        "actor.adam.weight_decay": config.optimizer.weight_decay,
        "actor.min_lr_ratio": config.optimizer.learning_rate_floor,
        "actor.lr_warmup_ratio": min(1.0, config.optimizer.warmup_steps / config.steps),
        "actor.eps_clip": config.loss.clip,
        "actor.loss_agg_mode": "token-mean"
        if config.loss.average == "tokens"
        else "seq-mean-token-mean",
        "critic.adam.lr": config.critic.learning_rate,
        "critic.adam.eps": config.optimizer.adam_epsilon,
        "critic.adam.weight_decay": config.optimizer.weight_decay,
        "critic.value_clip": config.critic.value_clip,
        "critic.freezing_steps": config.critic.warmup_steps or -1,
        "algo.advantage.estimator": "gae",
        "algo.advantage.gamma": config.advantage.gamma,
        "algo.advantage.lambd": config.advantage.lam,
        "algo.kl.init_coef": config.kl.weight,
        "algo.kl.estimator": "k1",
        "ds.zero_stage": 3,
        "actor.num_nodes": 1,
        "actor.num_gpus_per_node": job.gpus,
        "critic.num_nodes": 1,
        "critic.num_gpus_per_node": job.gpus,
        "ref.num_nodes": 1,
        "ref.num_gpus_per_node": job.gpus,
        "vllm.num_engines": max(1, job.gpus // job.tensor_parallel),
        "vllm.tensor_parallel_size": job.tensor_parallel,
        "vllm.gpu_memory_utilization": 0.5,
        "vllm.enable_sleep": True,
        "train.colocate_all": True,
        "ckpt.output_dir": folder / "output",
        "ckpt.path": folder / "checkpoints",
        "ckpt.save_hf": True,
    }


def openrlhf_command(arguments: dict[str, Any]) -> list[str]:
    """The command line; switches stand alone, several values follow one another."""
    command = ["python3", "-m", "openrlhf.cli.train_ppo_ray"]
    for name, value in arguments.items():
        command.append(f"--{name}")
        if value is not True:
            command += map(str, value) if isinstance(value, list) else [str(value)]
    return command


def write_openrlhf_prompts(job: Job) -> None:
    """`prompts.jsonl`, which OpenRLHF renders itself."""
    rows = [{"input": p.messages, "label": label(p)} for p in job.prompts]
    write_jsonl(job.folder / "prompts.jsonl", rows)
