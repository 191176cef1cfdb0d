"""HTTP responses with the files of a snapshot: the same for the page and for the API."""

import json
from collections.abc import Iterator
from typing import Any

from django.http import FileResponse, Http404, StreamingHttpResponse
from django.utils.http import content_disposition_header

from annotation.data.exports.spreadsheets import csv_chunks
from annotation.data.snapshot_files import CARD, SnapshotError, archive, pair_file, snapshot_file
from annotation.models import Snapshot

CONTENT_TYPES = {
    ".jsonl": "application/jsonl",
    ".parquet": "application/vnd.apache.parquet",
    ".md": "text/markdown; charset=utf-8",
}
CSV_COLUMNS = ("prompt", "chosen", "rejected", "prompt_id", "annotator", "weight")


def file_download(snapshot: Snapshot, name: str) -> FileResponse:
    """One file of a snapshot; Http404 for a name that the version does not list."""
    try:
        path = snapshot_file(snapshot, name)
    except SnapshotError as error:
        raise Http404(str(error)) from error
    response = FileResponse(
        path.open("rb"),
        as_attachment=True,
        filename=name if name == CARD else f"{snapshot.project.slug}-v{snapshot.version}-{name}",
        content_type=CONTENT_TYPES.get(path.suffix, "text/plain; charset=utf-8"),
    )
    sha256 = next(file["sha256"] for file in snapshot.files if file["name"] == name)
    response["ETag"] = f'"{sha256}"'
    return response


def archive_download(snapshot: Snapshot) -> StreamingHttpResponse:
    """The whole version as one zip, streamed."""
    try:
        for file in snapshot.files:
            snapshot_file(snapshot, file["name"])
    except SnapshotError as error:
        raise Http404(str(error)) from error
    response = StreamingHttpResponse(archive(snapshot), content_type="application/zip")
    return _as_attachment(response, f"{snapshot.project.slug}-v{snapshot.version}.zip")


def csv_download(snapshot: Snapshot, axis: str) -> StreamingHttpResponse:
    """One axis' pairs for a spreadsheet, from the frozen file."""
    try:
        path = snapshot_file(snapshot, f"{pair_file(axis)}.jsonl")
    except SnapshotError as error:
        raise Http404(str(error)) from error

    def rows() -> Iterator[dict[str, Any]]:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)

    response = StreamingHttpResponse(
        csv_chunks(rows(), CSV_COLUMNS), content_type="text/csv; charset=utf-8"
    )
    name = f"{snapshot.project.slug}-v{snapshot.version}-{pair_file(axis)}.csv"
    return _as_attachment(response, name)


def _as_attachment(response: StreamingHttpResponse, name: str) -> StreamingHttpResponse:
    response["Content-Disposition"] = content_disposition_header(as_attachment=True, filename=name)
    return response
