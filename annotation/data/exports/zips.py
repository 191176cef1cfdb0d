"""Zips, streamed."""

import io
import zipfile
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

CHUNK_BYTES = 2**16


STORED = {".parquet", ".safetensors"}
"""Files that compression does not make smaller."""


def zip_of(files: Iterable[tuple[Path | bytes, str]], moment: datetime) -> Iterator[bytes]:
    """A zip of (file or content, name in the zip), in chunks; the same files at the same moment give
    the same bytes."""
    buffer = _StreamBuffer()
    with zipfile.ZipFile(buffer, "w") as packed:
        for content, name in files:
            info = zipfile.ZipInfo(name, moment.timetuple()[:6])
            is_stored = Path(name).suffix in STORED
            info.compress_type = zipfile.ZIP_STORED if is_stored else zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            if isinstance(content, bytes):
                packed.writestr(info, content)
                continue
            info.file_size = content.stat().st_size
            with content.open("rb") as source, packed.open(info, "w") as target:
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
