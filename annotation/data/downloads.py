"""Answers that are files: the same for the page and for the API."""

import json
from collections.abc import Iterator
from typing import Any

from django.http import FileResponse, Http404, StreamingHttpResponse
from django.utils.http import content_disposition_header

from annotation.data.exports import csv_chunks
from annotation.data.snapshots import CARD, SnapshotError, archive, pair_file, snapshot_file
from annotation.models import Snapshot

CONTENT_TYPES = {
    ".jsonl": "application/jsonl",
    ".parquet": "application/vnd.apache.parquet",
    ".md": "text/markdown; charset=utf-8",
}
CSV_COLUMNS = ("prompt", "chosen", "rejected", "prompt_id", "annotator", "weight")


def file_answer(snapshot: Snapshot, name: str) -> FileResponse:
    """A frozen file as a download; Http404 for a name that the version does not list."""
    try:
        path = snapshot_file(snapshot, name)
    except SnapshotError as error:
        raise Http404(str(error)) from error
    answer = FileResponse(
        path.open("rb"),
        as_attachment=True,
        filename=name if name == CARD else f"{snapshot.project.slug}-v{snapshot.version}-{name}",
        content_type=CONTENT_TYPES.get(path.suffix, "text/plain; charset=utf-8"),
    )
    sha256 = next(file["sha256"] for file in snapshot.files if file["name"] == name)
    answer["ETag"] = f'"{sha256}"'
    return answer


def archive_answer(snapshot: Snapshot) -> StreamingHttpResponse:
    """The whole version as one zip, streamed."""
    try:
        for file in snapshot.files:
            snapshot_file(snapshot, file["name"])
    except SnapshotError as error:
        raise Http404(str(error)) from error
    answer = StreamingHttpResponse(archive(snapshot), content_type="application/zip")
    return _as_attachment(answer, f"{snapshot.project.slug}-v{snapshot.version}.zip")


def csv_answer(snapshot: Snapshot, axis: str) -> StreamingHttpResponse:
    """One axis' pairs for a spreadsheet: derived from the frozen file, formulas made harmless."""
    try:
        path = snapshot_file(snapshot, f"{pair_file(axis)}.jsonl")
    except SnapshotError as error:
        raise Http404(str(error)) from error

    def rows() -> Iterator[dict[str, Any]]:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)

    answer = StreamingHttpResponse(
        csv_chunks(rows(), CSV_COLUMNS), content_type="text/csv; charset=utf-8"
    )
    name = f"{snapshot.project.slug}-v{snapshot.version}-{pair_file(axis)}.csv"
    return _as_attachment(answer, name)


def _as_attachment(answer: StreamingHttpResponse, name: str) -> StreamingHttpResponse:
    answer["Content-Disposition"] = content_disposition_header(as_attachment=True, filename=name)
    return answer
