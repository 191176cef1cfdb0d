"""Files as streams of bytes that are unpacked as they are read, never past a cap."""

import codecs
import gzip
import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from annotation.data.import_formats import limits
from annotation.data.import_formats.file_kinds import HEAD
from annotation.data.import_formats.limits import MIB
from annotation.data.import_formats.report import FileError

BUFFER = 256 * 1024


@dataclass(frozen=True)
class Stored:
    """A file that can be opened again and again, each time from its beginning."""

    name: str
    size: int
    """Bytes before unpacking."""
    open: Callable[[], BinaryIO]
    is_seekable: bool

    def head(self) -> bytes:
        with self.open() as stream:
            return stream.read(HEAD)


class _Borrowed(io.RawIOBase):
    """Somebody else's open file: closing this leaves it open."""

    def __init__(self, file: Any) -> None:
        super().__init__()
        self.file = file
        file.seek(0)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.file.seek(offset, whence)
        return int(self.file.tell())

    def tell(self) -> int:
        return int(self.file.tell())


class _Capped(io.RawIOBase):
    """An unpacking stream that stops at `allowed` bytes with a sentence."""

    def __init__(self, stream: Any, source: BinaryIO, kind: str, allowed: int, packed: int) -> None:
        super().__init__()
        self.stream, self.source, self.kind = stream, source, kind
        self.allowed, self.packed = allowed, packed
        self.n_read = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self.stream.read(len(buffer))
        except (OSError, EOFError, ValueError, zlib.error, pa.ArrowException) as error:
            raise FileError(f"The {self.kind} file is damaged; pack it again.") from error
        self.n_read += len(data)
        if self.n_read > self.allowed:
            raise FileError(
                f"The file unpacks to more than {self.allowed // MIB} MiB from "
                f"{self.packed / MIB:.1f} MiB; unpack it and split it into parts."
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self.stream.close()
            self.source.close()
        super().close()


def stored(file: Path | BinaryIO) -> Stored:
    """The file of a path, or an open one; FileError if it is larger than the cap."""
    if isinstance(file, Path):
        path = file
        made = Stored(path.name, path.stat().st_size, lambda: path.open("rb"), is_seekable=True)
    else:
        file.seek(0, io.SEEK_END)
        size = file.tell()

        def opened() -> BinaryIO:
            return io.BufferedReader(_Borrowed(file), BUFFER)

        made = Stored(str(getattr(file, "name", "") or ""), size, opened, is_seekable=True)
    if made.size > limits.max_file():
        raise FileError(
            f"The file is larger than {limits.max_file() // MIB} MiB; split it into parts."
        )
    return made


def unpacked(packed: Stored, kind: str) -> Stored:
    """The content of a gzip or zstd file."""
    allowed = limits.max_unpacked(packed.size)

    def opened() -> BinaryIO:
        stream = packed.open()
        unpacking: Any
        if kind == "gzip":
            unpacking = gzip.GzipFile(fileobj=stream)
        else:
            unpacking = pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), "zstd")
        return io.BufferedReader(_Capped(unpacking, stream, kind, allowed, packed.size), BUFFER)

    return Stored(packed.name.rsplit(".", 1)[0], packed.size, opened, is_seekable=False)


class _Transcoded(io.RawIOBase):
    """Text in another encoding, as UTF-8."""

    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        super().__init__()
        self.stream, self.encoding = stream, encoding
        self.decoder = codecs.getincrementaldecoder(encoding)()
        self.pending = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.pending:
            data = self.stream.read(BUFFER)
            try:
                text = self.decoder.decode(data, final=not data)
            except UnicodeError as error:
                name = self.encoding.upper()[:6]
                raise FileError(
                    f"The file looks like {name} but is not valid {name}; save it as UTF-8."
                ) from error
            self.pending = text.removeprefix("\ufeff").encode("utf-8", "surrogatepass")
            if not data:
                break
        n = min(len(buffer), len(self.pending))
        buffer[:n], self.pending = self.pending[:n], self.pending[n:]
        return n

    def close(self) -> None:
        if not self.closed:
            self.stream.close()
        super().close()


def as_utf8(text: Stored, encoding: str) -> Stored:
    """A text file without its byte order mark, in UTF-8."""

    def opened() -> BinaryIO:
        stream = text.open()
        if encoding != "utf-8-sig":
            return io.BufferedReader(_Transcoded(stream, encoding), BUFFER)
        if isinstance(stream, io.BufferedReader) and stream.peek(3)[:3] == codecs.BOM_UTF8:
            stream.read(3)
        return stream

    return Stored(text.name, text.size, opened, is_seekable=False)
