"""PPO: prompts and models in, the refined policy out."""

from pathlib import Path

from annotation.data.ratings_and_demonstrations import demonstrations
from rlhf.errors import StageError
from rlhf.models import Checkpoint, Job, Round
from rlhf.round_config import RoundConfig
from rlhf.stages.model_folders import new_checkpoint
from rlhf.stages.prompts import choose, prompt_row
from rlhf.stages.stage import (
    Row,
    Write,
    set_on_round,
    stage_config,
    start_policy,
    written_config,
)
from rlhf.training import configs, rundir
from rlhf.training.rundir.files import write_jsonl
from rlhf.training.settings import save


def prepare_ppo(job: Job, run_dir: Path) -> None:
    round, policy = job.round, start_policy(job.round)
    reference = policy.root if RoundConfig.of(round).kl_reference == "base" else policy
    watch = choose(round, "watch")
    judge = _reward_model(round, Checkpoint.Kind.TEST_REWARD_MODEL).path
    config = stage_config(
        round,
        configs.PPOConfig,
        "ppo",
        policy=policy.path,
        reference=reference.path,
        reward_model=_reward_model(round, Checkpoint.Kind.REWARD_MODEL).path,
        test_reward_model=judge if watch else "",  # without prompts it has nothing to watch
    )
    save(config, run_dir / rundir.CONFIG)
    for name, prompts in (("prompts", choose(round, "ppo")), ("watch", watch)):
        if prompts:
            rows = map(prompt_row, prompts)
            write_jsonl(run_dir / rundir.DATA / f"{name}.jsonl", rows)
    if config.ptx.weight:
        # Only what was written before this job, so that a job that is resumed gets the same input.
        written = list(demonstrations(round.project, until=job.created_at))
        if not written:
            raise StageError(
                "ptx.weight needs demonstrations, but nobody has written one that may be trained on; "
                "collect some, or set ptx.weight to 0."
            )
        write_jsonl(run_dir / rundir.DATA / "ptx.jsonl", written)


def _reward_model(round: Round, kind: str) -> Checkpoint:
    model = round.newest_model(kind)
    if model is None:
        raise StageError("The round has no reward model yet.")
    return model


def collect_ppo(job: Job, run_dir: Path, result: Row) -> Write:
    round, parent = job.round, start_policy(job.round)
    checkpoint = new_checkpoint(
        job,
        Checkpoint.Kind.POLICY,
        f"round {round.number} policy",
        run_dir / rundir.POLICY,
        parent=parent,
        config=written_config(run_dir),
        metrics=result,
        n_parameters=parent.n_parameters,
    )

    def write() -> None:
        checkpoint.save()
        set_on_round(job, policy=checkpoint)

    return write
