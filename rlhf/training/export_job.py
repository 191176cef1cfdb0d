"""A PPO run for a larger engine: `python -m rlhf.training.export_job RUN_DIR --engine openrlhf`.

Our own loop fits one machine. Tensor and pipeline parallelism belong to engines made for them, so a
PPO run folder can be handed to one: the policy and the reward model are copied, prompts are written
in the form that the engine reads, and every setting of `PPOConfig` is translated, or named among
what the engine has no counterpart for. Names are those of the versions in `VERSIONS`;
`benchmarks/export_schemas.py` checks them against an unpacked release or a checkout.

The engines call our reward model as a Python function (`reward.py`), so their environment needs
this package installed. A folder that exists is not written over.
"""

import argparse
import json
import math
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from rlhf.training.configs import PPOConfig
from rlhf.training.data import Prompt, read_prompts
from rlhf.training.rundir import CONFIG, EXIT_DONE, EXIT_INPUT, InputError, write_json, write_jsonl
from rlhf.training.settings import load

VERSIONS = {
    "openrlhf": "0.11.2",
    "verl": "0.9.1",
    # NVIDIA-NeMo/RL is used from a checkout: the commit whose ppo_math_1B.yaml was read.
    "nemo-rl": "0352cb765e9cd4857dc64856859d21b3130f5bae",
}

REWARD = '''"""Scores of Ground Control's reward model, for the engine that this folder is for."""

import json
from pathlib import Path
from threading import Lock

import torch

from rlhf.training.scorers import RewardModel

SETTINGS = json.loads((Path(__file__).parent / "reward.json").read_text(encoding="utf-8"))
MODEL = RewardModel.load(Path(__file__).parent / "reward_model")
ONE_AT_A_TIME = Lock()


def scores(prompts, texts):
    """One number for each text; `prompts` are JSON objects with messages and risk."""
    asked = [json.loads(prompt) for prompt in prompts]
    risks = [prompt["risk"] for prompt in asked]
    with ONE_AT_A_TIME:
        axes = MODEL.score([prompt["messages"] for prompt in asked], texts)
    if SETTINGS["combine"] == "threshold":
        total = MODEL.combine(axes, risks, threshold=SETTINGS["safety_threshold"])
    else:
        weights = SETTINGS["weights"]
        total = sum(weights.get(axis, 1.0) * score for axis, score in axes.items())
    if SETTINGS["score_clip"]:
        total = total.clamp(-SETTINGS["score_clip"], SETTINGS["score_clip"])
    return total


def answer_in(query, prompt):
    """What the policy said, without the prompt and the token that ends it."""
    text = query[len(prompt):] if query.startswith(prompt) else query
    for end in SETTINGS["stop"]:
        text = text.split(end)[0]
    return text.strip()


def reward_func(queries, prompts, labels):
    """OpenRLHF's signature: whole texts, rendered prompts, and our label."""
    texts = [answer_in(query, prompt) for query, prompt in zip(queries, prompts, strict=True)]
    total = scores(labels, texts)
    return {"rewards": total, "scores": total, "extra_logs": {}}


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **_):
    """verl's signature: one answer."""
    return float(scores([ground_truth], [solution_str.strip()])[0])
'''


NEMO_RL_ENVIRONMENT = '''"""Ground Control's prompts and reward model, as NeMo-RL takes data and rewards."""

import ray
import torch
from nemo_rl.environments.interfaces import EnvironmentInterface, EnvironmentReturn

import reward


def read_prompt(datum, task, tokenizer, max_seq_length, idx):
    """A line of prompts.jsonl as the policy reads it; one that is too long counts for nothing."""
    text = tokenizer.apply_chat_template(
        datum["messages"], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"][0]
    return {
        "message_log": [{"role": "user", "content": text, "token_ids": ids[:max_seq_length]}],
        "length": min(len(ids), max_seq_length),
        "extra_env_info": {"label": datum["label"]},
        "loss_multiplier": float(len(ids) <= max_seq_length),
        "idx": idx,
        "task_name": datum["task_name"],
    }


@ray.remote
class RewardModel(EnvironmentInterface):
    """One answer, one reward, and the episode is over."""

    def __init__(self, config):
        pass

    def step(self, message_log_batch, metadata):
        texts = [reward.answer_in(log[-1]["content"], "") for log in message_log_batch]
        return EnvironmentReturn(
            observations=[{"role": "environment", "content": ""} for _ in texts],
            metadata=metadata,
            next_stop_strings=[None for _ in texts],
            rewards=reward.scores([one["label"] for one in metadata], texts).float().cpu(),
            terminateds=torch.ones(len(texts), dtype=torch.bool),
            answers=texts,
        )

    def global_post_process_and_metrics(self, batch):
        return batch, {}
'''

