"""Zips, streamed."""

import io
import zipfile
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

CHUNK_BYTES = 2**16


def zip_of(files: Iterable[tuple[Path, str]], moment: datetime) -> Iterator[bytes]:
    """A zip of (path, name in the zip), in chunks. Parquet is compressed already: stored as it is."""
    buffer = _StreamBuffer()
    with zipfile.ZipFile(buffer, "w") as packed:
        for path, name in files:
            info = zipfile.ZipInfo(name, moment.timetuple()[:6])
            is_compressed = path.suffix == ".parquet"
            info.compress_type = zipfile.ZIP_STORED if is_compressed else zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            info.file_size = path.stat().st_size
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
