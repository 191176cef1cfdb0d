"""Run folders that nothing needs any more: which, why, and how much disk space they take.

A folder stays as long as a row needs it: the folders of jobs that wait or run, the last folder of
every finished job (pages and later rounds read samples, curves and logs there), every folder that a
checkpoint points into, and the checkpoints that a stopped round would resume from.
"""

import shutil
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from django.conf import settings
from django.db.models import Exists, Max, OuterRef
from django.utils import timezone

from rlhf.models import Checkpoint, Job, Round
from rlhf.run_folders import kept_log
from rlhf.training import rundir

PRUNED = ".pruned"
"""The end of a folder's name while it is being removed: a partly removed folder must not look whole."""


@dataclass(frozen=True)
class UnneededFolder:
    """A folder that can be removed, and why."""

    path: Path
    why: str


def unneeded_folders(*, older_than: timedelta) -> list[UnneededFolder]:
    """The folders whose work ended longer ago than that, and that nothing needs."""
    before = timezone.now() - older_than
    models = [Path(path) for path in Checkpoint.objects.values_list("path", flat=True)]
    candidates = [*_orphans(before), *_of_jobs(before)]
    return [
        folder
        for folder in candidates
        if not any(model.is_relative_to(folder.path) for model in models)
    ]


def freed_bytes(folders: Iterable[Path]) -> int:
    """Bytes that removing these folders would free; a file linked from elsewhere frees nothing."""
    links: dict[tuple[int, int], int] = {}
    sizes: dict[tuple[int, int], tuple[int, int]] = {}
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_symlink() or not path.is_file():
                continue
            stat = path.stat()
            file = (stat.st_dev, stat.st_ino)
            links[file] = links.get(file, 0) + 1
            sizes[file] = (stat.st_nlink, stat.st_size)
    return sum(size for file, (n, size) in sizes.items() if links[file] >= n)


def remove(unneeded: Iterable[UnneededFolder]) -> None:
    """Remove the folders, and finish removals that were interrupted."""
    for folder in unneeded:
        marked = folder.path
        if marked.suffix != PRUNED:
            marked = folder.path.with_name(folder.path.name + PRUNED)
            folder.path.rename(marked)
        if (marked / rundir.LOG).is_file():  # what a stage said stays, also when its files go
            (marked / rundir.LOG).replace(kept_log(folder.path))
        shutil.rmtree(marked)


def _orphans(before: datetime) -> Iterator[UnneededFolder]:
    """Folders without a row: their rows were deleted, or the database is an older copy."""
    runs = Path(settings.RUNS_DIR)
    known = {str(uid) for uid in Job.objects.values_list("uid", flat=True)}
    for folder in sorted(runs.iterdir()) if runs.is_dir() else []:
        if folder.is_dir() and _is_uid(folder.name) and folder.name not in known:
            touched = datetime.fromtimestamp(folder.stat().st_mtime, tz=before.tzinfo)
            if touched < before:
                yield UnneededFolder(folder, "no job in this database belongs to it")
    for depth in ("", "*/", "*/*/"):
        for folder in sorted(runs.glob(f"{depth}*{PRUNED}")):
            yield UnneededFolder(folder, "an earlier removal was interrupted")


def _of_jobs(before: datetime) -> Iterator[UnneededFolder]:
    """Folders of jobs that have ended and that neither a page nor a retry would read."""
    later = Job.objects.filter(round=OuterRef("round"), stage=OuterRef("stage"))
    later = later.filter(pk__gt=OuterRef("pk"))
    ended = (
        Job.objects.filter(state__in=Job.ENDED, ended_at__lt=before)
        .select_related("round", "project")
        .order_by("pk")
    )
    done_later = Exists(later.filter(state=Job.State.DONE))
    followed = set(ended.filter(done_later).values_list("pk", flat=True))
    newest = dict(Round.objects.values_list("project").annotate(Max("number")).order_by())
    for job in ended:
        claims, name = _claims(job), f"{job.project.slug}, {job}"
        if job.state == Job.State.DONE:
            for folder in claims[1:]:
                yield UnneededFolder(folder, f"{name}: an earlier attempt of what is done")
        elif job.pk in followed:
            for folder in claims:
                yield UnneededFolder(folder, f"{name}: stopped, tried again and done")
        elif job.round.has_ended and job.round.number < newest[job.project_id]:
            for folder in claims:
                for saved in sorted(folder.glob(f"{rundir.CHECKPOINT}*")):
                    if saved.suffix != PRUNED:
                        yield UnneededFolder(
                            saved, f"{name}: where it stopped; a later round followed"
                        )


def _claims(job: Job) -> list[Path]:
    """The job's existing run folders, newest first."""
    claims = (job.run_dir.with_name(str(epoch)) for epoch in range(job.epoch, 0, -1))
    return [folder for folder in claims if folder.is_dir()]


def _is_uid(name: str) -> bool:
    try:
        return str(uuid.UUID(name)) == name
    except ValueError:
        return False
