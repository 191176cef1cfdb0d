"""A file of any kind to rows, one after another: what it is follows from its content."""

import hashlib
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from annotation.data.import_formats import fields, limits
from annotation.data.import_formats.csv_rows import csv_rows
from annotation.data.import_formats.file_kinds import encoding_of, file_kind
from annotation.data.import_formats.json_rows import first_character, json_rows
from annotation.data.import_formats.report import FileError, ImportReport, Row
from annotation.data.import_formats.streams import BUFFER, Stored, as_utf8, stored, unpacked
from annotation.data.import_formats.table_rows import (
    arrow_rows,
    check_workbook,
    excel_rows,
    parquet_rows,
)

MAX_PACKINGS = 2
"""A gzip file within a zip file is read; more than that is nobody's data."""
SUFFIXES = {".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt", ".parquet", ".arrow", ".xlsx"}
SUFFIXES |= {".gz", ".zst", ".feather"}
NO_DATA = {
    "dataset_info.json",
    "dataset_infos.json",
    "dataset_dict.json",
    "state.json",
    "schema.json",
    "croissant.json",
}
"""Files next to the data in a folder of `datasets` or of a hub."""


def rows_of(file: Path | BinaryIO, report: ImportReport) -> Iterator[tuple[int, Row]]:
    """Each row with its line or number; unreadable rows go to the report's problems.

    `file` is a file, an open one, or a folder as `datasets` saves it. FileError if it can't be read.
    """
    if isinstance(file, Path) and file.is_dir():
        yield from _folder_rows(file, report)
        return
    source = stored(file)
    with source.open() as stream:
        report.sha256 = _sha256(stream)
    yield from _rows(source, report, n_packings=0)


def _sha256(stream: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := stream.read(BUFFER):
        digest.update(block)
    return digest.hexdigest()


def _rows(file: Stored, report: ImportReport, *, n_packings: int) -> Iterator[tuple[int, Row]]:
    head = file.head()
    kind = file_kind(head)
    if kind == "zip":
        with _seekable(file) as stream:
            yield from _zip_rows(stream, report, n_packings)
    elif kind in ("gzip", "zstd"):
        if n_packings == MAX_PACKINGS:
            raise FileError("The file is compressed several times over; unpack it.")
        yield from _rows(unpacked(file, kind), report, n_packings=n_packings + 1)
    elif kind == "parquet":
        with _seekable(file) as stream:
            yield from parquet_rows(stream, report)
    elif kind.startswith("arrow"):
        with _seekable(file) as stream:
            yield from arrow_rows(stream, report, kind)
    else:
        text = as_utf8(file, encoding_of(head))
        first = first_character(text)
        rows = json_rows(text, report, first) if first in "[{" else csv_rows(text, report)
        yield from rows


def _seekable(file: Stored) -> Any:
    """The file open for reading at any place: an unpacked one lies on disk until it is closed."""
    if file.is_seekable:
        return file.open()
    spooled = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    with file.open() as stream:
        while block := stream.read(BUFFER):
            spooled.write(block)
    spooled.seek(0)
    return spooled


# --- Several files ---------------------------------------------------------------------------------------


def _zip_rows(stream: BinaryIO, report: ImportReport, n_packings: int) -> Iterator[tuple[int, Row]]:
    try:
        archive = zipfile.ZipFile(stream)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise FileError("The zip file is damaged; pack it again.") from error
    with archive:
        members = archive.infolist()
        _check_members(members, stream)
        names = {member.filename for member in members}
        if "xl/workbook.xml" in names:
            check_workbook(archive)
            stream.seek(0)
            yield from excel_rows(stream, report)
            return
        if "mimetype" in names and "content.xml" in names:
            raise FileError("This is an OpenDocument file; save it as .xlsx or CSV.")
        if n_packings:
            raise FileError("The file is an archive within an archive; unpack it.")
        by_name = {member.filename: member for member in members if not member.is_dir()}
        for name in _data_files(list(by_name), report):
            member = by_name[name]

            def opened(member: zipfile.ZipInfo = member) -> Any:
                try:
                    return archive.open(member)
                except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError) as error:
                    raise FileError(
                        f"{member.filename[:80]} in the zip file can't be unpacked; pack it again."
                    ) from error

            file = Stored(name, member.file_size, opened, is_seekable=False)
            try:
                yield from _rows_in_split(file, name, report, n_packings=1)
            except (zipfile.BadZipFile, EOFError) as error:
                raise FileError("The zip file is damaged; pack it again.") from error


def _check_members(members: list[zipfile.ZipInfo], stream: BinaryIO) -> None:
    if len(members) > limits.max_files():
        raise FileError(
            f"The zip file has more than {limits.max_files():,} files; split it into parts."
        )
    packed = stream.seek(0, 2)
    size, allowed = sum(member.file_size for member in members), limits.max_unpacked(packed)
    if size > allowed:
        raise FileError(
            f"The file unpacks to more than {allowed // limits.MIB} MiB from "
            f"{packed / limits.MIB:.1f} MiB; unpack it and split it into parts."
        )
    for member in members:
        parts = PurePosixPath(member.filename.replace("\\", "/")).parts
        is_link = (member.external_attr >> 16) & 0o170000 == 0o120000
        if ".." in parts or member.filename.startswith(("/", "\\")) or is_link or ":" in parts[0]:
            raise FileError(
                f"The zip file has a path that leaves its folder ({member.filename[:80]!r}); "
                "pack it again."
            )
        if member.flag_bits & 0x1:
            raise FileError("The zip file is protected by a password; pack it without one.")


def _folder_rows(folder: Path, report: ImportReport) -> Iterator[tuple[int, Row]]:
    root = folder.resolve()
    paths = {
        str(path.relative_to(folder)): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.resolve().is_relative_to(root)
    }
    if len(paths) > limits.max_files():
        raise FileError(f"The folder has more than {limits.max_files():,} files.")
    digest = hashlib.sha256()
    for name in _data_files(list(paths), report):
        file = stored(paths[name])
        with file.open() as stream:
            digest.update(f"{name}\0{_sha256(stream)}\n".encode())
        yield from _rows_in_split(file, name, report, n_packings=0)
    report.sha256 = digest.hexdigest()


def _data_files(names: list[str], report: ImportReport) -> list[str]:
    """The files with rows, in order of their names; the rest is counted."""
    data = []
    for name in sorted(names):
        path = PurePosixPath(name)
        if any(part.startswith((".", "__MACOSX")) for part in path.parts):
            continue
        if path.suffix.lower() in SUFFIXES and path.name not in NO_DATA and path.stem != "LICENSE":
            data.append(name)
        elif path.name not in NO_DATA:
            report.notes["a file next to the data was not read"] += 1
    if not data:
        raise FileError(
            "There is no file with rows in it: JSON Lines, JSON, CSV, Excel, Parquet or Arrow."
        )
    return data


def _rows_in_split(
    file: Stored, name: str, report: ImportReport, *, n_packings: int
) -> Iterator[tuple[int, Row]]:
    """Rows that belong to the split that their file or folder is named for, unless they say."""
    words = {part.split("-")[0].split(".")[0].lower() for part in PurePosixPath(name).parts}
    split = next((word for word in sorted(words) if fields.SPLITS.get(word)), None)
    report.file = name
    try:
        for number, row in _rows(file, report, n_packings=n_packings):
            if split and "split" not in row:
                row["split"] = split
            yield number, row
    except FileError as error:
        raise FileError(f"{name[:80]}: {error}") from error