NEMO_RL_START = '''"""Start NeMo-RL's PPO with what is in this folder; NEMO_RL is the path of its checkout."""

import os
import runpy
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
NEMO_RL = Path(os.environ.get("NEMO_RL", ""))
if not (NEMO_RL / "examples" / "run_ppo.py").is_file():
    sys.exit("Set NEMO_RL to a checkout of https://github.com/NVIDIA-NeMo/RL.")
# Ray's workers import environment.py and reward.py too.
os.environ["PYTHONPATH"] = f"{HERE}:{os.environ.get('PYTHONPATH', '')}"
sys.path.insert(0, str(HERE))

import environment
from nemo_rl.data.processors import register_processor
from nemo_rl.distributed.ray_actor_environment_registry import ACTOR_ENVIRONMENT_REGISTRY
from nemo_rl.distributed.virtual_cluster import PY_EXECUTABLES
from nemo_rl.environments.utils import register_env

register_processor("ground_control", environment.read_prompt)
register_env("ground_control", "environment.RewardModel")
ACTOR_ENVIRONMENT_REGISTRY["environment.RewardModel"] = PY_EXECUTABLES.SYSTEM
config = NEMO_RL / "examples" / "configs" / "ppo_math_1B.yaml"
sys.argv[1:1] = ["--config", str(config)]
runpy.run_path(str(NEMO_RL / "examples" / "run_ppo.py"), run_name="__main__")
'''


class Asked:
    """A run's settings, noting which of them somebody asked for."""

    def __init__(self, config: PPOConfig) -> None:
        self.config = config
        self.names: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.names.add(name)
        return getattr(self.config, name)


@dataclass(frozen=True)
class Job:
    """What is exported, and for what machine."""

    config: Any
    """The settings, as `Asked`: what an engine's function does not ask for is left behind."""
    prompts: Sequence[Prompt]
    watch: Sequence[Prompt]
    longest: int
    """Tokens of the longest prompt."""
    stop: Sequence[str]
    folder: Path
    gpus: int
    tensor_parallel: int

    @property
    def passes(self) -> int:
        """Passes over the prompts that come to at least the run's steps."""
        config = self.config
        return max(1, math.ceil(config.steps * config.prompts_per_step / len(self.prompts)))


# --- OpenRLHF ---------------------------------------------------------------------------------


