"""Supervised fine-tuning of a model of one's own, before the first round: demonstrations in, a policy
out (Ouyang et al. 2022, section 3.1)."""

from pathlib import Path

from annotation.data.ratings_and_demonstrations import demonstrations
from rlhf.errors import StageError
from rlhf.models import Checkpoint, Job
from rlhf.stages.model_folders import new_checkpoint
from rlhf.stages.stage import Row, Write, set_on_round, stage_config, written_config
from rlhf.training import configs, rundir
from rlhf.training.rundir.files import write_jsonl
from rlhf.training.settings import save


def prepare_sft(job: Job, run_dir: Path) -> None:
    policy = _inspected(job)
    config = stage_config(job.round, configs.SFTConfig, "sft", policy=policy.path)
    save(config, run_dir / rundir.CONFIG)
    # Only what was written before this job, so that a job that is resumed gets the same input.
    written = list(demonstrations(job.project, until=job.created_at))
    if not written:
        raise StageError(
            "Fine-tuning needs demonstrations, but nobody has written one that may be trained on."
        )
    write_jsonl(run_dir / rundir.DATA / "demonstrations.jsonl", written)


def collect_sft(job: Job, run_dir: Path, result: Row) -> Write:
    """A policy without a parent: rounds go back to it, and the KL penalty is measured against it."""
    inspected = _inspected(job)
    checkpoint = new_checkpoint(
        job,
        Checkpoint.Kind.POLICY,
        f"{inspected.name[:100]}, fine-tuned",
        run_dir / rundir.POLICY,
        config=written_config(run_dir) | {"understood": inspected.understood},
        metrics=result,
        n_parameters=inspected.n_parameters,
    )

    def write() -> None:
        checkpoint.save()
        set_on_round(job, policy=checkpoint)

    return write


def _inspected(job: Job) -> Checkpoint:
    if job.round.policy is None:
        raise StageError("The round has no model to fine-tune; name one first.")
    return job.round.policy
