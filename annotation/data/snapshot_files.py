"""The files of a frozen snapshot: their names, how to read them, the zip, and whether they are intact."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from annotation.data.exports.zips import zip_of
from annotation.models import Snapshot

CARD, MANIFEST, SUMS = "README.md", "snapshot.json", "SHA256SUMS"
JUDGMENTS, RATINGS, DEMONSTRATIONS = "preferences", "ratings", "demonstrations"
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class SnapshotError(Exception):
    """What could not be frozen or found, in one sentence for the person who asked."""


def pair_file(axis: str) -> str:
    """The name, without ending, of the file of one axis' pairs."""
    return f"pairs-{re.sub(r'[^A-Za-z0-9_-]', '_', axis)}"


def config_name(file_name: str) -> str:
    """What `load_dataset` calls a file: its axis, or `judgments`."""
    return "judgments" if file_name == JUDGMENTS else file_name.removeprefix("pairs-")


def noted_card(snapshot: Snapshot) -> Path:
    """The card with the deprecation note, which is there while the version is deprecated."""
    return Path(f"{snapshot.folder}.deprecated") / CARD


def snapshot_file(snapshot: Snapshot, name: str) -> Path:
    """The path of one file of a snapshot; SnapshotError for any name that it does not list.

    The card of a deprecated version is the one with the note.
    """
    known = {file["name"] for file in snapshot.files}
    path = snapshot.folder / name
    if name == CARD and noted_card(snapshot).is_file():
        path = noted_card(snapshot)
    if name not in known or not FILE_NAME.fullmatch(name):
        raise SnapshotError(f"Version {snapshot.version} has no such file.")
    if not path.is_file():
        raise SnapshotError(f"{name} of version {snapshot.version} is missing from the disk.")
    return path


def recorded_sha256(snapshot: Snapshot, name: str) -> str:
    """The hash of what `snapshot_file` gives."""
    if name == CARD:
        return file_sha256(snapshot_file(snapshot, name))
    return str(next(file["sha256"] for file in snapshot.files if file["name"] == name))


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def archive(snapshot: Snapshot) -> Iterator[bytes]:
    """Every file in one zip, in chunks: a folder that `load_dataset` opens.

    Times are the snapshot's, so that the same version gives the same bytes.
    """
    files = [(snapshot_file(snapshot, file["name"]), file["name"]) for file in snapshot.files]
    yield from zip_of(files, snapshot.created_at)
