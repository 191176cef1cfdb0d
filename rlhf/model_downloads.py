"""The files of a model that was made here: listed, and sent to who may have them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

from annotation.data.exports.zips import zip_of
from rlhf.models import Checkpoint


@dataclass(frozen=True)
class ModelFile:
    """One file of a model's folder; `name` is its path within the folder."""

    name: str
    path: Path
    n_bytes: int


def model_files(model: Checkpoint) -> list[ModelFile]:
    """The files of a model's folder, by name.

    Only of a folder that a stage wrote for this project: what a person has named (a folder of the
    machine, a name on a hub) is theirs to copy. A link that leads out of the folder is left out.
    """
    folder = Path(model.path)
    if not model.sha256 or not folder.is_absolute():
        return []
    folder, runs = folder.resolve(), Path(settings.RUNS_DIR).resolve()
    if not folder.is_dir() or not folder.is_relative_to(runs):
        return []
    return [
        ModelFile(path.relative_to(folder).as_posix(), path, path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.resolve().is_relative_to(folder)
    ]


def model_archive(model: Checkpoint, card: str) -> Iterator[bytes]:
    """The chunks of a zip of the model's files with its card as README.md."""
    files = [(f.path, f.name) for f in model_files(model) if f.name != "README.md"]
    return zip_of([(card.encode(), "README.md"), *files], model.created_at)
