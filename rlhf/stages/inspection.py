"""Reading a model of one's own: its name in, what was understood out."""

from pathlib import Path

from rlhf.models import Checkpoint, Job
from rlhf.stages.model_folders import new_checkpoint
from rlhf.stages.stage import Row, Write, set_on_round, stage_config, written_config
from rlhf.training import configs, rundir
from rlhf.training.settings import save


def prepare_inspection(job: Job, run_dir: Path) -> None:
    save(
        stage_config(job.round, configs.InspectionConfig, "inspection", seed=0),
        run_dir / rundir.CONFIG,
    )


def collect_inspection(job: Job, run_dir: Path, result: Row) -> Write:
    """A candidate policy. A GGUF file and adapters have become a folder in the run folder; all other
    models stay where they are."""
    named = str(written_config(run_dir)["policy"])
    config = {"policy": named, "understood": result}
    name = Path(named).name.removesuffix(".gguf")[:120]
    n_parameters = int(result.get("n_parameters", 0))
    if result.get("converted"):
        checkpoint = new_checkpoint(
            job,
            Checkpoint.Kind.POLICY,
            name,
            run_dir / rundir.POLICY,
            config=config,
            metrics={},
            n_parameters=n_parameters,
        )
    else:
        checkpoint = Checkpoint(
            project=job.project,
            kind=Checkpoint.Kind.POLICY,
            name=name,
            path=named,
            round=job.round,
            config=config,
            n_parameters=n_parameters,
        )

    def write() -> None:
        checkpoint.save()
        set_on_round(job, policy=checkpoint)

    return write
