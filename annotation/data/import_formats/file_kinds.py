"""What a file is, by its first bytes: its name may be wrong, or missing."""

import re

from annotation.data.import_formats.report import FileError

HEAD = 4096
"""How many bytes decide."""

READ = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",  # without files
    b"PAR1": "parquet",
    b"ARROW1": "arrow",
    b"\xff\xff\xff\xff": "arrow stream",  # what `datasets` writes
}

# Files that have come instead of data: what each is, and what to do about it.
NAMED = {
    b"\xfd7zXZ\x00": "an xz file; unpack it, or pack it with gzip or zstd",
    b"BZh": "a bzip2 file; unpack it, or pack it with gzip or zstd",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it, or pack it as zip",
    b"Rar!": "a RAR archive; unpack it, or pack it as zip",
    b"\x04\x22\x4d\x18": "an lz4 file; unpack it, or pack it with gzip or zstd",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an old Excel or Office file (.xls); save it as .xlsx or CSV",
    b"version https://git-lfs.github.com/spec/": (
        "a Git LFS pointer, not the data; fetch the file with git lfs pull"
    ),
    b"SQLite format 3\x00": "an SQLite database; export the table as CSV or JSON Lines",
    b"%PDF": "a PDF document; give the data as CSV or JSON Lines",
    b"\x80\x04\x95": "a Python pickle, which is never loaded; save the data as JSON Lines",
    b"\x80\x05\x95": "a Python pickle, which is never loaded; save the data as JSON Lines",
    b"\x93NUMPY": "a NumPy array; save the data as JSON Lines or Parquet",
    b"ORC": "an ORC file; save the data as Parquet",
    b"Obj\x01": "an Avro file; save the data as Parquet",
    b"FEA1": "an old Feather file; save the data as Parquet",
}
WEB_PAGE = re.compile(rb"\s*(<!doctype html|<html|<head|<body)", re.IGNORECASE)
XML = re.compile(rb"\s*<\?xml")
TAR = slice(257, 262)


def file_kind(head: bytes) -> str:
    """A value of READ, or "text"; FileError with what the file is if it holds no rows."""
    for magic, description in NAMED.items():
        if head.startswith(magic):
            raise FileError(f"This is {description}.")
    if head[TAR] == b"ustar":
        raise FileError("This is a tar archive; unpack it, or pack it as zip.")
    for magic, kind in READ.items():
        if head.startswith(magic):
            return kind
    plain = head.removeprefix(b"\xef\xbb\xbf")
    if WEB_PAGE.match(plain):
        raise FileError("This is a web page, not data; download the file itself.")
    if XML.match(plain):
        raise FileError("This is an XML file; save the data as CSV or JSON Lines.")
    return "text"


def encoding_of(head: bytes) -> str:
    """utf-8-sig, or what a mark or the zeros between ASCII characters say."""
    if head.startswith((b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")):
        return "utf-32"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    even, odd = head[::2].count(0), head[1::2].count(0)
    if max(even, odd) > len(head) / 5 and min(even, odd) < max(even, odd) / 10:
        return "utf-16-be" if even > odd else "utf-16-le"
    return "utf-8-sig"
