"""Run folders of jobs: what a stage was given, and what a later claim can start from."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from rlhf.models import Job
from rlhf.round_config import SECTIONS
from rlhf.training import rundir
from rlhf.training.rundir.checkpoints import find_checkpoint
from rlhf.training.rundir.errors import InputError
from rlhf.training.rundir.files import link_tree, read_json
from rlhf.training.rundir.reports import read_result


def input_hash(run_dir: Path) -> str:
    """SHA-256 of the configuration and of everything in `data/`: what the stage was given."""
    return _hash(run_dir, [run_dir / rundir.CONFIG, *_data_files(run_dir)])


def _data_files(run_dir: Path) -> list[Path]:
    return sorted((run_dir / rundir.DATA).rglob("*"))


def _hash(run_dir: Path, files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        if path.is_file():
            digest.update(f"\0{path.relative_to(run_dir).as_posix()}\0".encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def earlier_claims(job: Job) -> Iterator[Path]:
    """Run folders in which the same work was started on the same input, newest first.

    This job's earlier claims, then those of the jobs that stopped before a person retried the stage.
    """
    own_input = stage_input(job.stage, job.run_dir)
    if own_input is None:
        return
    attempts = Job.objects.filter(round=job.round_id, stage=job.stage, pk__lte=job.pk)
    for attempt in attempts.order_by("-pk"):
        newest = attempt.epoch - 1 if attempt.pk == job.pk else attempt.epoch
        for epoch in range(newest, 0, -1):
            folder = attempt.run_dir.with_name(str(epoch))
            if stage_input(job.stage, folder) == own_input:
                yield folder


def stage_input(stage: str, run_dir: Path) -> tuple[str, str] | None:
    """A stage's settings and the hash of its data files, for comparison; None if unreadable.

    The settings are parsed before they are compared: an older folder lacks the settings of newer
    versions, which then have their defaults.
    """
    config_class = SECTIONS.get(stage)
    try:
        values = read_json(run_dir / rundir.CONFIG)
        if config_class is not None:
            values = config_class.from_dict(values, stored=True).to_dict()
    except (InputError, ValueError, TypeError):
        return None
    return json.dumps(values, sort_keys=True), _hash(run_dir, _data_files(run_dir))


def resume_from_earlier(run_dir: Path, claims: Iterable[Path]) -> Path | None:
    """Link an earlier claim's last complete checkpoint, or its result, into a new run folder.

    Returns the folder of that claim; None if the stage starts from nothing.
    """
    for earlier in claims:
        if read_result(earlier) is not None:
            # The earlier claim finished, but its outcome was not recorded.
            link_tree(earlier, run_dir)
            return earlier
        try:
            checkpoint = find_checkpoint(earlier)
        except InputError:
            continue  # damaged, or its process is just putting a newer one in place
        if checkpoint is not None:
            # Renamed once it is whole: half a checkpoint would be taken for a damaged one.
            unfinished = run_dir / f".{rundir.CHECKPOINT}.linked"
            link_tree(checkpoint, unfinished)
            unfinished.rename(run_dir / rundir.CHECKPOINT)
            if (earlier / rundir.METRICS).exists():
                # A copy: the old process may still be appending to its own file.
                shutil.copyfile(earlier / rundir.METRICS, run_dir / rundir.METRICS)
            return earlier
    return None


def remove_checkpoints(job: Job) -> None:
    """Remove what a stopped run would resume from, once the stage is done.

    With optimizer and rollouts it is several times the model's size.
    """
    for attempt in Job.objects.filter(round=job.round_id, stage=job.stage):
        for checkpoint in attempt.run_dir.parent.glob(f"*/{rundir.CHECKPOINT}*"):
            shutil.rmtree(checkpoint, ignore_errors=True)


def kept_log(claim: Path) -> Path:
    """Where the log of a claim lies once its run folder has been pruned: `<job uid>/2.log`."""
    return claim.with_name(f"{claim.name.partition('.')[0]}.log")
