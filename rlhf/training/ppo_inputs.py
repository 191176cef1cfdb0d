"""The inputs of a PPO run: prompts, texts of PPO-ptx, models, processes."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from rlhf.training import parallel, ptx
from rlhf.training.configs import PPOConfig
from rlhf.training.data import Prompt, read_prompts
from rlhf.training.language_models import devices
from rlhf.training.ppo_models import Models, derive_seed
from rlhf.training.rundir.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Inputs:
    """The data of a run, without prompts that are too long for the model."""

    config: PPOConfig
    prompts: list[Prompt]
    token_ids: list[list[int]]
    """Of each prompt."""
    watch: list[Prompt]
    """The prompts on which the reward models are compared; empty: no monitoring."""
    ptx_examples: list[ptx.Example]

    def batch(self, step: int) -> tuple[list[Prompt], list[list[int]]]:
        """The prompts of a step (from 1), and their token ids."""
        per_step = self.config.rollout.prompts_per_step
        return self.choose(per_step, step - 1, self.config.seed)

    def choose(self, n: int, index: int, seed: int) -> tuple[list[Prompt], list[list[int]]]:
        """`n` prompts of `choose_prompts`, and their token ids."""
        chosen = choose_prompts(len(self.prompts), n, index, seed)
        return [self.prompts[i] for i in chosen], [self.token_ids[i] for i in chosen]


def prepare(run_dir: Path, config: PPOConfig) -> tuple[Inputs, Models]:
    """Read the inputs, load the models and start the processes that share the work."""
    prompts, watch = read_prompt_files(run_dir, config)
    _check_enough(prompts, config)  # before models are loaded, which takes longer
    devices.be_deterministic(config.seed, config.threads)
    device = devices.choose_device(config.device)
    group = parallel.init_process_group(device, sharded=config.sharded)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # until `share_work` knows how many processes there will be
    models = Models(config, group)
    prompts, token_ids = models.fitting(prompts)
    examples = []
    if config.ptx.weight:
        examples = ptx.read_examples(run_dir, models.policy, config.rollout.long_prompts)
    if watch:
        watch, _ = models.fitting(watch)
    _check_enough(prompts, config)  # again, without those that are too long
    models.share_work(threads)
    return Inputs(config, prompts, token_ids, watch, examples), models


def read_prompt_files(run_dir: Path, config: PPOConfig) -> tuple[list[Prompt], list[Prompt]]:
    """The training prompts, and the watch prompts (may be empty)."""
    prompts = read_prompts(run_dir, "prompts")
    watch = read_prompts(run_dir, "watch") if (run_dir / "data" / "watch.jsonl").exists() else []
    if config.test_reward_model and not watch:
        raise InputError(
            "test_reward_model is given, but data/watch.jsonl with the prompts for it is missing; add "
            "some prompts, or leave test_reward_model empty."
        )
    return prompts, watch


def choose_prompts(n_prompts: int, per_step: int, index: int, seed: int) -> list[int]:
    """The prompts of step `index` (from 0), by number: shuffled again for every epoch over them."""
    chosen: list[int] = []
    position = index * per_step
    while len(chosen) < per_step:
        epoch, offset = divmod(position, n_prompts)
        order = list(range(n_prompts))
        random.Random(derive_seed(seed, epoch)).shuffle(order)
        taken = order[offset : offset + per_step - len(chosen)]
        chosen += taken
        position += len(taken)
    return chosen


def repeat_each(items: Sequence[T], times: int) -> list[T]:
    """Each item several times in a row."""
    return [item for item in items for _ in range(times)]


def _check_enough(prompts: Sequence[Prompt], config: PPOConfig) -> None:
    per_step = config.rollout.prompts_per_step
    if len(prompts) < per_step:
        raise InputError(
            f"data/prompts.jsonl has {len(prompts)} prompts that can be used, fewer than the "
            f"{per_step} of one step; add prompts or lower rollout.prompts_per_step."
        )
