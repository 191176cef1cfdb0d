"""Checkpoints: written atomically, checked by size and SHA-256 before a run resumes from one."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlhf.training.rundir import CHECKPOINT, CONFIG, MANIFEST, log
from rlhf.training.rundir.errors import InputError
from rlhf.training.rundir.files import fsync, fsync_folder, read_json_if_there, write_json


def save_checkpoint(run_dir: Path, write: Callable[[Path], None]) -> None:
    """Replace the run's checkpoint with what `write(folder)` puts into an empty folder.

    The manifest (size and SHA-256 of every file) is written last. Whenever the process dies, the
    previous checkpoint or the new one is complete.
    """
    folder = run_dir / CHECKPOINT
    new, old = run_dir / f"{CHECKPOINT}.new", run_dir / f"{CHECKPOINT}.old"
    # A complete .new may be the only checkpoint left; put it in place before writing over it.
    if _is_complete(new):
        _swap(new, folder, old)
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    write(new)
    manifest = {}
    for path in sorted(new.rglob("*")):
        if path.is_file():
            fsync(path)
            manifest[path.relative_to(new).as_posix()] = _describe(path)
    write_json(new / MANIFEST, manifest)
    _swap(new, folder, old)
    size = sum(entry["bytes"] for entry in manifest.values())
    log.info(f"checkpoint saved: {len(manifest)} files, {size / 1e6:,.1f} MB")


def find_checkpoint(run_dir: Path) -> Path | None:
    """The folder of the newest complete checkpoint, checked against its manifest; None if there is no
    checkpoint yet.

    `InputError` if all checkpoints are damaged. A killed process always leaves a complete checkpoint,
    so the damage has another cause, and a restart from step 0 could lose days of training.
    """
    damage: dict[str, str] = {}
    for name in (f"{CHECKPOINT}.new", CHECKPOINT, f"{CHECKPOINT}.old"):
        if not (run_dir / name / MANIFEST).exists():
            continue
        file = _damaged_file(run_dir / name)
        if file is None:
            return run_dir / name
        damage[name] = file
    if damage:
        name, file = next(iter(damage.items()))
        folders = f"folder{'s' if len(damage) > 1 else ''} {' and '.join(damage)}"
        raise InputError(
            f"The checkpoint of this run is damaged: {name}/{file} is missing or not as it was "
            f"written ({MANIFEST} holds the size and SHA-256 of every file); put the file back from "
            f"a copy, or remove the {folders} to start over."
        )
    return None


def settings_changed(file: str) -> InputError:
    """The error for a `file` of a checkpoint that does not fit the current settings."""
    return InputError(
        f"The checkpoint of this run was written with other settings: its {file} does not have the "
        f"weights that are trained now; restore the former {CONFIG}, or remove the folder {CHECKPOINT} "
        "to start over."
    )


def _swap(new: Path, folder: Path, old: Path) -> None:
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    new.rename(folder)
    fsync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _is_complete(folder: Path) -> bool:
    return (folder / MANIFEST).exists() and _damaged_file(folder) is None


def _damaged_file(folder: Path) -> str | None:
    """The first file that differs from the manifest, or None."""
    manifest = read_json_if_there(folder / MANIFEST)
    if manifest is None:
        return MANIFEST
    for name, entry in manifest.items():
        try:
            if _describe(folder / name) != entry:
                return name
        except OSError:
            return name
    return None


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}
