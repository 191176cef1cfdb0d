"""The files of a frozen snapshot: their names, how to read them, the zip, and whether they are intact."""

import hashlib
import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from annotation.models import Snapshot

CARD, SUMS = "README.md", "SHA256SUMS"
JUDGMENTS, RATINGS, DEMONSTRATIONS = "preferences", "ratings", "demonstrations"
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
CHUNK_BYTES = 2**16


class SnapshotError(Exception):
    """What could not be frozen or found, in one sentence for the person who asked."""


def pair_file(axis: str) -> str:
    """The name, without ending, of the file of one axis' pairs."""
    return f"pairs-{re.sub(r'[^A-Za-z0-9_-]', '_', axis)}"


def config_name(file_name: str) -> str:
    """What `load_dataset` calls a file: its axis, or `judgments`."""
    return "judgments" if file_name == JUDGMENTS else file_name.removeprefix("pairs-")


def snapshot_file(snapshot: Snapshot, name: str) -> Path:
    """The path of one file of a snapshot; SnapshotError for any name that it does not list."""
    known = {file["name"] for file in snapshot.files}
    path = snapshot.folder / name
    if name not in known or not FILE_NAME.fullmatch(name):
        raise SnapshotError(f"Version {snapshot.version} has no such file.")
    if not path.is_file():
        raise SnapshotError(f"{name} of version {snapshot.version} is missing from the disk.")
    return path


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def damaged_files(snapshot: Snapshot) -> list[str]:
    """Names of files that are missing or whose content no longer has the recorded hash."""
    damaged = []
    for file in snapshot.files:
        path = snapshot.folder / file["name"]
        if not path.is_file() or file_sha256(path) != file["sha256"]:
            damaged.append(file["name"])
    return damaged


def archive(snapshot: Snapshot) -> Iterator[bytes]:
    """Every file in one zip, in chunks: a folder that `load_dataset` opens.

    Parquet is compressed already and stored as it is. Times are the snapshot's, so that the same
    version gives the same bytes.
    """
    created_at = snapshot.created_at.timetuple()[:6]
    buffer = _StreamBuffer()
    with zipfile.ZipFile(buffer, "w") as packed:
        for file in snapshot.files:
            path = snapshot_file(snapshot, file["name"])
            info = zipfile.ZipInfo(file["name"], created_at)
            is_compressed = path.suffix == ".parquet"
            info.compress_type = zipfile.ZIP_STORED if is_compressed else zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            info.file_size = file["bytes"]
            with path.open("rb") as source, packed.open(info, "w") as target:
                while chunk := source.read(CHUNK_BYTES):
                    target.write(chunk)
                    yield buffer.take()
    yield buffer.take()


class _StreamBuffer(io.RawIOBase):
    """What zipfile writes to: cannot seek, keeps what has not been sent yet."""

    def __init__(self) -> None:
        self._unsent = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._unsent += data
        return len(data)

    def take(self) -> bytes:
        chunk = bytes(self._unsent)
        self._unsent.clear()
        return chunk
