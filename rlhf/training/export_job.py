"""Export a PPO run to an engine for large models: `python -m rlhf.training.export_job RUN_DIR
--engine openrlhf`.

Our PPO runs on one machine. For tensor and pipeline parallelism, a PPO run folder can be exported
to another engine: the policy and the reward model are copied, prompts are written in the form that
the engine reads, and every setting of `PPOConfig` is translated, or listed among those without a
counterpart in the engine. Names are those of one version of each engine (`rlhf/training/exports/`);
`benchmarks/export_schemas.py` checks them against an unpacked release or a checkout.

The engines call our reward model as a Python function (`reward.py`), so their environment needs
this package installed. An existing folder is not overwritten.
"""

import argparse
import json
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from rlhf.training.configs import PPOConfig
from rlhf.training.data import read_prompts
from rlhf.training.exports.job import Job, TrackedSettings
from rlhf.training.exports.nemo_rl import NEMO_RL, nemo_rl, nemo_rl_command, write_nemo_rl_prompts
from rlhf.training.exports.openrlhf import (
    OPENRLHF,
    openrlhf,
    openrlhf_command,
    write_openrlhf_prompts,
)
from rlhf.training.exports.verl import VERL, verl, verl_command, write_verl_prompts
from rlhf.training.rundir import CONFIG
from rlhf.training.rundir.errors import InputError
from rlhf.training.rundir.files import link_tree, write_json
from rlhf.training.rundir.process import EXIT_DONE, EXIT_INPUT
from rlhf.training.settings import load

ENGINE_SIDE = Path(__file__).parent / "exports" / "engine_side"
"""Programs that the engine runs; they are copied unchanged."""


class Engine(NamedTuple):
    """How a run is exported for one engine."""

    version: str
    translate: Callable[[Job], tuple[dict[str, Any], set[str]]]
    """The engine's settings, and the names of ours that have no counterpart there."""
    command: Callable[[dict[str, Any]], list[str]]
    write_prompts: Callable[[Job], None]
    programs: tuple[str, ...]
    """Those of `exports/engine_side/` that it needs."""


ENGINES = {
    "openrlhf": Engine(
        OPENRLHF, openrlhf, openrlhf_command, write_openrlhf_prompts, ("reward.py",)
    ),
    "verl": Engine(VERL, verl, verl_command, write_verl_prompts, ("reward.py",)),
    "nemo-rl": Engine(
        NEMO_RL,
        nemo_rl,
        nemo_rl_command,
        write_nemo_rl_prompts,
        ("reward.py", "environment.py", "start.py"),
    ),
}


def export(run_dir: Path, engine: str, *, gpus: int = 8, tensor_parallel: int = 1) -> Path:
    """Write `RUN_DIR/export/<engine>/` and return it; a failed export leaves no folder."""
    import torch

    from rlhf.training.language_models.policy import load_policy

    config = load(PPOConfig, run_dir / CONFIG, stored=True)
    prompts = read_prompts(run_dir)
    watch = read_prompts(run_dir, "watch") if (run_dir / "data" / "watch.jsonl").exists() else []
    folder = run_dir / "export" / engine
    _check(config, folder, gpus=gpus, tensor_parallel=tensor_parallel)
    policy = load_policy(config.policy, "policy", device=torch.device("cpu"))
    policy.refuse_encoder_decoder(engine)
    prompts, encoded = policy.encode_fitting(
        prompts, room=config.rollout.max_new_tokens, long_prompts=config.rollout.long_prompts
    )
    try:
        folder.mkdir(parents=True)
        tracked = TrackedSettings(config)
        job = Job(
            config=tracked,
            prompts=prompts,
            watch=watch,
            longest=max(map(len, encoded)),
            stop=[policy.tokenizer.convert_ids_to_tokens(i) for i in policy.stop_ids],
            folder=folder,
            gpus=gpus,
            tensor_parallel=tensor_parallel,
        )
        _write(job, engine, tracked, config)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _check(config: PPOConfig, folder: Path, *, gpus: int, tensor_parallel: int) -> None:
    """`InputError` for runs that no engine supports."""
    for name, number in (("gpus", gpus), ("tensor-parallel", tensor_parallel)):
        if number < 1:
            raise InputError(f"{name} must be 1 or more, got {number}.")
    if gpus % tensor_parallel:
        raise InputError(f"tensor-parallel ({tensor_parallel}) must divide gpus ({gpus}).")
    if folder.exists():
        raise InputError(f"{folder} is there already; move it away first.")
    if config.reward.combine == "lagrange":
        raise InputError(
            "combine is 'lagrange', whose multiplier changes while it learns, and no engine asks for "
            "that; export it with 'threshold' or 'weights'."
        )
    if not (Path(config.reward_model) / "reward_model.json").is_file():
        raise InputError(f"{config.reward_model!r} has no reward_model.json; is it a reward model?")


