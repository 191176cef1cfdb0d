"""Run folders that nothing needs any more: which, why, and how much room they take.

A folder stays as long as a row could lead somebody to it: what a job that waits or runs works in,
the last folder of every finished job (pages and later rounds read samples, curves and logs there),
every folder that a checkpoint points into, and whatever a stopped round would go on from.
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
from rlhf.training import rundir

PRUNED = ".pruned"
"""The end of a folder's name while it is being removed: half of a folder must not look whole."""


@dataclass(frozen=True)
class Needless:
    """A folder that can go."""

    path: Path
    why: str


def needless(*, older_than: timedelta) -> list[Needless]:
    """What can go: folders whose work ended longer ago than that, by the reason why."""
    before = timezone.now() - older_than
    models = [Path(path) for path in Checkpoint.objects.values_list("path", flat=True)]
    found = [*_left_behind(before), *_of_jobs(before)]
    return [one for one in found if not any(model.is_relative_to(one.path) for model in models)]


def room(folders: Iterable[Path]) -> int:
    """Bytes that removing these folders would free; a file linked from elsewhere frees nothing."""
    links: dict[tuple[int, int], int] = {}
    sizes: dict[tuple[int, int], tuple[int, int]] = {}
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_symlink() or not path.is_file():
                continue
            about = path.stat()
            file = (about.st_dev, about.st_ino)
            links[file] = links.get(file, 0) + 1
            sizes[file] = (about.st_nlink, about.st_size)
    return sum(size for file, (n, size) in sizes.items() if links[file] >= n)


def remove(found: Iterable[Needless]) -> None:
    """Remove the folders, and finish removals that were interrupted."""
    for one in found:
        going = one.path
        if going.suffix != PRUNED:
            going = one.path.with_name(one.path.name + PRUNED)
            one.path.rename(going)
        shutil.rmtree(going)


def _left_behind(before: datetime) -> Iterator[Needless]:
    """Folders that no row knows: their rows were deleted, or the database is an older copy."""
    runs = Path(settings.RUNS_DIR)
    known = {str(uid) for uid in Job.objects.values_list("uid", flat=True)}
    for folder in sorted(runs.iterdir()) if runs.is_dir() else []:
        if folder.is_dir() and _is_uid(folder.name) and folder.name not in known:
            touched = datetime.fromtimestamp(folder.stat().st_mtime, tz=before.tzinfo)
            if touched < before:
                yield Needless(folder, "no job in this database knows it")
    for depth in ("", "*/", "*/*/"):
        for folder in sorted(runs.glob(f"{depth}*{PRUNED}")):
            yield Needless(folder, "an earlier removal was interrupted")


def _of_jobs(before: datetime) -> Iterator[Needless]:
    """Folders of jobs that have ended and that neither a page nor a retry would look into."""
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
                yield Needless(folder, f"{name}: an earlier attempt of what is done")
        elif job.pk in followed:
            for folder in claims:
                yield Needless(folder, f"{name}: stopped, tried again and done")
        elif job.round.has_ended and job.round.number < newest[job.project_id]:
            for folder in claims:
                for saved in sorted(folder.glob(f"{rundir.CHECKPOINT}*")):
                    if saved.suffix != PRUNED:
                        yield Needless(saved, f"{name}: where it stopped; a later round followed")


def _claims(job: Job) -> list[Path]:
    """The job's run folders that are there, newest first."""
    claims = (job.run_dir.with_name(str(epoch)) for epoch in range(job.epoch, 0, -1))
    return [folder for folder in claims if folder.is_dir()]


def _is_uid(name: str) -> bool:
    try:
        return str(uuid.UUID(name)) == name
    except ValueError:
        return False
