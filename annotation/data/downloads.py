"""HTTP responses with the files of a version and of its forms: the same for the page and for the API.

A download can be resumed: `Range` gives the rest, `If-Range` only if the file is still the same. `ETag`
and `Repr-Digest` (RFC 9530) are of the whole file, also in an answer with a part of it.
"""

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.http import (
    FileResponse,
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseNotModified,
    StreamingHttpResponse,
)
from django.http.response import HttpResponseBase
from django.utils.http import content_disposition_header

from annotation.data.exporting import download_path, made_or_small
from annotation.data.exports.forms import ARCHIVE
from annotation.data.snapshot_files import (
    CARD,
    SnapshotError,
    archive,
    recorded_sha256,
    snapshot_file,
)
from annotation.models import Export, Snapshot

CONTENT_TYPES = {
    ".jsonl": "application/jsonl",
    ".json": "application/json",
    ".parquet": "application/vnd.apache.parquet",
    ".md": "text/markdown; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".zip": "application/zip",
}
ONE_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
CHUNK_BYTES = 2**16


def file_download(request: HttpRequest, snapshot: Snapshot, name: str) -> HttpResponseBase:
    """One file of a snapshot; Http404 for a name that the version does not list."""
    try:
        path = snapshot_file(snapshot, name)
    except SnapshotError as error:
        raise Http404(str(error)) from error
    shown = name if name == CARD else f"{snapshot.project.slug}-v{snapshot.version}-{name}"
    return resumable(request, path, shown, recorded_sha256(snapshot, name))


def form_download(request: HttpRequest, export: Export) -> HttpResponseBase:
    """What a form that is made is downloaded as: its one file, or a zip of its files."""
    download: dict[str, Any] = export.download
    return resumable(request, download_path(export), download["name"], download["sha256"])


def archive_download(request: HttpRequest, snapshot: Snapshot) -> HttpResponseBase:
    """The whole version as one zip.

    It can be resumed where the zip is made already, or is small enough to be made now; else it is
    streamed while it is made.
    """
    try:
        for file in snapshot.files:
            snapshot_file(snapshot, file["name"])
        export = made_or_small(snapshot, ARCHIVE, by=request.user)
    except SnapshotError as error:
        raise Http404(str(error)) from error
    if export is not None:
        return form_download(request, export)
    response = StreamingHttpResponse(archive(snapshot), content_type="application/zip")
    name = f"{snapshot.project.slug}-v{snapshot.version}.zip"
    response["Content-Disposition"] = content_disposition_header(as_attachment=True, filename=name)
    return response


def resumable(request: HttpRequest, path: Path, name: str, sha256: str) -> HttpResponseBase:
    """The file as an attachment, or the one range of it that is asked for; 304 and 416 where due."""
    etag, size = f'"{sha256}"', path.stat().st_size
    known = {tag.strip() for tag in request.headers.get("If-None-Match", "").split(",")}
    response: HttpResponseBase
    if etag in known or f"W/{etag}" in known or "*" in known:
        response = HttpResponseNotModified()
    else:
        bounds = _bounds(request, etag, size)
        if bounds is None:
            response = FileResponse(path.open("rb"), content_type=_type(path))
            response["Content-Length"] = str(size)
        elif bounds[0] >= bounds[1]:
            response = HttpResponse(status=416)
            response["Content-Range"] = f"bytes */{size}"
        else:
            start, end = bounds
            response = StreamingHttpResponse(_part(path, start, end), status=206)
            response["Content-Type"] = _type(path)
            response["Content-Length"] = str(end - start)
            response["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        response["Content-Disposition"] = content_disposition_header(
            as_attachment=True, filename=name
        )
    response["Accept-Ranges"] = "bytes"
    response["ETag"] = etag
    digest = base64.b64encode(bytes.fromhex(sha256)).decode()
    response["Repr-Digest"] = f"sha-256=:{digest}:"
    response["X-Content-SHA256"] = sha256
    return response


def _bounds(request: HttpRequest, etag: str, size: int) -> tuple[int, int] | None:
    """First byte and end of the range that is asked for, empty if the file has none of it; None for
    the whole file: without `Range`, for several ranges, and where `If-Range` names another file."""
    match = ONE_RANGE.fullmatch(request.headers.get("Range", "").replace(" ", ""))
    if match is None or not any(match.groups()):
        return None
    if request.headers.get("If-Range", etag) != etag:
        return None
    first, last = match.groups()
    if not first:
        return max(0, size - int(last)) if int(last) else size, size
    if last and int(last) < int(first):
        return None
    return int(first), min(size, int(last) + 1) if last else size


def _part(path: Path, start: int, end: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        while start < end and (chunk := file.read(min(CHUNK_BYTES, end - start))):
            start += len(chunk)
            yield chunk


def _type(path: Path) -> str:
    return CONTENT_TYPES.get(path.suffix, "text/plain; charset=utf-8")
