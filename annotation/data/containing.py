"""Which frozen versions hold judgments of a person."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from annotation.data.consensus_rows import CONSENSUS
from annotation.data.snapshot_files import DEMONSTRATIONS, JUDGMENTS, RATINGS
from annotation.models import Judgment, Project, Snapshot, User


def judgments_in(snapshot: Snapshot, ids: Iterable[str]) -> int:
    """How many of these `judgment_id`s the version has rows of, in any of its tables."""
    wanted = pa.array(sorted(set(ids)), pa.string())
    ids_found: set[str] = set()
    for table in (JUDGMENTS, RATINGS, DEMONSTRATIONS):
        path: Path = snapshot.folder / f"{table}.parquet"
        if path.is_file():
            column = pq.read_table(path, columns=["judgment_id"]).column(0)
            ids_found |= set(column.filter(pc.is_in(column, wanted)).to_pylist())
    return len(ids_found)


def versions_with(project: Project, person: User) -> dict[int, int]:
    """Version -> how many rows rest on judgments of this person, of each version that has any.

    A row of a consensus rests on each of its votes.
    """
    judgments = Judgment.objects.of_project(project).filter(assignment__annotator=person)
    rows = list(judgments.values_list("uid", "assignment__comparison_id"))
    ids = {str(uid) for uid, _ in rows} | {f"{CONSENSUS}-{pk}" for _, pk in rows}
    counts = {snapshot.version: judgments_in(snapshot, ids) for snapshot in project.snapshots.all()}
    return {version: n for version, n in sorted(counts.items()) if n}
