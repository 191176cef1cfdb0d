"""Whether a version is still what was frozen: every hash computed again, and its record compared."""

import json
from typing import NamedTuple

from annotation.data.snapshot_files import MANIFEST, SUMS, file_sha256
from annotation.data.snapshot_record import manifest
from annotation.models import Snapshot

RECORDED = ("version", "created_at", "query", "counts", "agreement", "licences")


class Fault(NamedTuple):
    """A file that is not what was frozen, and in which way."""

    name: str
    what: str

    def __str__(self) -> str:
        return f"{self.name} {self.what}."


def verify(snapshot: Snapshot) -> list[Fault]:
    """What is wrong with the files of a version; nothing if it is as it was frozen."""
    faults = []
    for file in snapshot.files:
        path = snapshot.folder / file["name"]
        if not path.is_file():
            faults.append(Fault(file["name"], "is missing"))
        elif file_sha256(path) != file["sha256"]:
            faults.append(Fault(file["name"], "was changed"))
    known = {file["name"] for file in snapshot.files}
    if snapshot.folder.is_dir():
        added = sorted({path.name for path in snapshot.folder.iterdir()} - known)
        faults += [Fault(name, "was added") for name in added]
    if not faults and not (snapshot.folder / SUMS).is_file():
        faults.append(Fault(SUMS, "is missing"))
    return faults or _faults_of_the_record(snapshot)


def _faults_of_the_record(snapshot: Snapshot) -> list[Fault]:
    """Where the database says something else than the files, which have the right hashes."""
    listed = dict(
        line.split("  ", 1)[::-1]
        for line in (snapshot.folder / SUMS).read_text(encoding="utf-8").splitlines()
    )
    recorded = {file["name"]: file["sha256"] for file in snapshot.files if file["name"] in listed}
    if listed != recorded:
        return [Fault(SUMS, "lists other files than the database")]
    if MANIFEST not in listed:  # Versions of the first format have none.
        return []
    frozen = json.loads((snapshot.folder / MANIFEST).read_text(encoding="utf-8"))
    now = json.loads(manifest(snapshot))
    differing = [name for name in RECORDED if frozen[name] != now[name]]
    if differing:
        return [Fault(MANIFEST, f"and the database differ in {', '.join(differing)}")]
    return []
