"""Model folders as rows: their size, and the hash of their files."""

import hashlib
from pathlib import Path
from typing import Any

from annotation.lib.code_version import code_version
from rlhf.errors import StageError
from rlhf.models import Checkpoint, Job


def new_checkpoint(
    job: Job,
    kind: str,
    name: str,
    folder: Path,
    *,
    config: dict[str, Any],
    metrics: dict[str, Any],
    parent: Checkpoint | None = None,
    n_parameters: int = 0,
) -> Checkpoint:
    """An unsaved row for a model folder; StageError if the folder is empty."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise StageError(f"The stage left no model in {folder.name}/.")
    return Checkpoint(
        project=job.project,
        kind=kind,
        name=name,
        parent=parent,
        round=job.round,
        snapshot=job.round.snapshot,
        path=str(folder),
        sha256=hash_of(files, folder),
        n_bytes=sum(path.stat().st_size for path in files),
        n_parameters=n_parameters,
        config=config,
        metrics=metrics,
        code_version=code_version(),
    )


def hash_of(files: list[Path], folder: Path) -> str:
    """SHA-256 over the lines that `sha256sum` would print for these files."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            inner = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{inner}  {path.relative_to(folder).as_posix()}\n".encode())
    return digest.hexdigest()