def _write(job: Job, engine: str, tracked: TrackedSettings, config: PPOConfig) -> None:
    """Fill the export's folder: models, prompts, programs, settings and the launch script."""
    chosen = ENGINES[engine]
    settings, without_counterpart = chosen.translate(job)
    copy_model(config.policy, job.folder / "policy")
    copy_model(config.reward_model, job.folder / "reward_model")
    chosen.write_prompts(job)
    for program in chosen.programs:
        shutil.copyfile(ENGINE_SIDE / program, job.folder / program)
    reward = config.reward
    write_json(
        job.folder / "reward.json",
        {
            "combine": reward.combine,
            "safety_threshold": reward.safety_threshold,
            "weights": reward.weights,
            "score_clip": reward.clip,
            "stop": list(job.stop),
        },
    )
    settings = {n: str(v) if isinstance(v, Path) else v for n, v in settings.items()}
    in_reward_json = ("combine", "safety_threshold", "weights", "clip")
    exported = {"policy", "reward_model", "rollout.long_prompts"}
    exported |= {f"reward.{name}" for name in in_reward_json}
    values = config.flat()
    known = PPOConfig.settings()
    write_json(
        job.folder / "export.json",
        {
            "engine": engine,
            "version": chosen.version,
            "settings": settings,
            "left_behind": {
                key: values[key]
                for key in sorted(without_counterpart | (set(known) - tracked.keys - exported))
                if values[key] != known[key].default
            },
        },
    )
    script = '#!/bin/sh\nset -e\ncd "$(dirname "$0")"\nexec ' + " \\\n  ".join(
        map(shlex.quote, chosen.command(settings))
    )
    (job.folder / "launch.sh").write_text(script + "\n", encoding="utf-8")
    (job.folder / "launch.sh").chmod(0o755)


def copy_model(source: str, target: Path) -> None:
    """A model folder's copy; hard links where the file system has them, since weights are large."""
    if not Path(source).is_dir():
        raise InputError(f"{source!r} is not a folder; an engine is given copies of local models.")
    link_tree(Path(source), target)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run_dir", type=Path, help="a PPO run folder (docs/formats.md)")
    parser.add_argument("--engine", choices=sorted(ENGINES), required=True)
    parser.add_argument("--gpus", type=int, default=8, help="on the one node; default 8")
    parser.add_argument("--tensor-parallel", type=int, default=1, help="GPUs a sampler; default 1")
    options = parser.parse_args(arguments)
    try:
        folder = export(
            options.run_dir.resolve(),
            options.engine,
            gpus=options.gpus,
            tensor_parallel=options.tensor_parallel,
        )
    except InputError as error:
        print(error, file=sys.stderr)
        return EXIT_INPUT
    print(f"{folder} is ready; start it with {folder / 'launch.sh'}")
    left_behind = json.loads((folder / "export.json").read_text(encoding="utf-8"))["left_behind"]
    if left_behind:
        print(f"{options.engine} has no counterpart for: {', '.join(left_behind)}")
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