def openrlhf(job: Job) -> tuple[dict[str, Any], set[str]]:
    """Arguments of `openrlhf.cli.train_ppo_ray`, and the settings that have no counterpart there.

    True is a switch. A rollout's batch is counted in prompts, a training batch in responses.
    """
    config, folder = job.config, job.folder
    arguments: dict[str, Any] = {
        "actor.model_name_or_path": folder / "policy",
        "critic.model_name_or_path": folder / "policy",
        "reward.remote_url": folder / "reward.py",
        "data.prompt_dataset": folder / "prompts.jsonl",
        "data.input_key": "input",
        "data.label_key": "label",
        "data.apply_chat_template": True,
        "data.max_len": job.longest + config.max_new_tokens,
        "rollout.max_new_tokens": config.max_new_tokens,
        "rollout.batch_size": config.prompts_per_step,
        "rollout.n_samples_per_prompt": config.samples_per_prompt,
        "rollout.micro_batch_size": max(1, config.microbatch_size // job.gpus),
        "rollout.temperature": config.temperature,
        "train.batch_size": config.minibatch_size,
        "train.micro_batch_size": max(1, config.microbatch_size // job.gpus),
        "train.max_epochs": config.epochs,
        "train.num_episodes": job.passes,
        "train.seed": config.seed,
        "actor.adam.lr": config.learning_rate,
        "actor.adam.eps": config.adam_epsilon,
        "actor.adam.weight_decay": config.weight_decay,
        "actor.min_lr_ratio": config.learning_rate_floor,
        "actor.lr_warmup_ratio": min(1.0, config.warmup_steps / config.steps),
        "actor.eps_clip": config.clip,
        "actor.loss_agg_mode": "token-mean"
        if config.loss_average == "tokens"
        else "seq-mean-token-mean",
        "critic.adam.lr": config.value_learning_rate,
        "critic.adam.eps": config.adam_epsilon,
        "critic.adam.weight_decay": config.weight_decay,
        "critic.value_clip": config.value_clip,
        "critic.freezing_steps": config.critic_warmup_steps or -1,
        "algo.advantage.estimator": "gae",
        "algo.advantage.gamma": config.gamma,
        "algo.advantage.lambd": config.lam,
        "algo.kl.init_coef": config.kl_weight,
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
    if config.max_grad_norm:
        arguments |= {
            "actor.max_norm": config.max_grad_norm,
            "critic.max_norm": config.max_grad_norm,
        }
    if config.score_clip:
        arguments["reward.clip_range"] = [-config.score_clip, config.score_clip]
    if config.dual_clip:
        arguments["actor.dual_clip"] = config.dual_clip
    if config.entropy_bonus:
        arguments["actor.entropy_coef"] = config.entropy_bonus
    if config.kl_controller == "adaptive":
        arguments |= {
            "algo.kl.target": config.kl_target,
            "algo.kl.horizon": round(config.kl_horizon),
        }
    if config.lora_rank:
        arguments |= {"ds.lora.rank": config.lora_rank, "ds.lora.alpha": round(config.lora_alpha)}
    left = {"whiten_rewards", "rules", "clip_high"}
    if config.no_eos_score < 0:  # a negative coefficient replaces the reward of a cut answer
        arguments["reward.stop_properly_penalty_coef"] = config.no_eos_score
    else:
        left.add("no_eos_score")
    if not config.whiten_advantages:  # it always whitens
        left.add("whiten_advantages")
    if config.reference != config.policy:  # its reference is what its actor starts from
        left.add("reference")
    return arguments, left


def openrlhf_command(arguments: dict[str, Any]) -> list[str]:
    """The command line; switches stand alone, several values follow one another."""
    command = ["python3", "-m", "openrlhf.cli.train_ppo_ray"]
    for name, value in arguments.items():
        command.append(f"--{name}")
        if value is not True:
            command += map(str, value) if isinstance(value, list) else [str(value)]
    return command


# --- verl -------------------------------------------------------------------------------------


def verl(job: Job) -> tuple[dict[str, Any], set[str]]:
    """Overrides of verl's `ppo_trainer`, and the settings that have no counterpart there.

    Its minibatch is counted in prompts.
    """
    config, folder = job.config, job.folder
    per_gpu = max(1, config.microbatch_size // job.gpus)
    actor, rollout = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
    validation = "watch.parquet" if job.watch else "prompts.parquet"
    overrides: dict[str, Any] = {
        "data.train_files": folder / "prompts.parquet",
        "data.val_files": folder / validation,
        "data.prompt_key": "prompt",
        "data.train_batch_size": config.prompts_per_step,
        "data.max_prompt_length": job.longest,
        "data.max_response_length": config.max_new_tokens,
        "data.truncation": "error",
        "data.filter_overlong_prompts": config.long_prompts == "leave_out",
        "data.seed": config.seed,
        "actor_rollout_ref.model.path": folder / "policy",
        "actor_rollout_ref.model.lora_rank": config.lora_rank,
        "actor_rollout_ref.model.lora_alpha": config.lora_alpha,
        f"{actor}.optim.lr": config.learning_rate,
        f"{actor}.optim.weight_decay": config.weight_decay,
        f"{actor}.optim.min_lr_ratio": config.learning_rate_floor,
        f"{actor}.optim.lr_warmup_steps": config.warmup_steps,
        f"{actor}.ppo_mini_batch_size": max(1, config.minibatch_size // config.samples_per_prompt),
        f"{actor}.ppo_micro_batch_size_per_gpu": per_gpu,
        f"{actor}.ppo_epochs": config.epochs,
        f"{actor}.clip_ratio": config.clip,
        f"{actor}.clip_ratio_low": config.clip,
        f"{actor}.clip_ratio_high": config.clip_high or config.clip,
        f"{actor}.clip_ratio_c": config.dual_clip or 1e6,  # there is no switch; so far off is off
        f"{actor}.entropy_coeff": config.entropy_bonus,
        f"{actor}.loss_agg_mode": "token-mean"
        if config.loss_average == "tokens"
        else "seq-mean-token-mean",
        f"{actor}.use_kl_loss": False,
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu": per_gpu,
        f"{rollout}.name": "vllm",
        f"{rollout}.n": config.samples_per_prompt,
        f"{rollout}.temperature": config.temperature,
        f"{rollout}.seed": config.seed,
        f"{rollout}.tensor_model_parallel_size": job.tensor_parallel,
        f"{rollout}.log_prob_micro_batch_size_per_gpu": per_gpu,
        "critic.model.path": folder / "policy",
        "critic.optim.lr": config.value_learning_rate,
        "critic.optim.weight_decay": config.weight_decay,
        "critic.ppo_micro_batch_size_per_gpu": per_gpu,
        "critic.cliprange_value": config.value_clip,
        "algorithm.adv_estimator": "gae",
        "algorithm.gamma": config.gamma,
        "algorithm.lam": config.lam,
        "algorithm.use_kl_in_reward": True,
        "algorithm.kl_penalty": "kl",
        "algorithm.kl_ctrl.type": config.kl_controller,
        "algorithm.kl_ctrl.kl_coef": config.kl_weight,
        "algorithm.kl_ctrl.horizon": round(config.kl_horizon),
        "algorithm.kl_ctrl.target_kl": config.kl_target,
        "reward.custom_reward_function.path": folder / "reward.py",
        "reward.custom_reward_function.name": "compute_score",
        "trainer.nnodes": 1,
        "trainer.n_gpus_per_node": job.gpus,
        "trainer.total_epochs": job.passes,
        "trainer.total_training_steps": config.steps,
        "trainer.critic_warmup": config.critic_warmup_steps,
        "trainer.val_before_train": False,
        "trainer.logger": ["console"],
        "trainer.project_name": "ground-control",
        "trainer.experiment_name": folder.parent.parent.name,
        "trainer.default_local_dir": folder / "checkpoints",
    }
    if config.max_grad_norm:
        overrides |= {
            f"{actor}.grad_clip": config.max_grad_norm,
            "critic.grad_clip": config.max_grad_norm,
        }
    left = {"whiten_rewards", "rules", "no_eos_score", "adam_epsilon"}
    if not config.whiten_advantages:
        left.add("whiten_advantages")
    if config.reference != config.policy:
        left.add("reference")
    return overrides, left


def verl_command(overrides: dict[str, Any]) -> list[str]:
    """The command line, in Hydra's grammar."""
    command = ["python3", "-m", "verl.trainer.main_ppo"]
    for name, value in overrides.items():
        if isinstance(value, bool | list):
            value = json.dumps(value)
        command.append(f"{name}={value}")
    return command


# --- NeMo-RL ----------------------------------------------------------------------------------


def nemo_rl(job: Job) -> tuple[dict[str, Any], set[str]]:
    """Overrides of NeMo-RL's `ppo_math_1B.yaml`, and the settings without counterpart there.

    A rollout's batch is counted in prompts, a training batch in responses.
    """
    config, folder = job.config, job.folder
    micro = max(1, config.microbatch_size // job.gpus)
    length = job.longest + config.max_new_tokens
    overrides: dict[str, Any] = {
        "ppo.num_prompts_per_step": config.prompts_per_step,
        "ppo.num_generations_per_prompt": config.samples_per_prompt,
        "ppo.max_num_steps": config.steps,
        "ppo.max_num_epochs": job.passes,
        "ppo.ppo_epochs": config.epochs,
        "ppo.policy_training_start_step": config.critic_warmup_steps,
        "ppo.seed": config.seed,
        "ppo.val_period": config.watch_every if job.watch else 0,
        "ppo.val_at_start": False,
        "ppo.skip_reference_policy_logprobs_calculation": config.kl_weight == 0,
        "ppo.reward_shaping.enabled": False,
        "ppo.reward_scaling.enabled": False,
        "ppo.adv_estimator.name": "gae",
        "ppo.adv_estimator.gae_lambda": config.lam,
        "ppo.adv_estimator.gae_gamma": config.gamma,
        "ppo.adv_estimator.normalize_advantages": config.whiten_advantages,
        "loss_fn.reference_policy_kl_penalty": config.kl_weight,
        "loss_fn.reference_policy_kl_type": "k1",
        "loss_fn.use_kl_in_reward": True,
        "loss_fn.ratio_clip_min": config.clip,
        "loss_fn.ratio_clip_max": config.clip_high or config.clip,
        "loss_fn.ratio_clip_c": config.dual_clip or None,
        "loss_fn.token_level_loss": config.loss_average == "tokens",
        "value_loss_fn.cliprange": config.value_clip,
        "policy.model_name": folder / "policy",
        "policy.train_global_batch_size": config.minibatch_size,
        "policy.train_micro_batch_size": micro,
        "policy.max_total_sequence_length": length,
        "policy.precision": "float32" if config.dtype == "float32" else "bfloat16",
        "policy.max_grad_norm": config.max_grad_norm or 1e6,  # there is no switch
        "policy.dtensor_cfg.tensor_parallel_size": job.tensor_parallel,
        "policy.dtensor_cfg.lora_cfg.enabled": bool(config.lora_rank),
        "policy.generation.max_new_tokens": config.max_new_tokens,
        "policy.generation.temperature": config.temperature,
        "policy.generation.vllm_cfg.tensor_parallel_size": job.tensor_parallel,
        "value.model_name": folder / "policy",
        "value.max_grad_norm": config.max_grad_norm or 1e6,
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
    for model, rate in (
        ("policy", config.learning_rate),
        ("value", config.value_learning_rate),
    ):
        overrides |= {
            f"{model}.optimizer.kwargs.lr": rate,
            f"{model}.optimizer.kwargs.weight_decay": config.weight_decay,
            f"{model}.optimizer.kwargs.eps": config.adam_epsilon,
        }
    if config.lora_rank:
        overrides |= {
            "policy.dtensor_cfg.lora_cfg.dim": config.lora_rank,
            "policy.dtensor_cfg.lora_cfg.alpha": config.lora_alpha,
        }
    if job.watch:
        overrides |= {
            "data.validation.dataset_name": "ResponseDataset",
            "data.validation.data_path": folder / "watch.jsonl",
        }
    else:
        overrides |= {"data.validation": None, "checkpointing.metric_name": None}
    left = {"whiten_rewards", "rules", "no_eos_score", "entropy_bonus"}
    left |= {"learning_rate_floor", "warmup_steps"}  # its schedule counts updates, not rollouts
    left |= {"kl_controller", "kl_target", "kl_horizon"}  # its KL weight is fixed
    if config.reference != config.policy:
        left.add("reference")
    return overrides, left


def nemo_rl_command(overrides: dict[str, Any]) -> list[str]:
    """The command line, in Hydra's grammar; `++` adds a name or changes it."""
    command = ["python3", "start.py"]
    for name, value in overrides.items():
        plain = isinstance(value, str | Path)
        command.append(f"++{name}={value if plain else json.dumps(value)}")
    return command


# --- Writing ----------------------------------------------------------------------------------


def label(prompt: Prompt) -> str:
    """What `reward.py` needs to know of a prompt, as one text that engines hand through."""
    return json.dumps({"messages": prompt.messages, "risk": prompt.risk}, ensure_ascii=False)


def write_prompts(job: Job, engine: str) -> None:
    """Prompts as the engine reads them: Parquet for verl, JSON Lines for the others."""
    if engine == "openrlhf":
        rows = [{"input": p.messages, "label": label(p)} for p in job.prompts]
        write_jsonl(job.folder / "prompts.jsonl", rows)
        return
    if engine == "nemo-rl":
        for name, prompts in (("prompts", job.prompts), ("watch", job.watch)):
            if prompts:
                rows = [{"messages": p.messages, "label": label(p)} for p in prompts]
                write_jsonl(job.folder / f"{name}.jsonl", rows)
        return
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


def copy_model(source: str, target: Path) -> None:
    """A model folder's copy; hard links where the file system has them, since weights are large."""

    def link(one: str, other: str) -> None:
        try:
            os.link(one, other)
        except OSError:
            shutil.copy2(one, other)

    if not Path(source).is_dir():
        raise InputError(f"{source!r} is not a folder; an engine is given copies of local models.")
    shutil.copytree(source, target, copy_function=link)


ENGINES = {
    "openrlhf": (openrlhf, openrlhf_command),
    "verl": (verl, verl_command),
    "nemo-rl": (nemo_rl, nemo_rl_command),
}


def export(run_dir: Path, engine: str, *, gpus: int = 8, tensor_parallel: int = 1) -> Path:
    """Write `RUN_DIR/export/<engine>/` and return it; nothing is left there when it fails."""
    import torch

    from rlhf.training import loading

    config = load(PPOConfig, run_dir / CONFIG, stored=True)
    prompts = read_prompts(run_dir)
    watch = read_prompts(run_dir, "watch") if (run_dir / "data" / "watch.jsonl").exists() else []
    if gpus % tensor_parallel:
        raise InputError(f"tensor-parallel ({tensor_parallel}) must divide gpus ({gpus}).")
    folder = run_dir / "export" / engine
    if folder.exists():
        raise InputError(f"{folder} is there already; move it away first.")
    policy = loading.load_policy(config.policy, "policy", device=torch.device("cpu"))
    policy.refuse_encoder_decoder(engine)
    if config.combine == "lagrange":
        raise InputError(
            "combine is 'lagrange', whose multiplier changes while it learns, and no engine asks for "
            "that; export it with 'threshold' or 'weights'."
        )
    if not (Path(config.reward_model) / "reward_model.json").is_file():
        raise InputError(f"{config.reward_model!r} has no reward_model.json; is it a reward model?")
    prompts, encoded = policy.fitting(
        prompts, room=config.max_new_tokens, long_prompts=config.long_prompts
    )
    try:
        folder.mkdir(parents=True)
        asked = Asked(config)
        job = Job(
            config=asked,
            prompts=prompts,
            watch=watch,
            longest=max(map(len, encoded)),
            stop=[policy.tokenizer.convert_ids_to_tokens(i) for i in policy.stop_ids],
            folder=folder,
            gpus=gpus,
            tensor_parallel=tensor_parallel,
        )
        translate, command = ENGINES[engine]
        settings, left = translate(job)
        copy_model(config.policy, folder / "policy")
        copy_model(config.reward_model, folder / "reward_model")
        write_prompts(job, engine)
        (folder / "reward.py").write_text(REWARD, encoding="utf-8")
        if engine == "nemo-rl":
            (folder / "environment.py").write_text(NEMO_RL_ENVIRONMENT, encoding="utf-8")
            (folder / "start.py").write_text(NEMO_RL_START, encoding="utf-8")
        names = ("combine", "safety_threshold", "weights", "score_clip")
        write_json(
            folder / "reward.json",
            {n: getattr(config, n) for n in names} | {"stop": list(job.stop)},
        )
        settings = {n: str(v) if isinstance(v, Path) else v for n, v in settings.items()}
        given = {"policy", "reward_model", "long_prompts", *names}
        default = {
            f.name: f.default if f.default_factory is MISSING else f.default_factory()
            for f in fields(PPOConfig)
        }
        write_json(
            folder / "export.json",
            {
                "engine": engine,
                "version": VERSIONS[engine],
                "settings": settings,
                "left_behind": {
                    name: getattr(config, name)
                    for name in sorted(left | (set(default) - asked.names - given))
                    if getattr(config, name) != default[name]
                },
            },
        )
        script = '#!/bin/sh\nset -e\ncd "$(dirname "$0")"\nexec ' + " \\\n  ".join(
            map(shlex.quote, command(settings))
        )
        (folder / "launch.sh").write_text(script + "\n", encoding="utf-8")
        (folder / "launch.sh").chmod(0o755)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run_dir", type=Path, help="a PPO run folder (docs/formats.md)")
    parser.add_argument("--engine", choices=sorted(ENGINES), required=True)
    parser.add_argument("--gpus", type=int, default=8, help="on the one node; default 8")
    parser.add_argument("--tensor-parallel", type=int, default=1, help="GPUs a sampler; default 1")
    given = parser.parse_args(arguments)
    try:
        folder = export(
            given.run_dir.resolve(),
            given.engine,
            gpus=given.gpus,
            tensor_parallel=given.tensor_parallel,
        )
    except InputError as error:
        print(error, file=sys.stderr)
        return EXIT_INPUT
    print(f"{folder} is ready; start it with {folder / 'launch.sh'}")
    left = json.loads((folder / "export.json").read_text(encoding="utf-8"))["left_behind"]
    if left:
        print(f"{given.engine} has no counterpart for: {', '.join(left)}")
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
