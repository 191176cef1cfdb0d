"""The cache of one machine: a folder, shared by all processes, without pickles.

Limits (throttles of sign-ins and of the API) are kept apart from values that can be computed again:
however many values there are, none pushes out a limit before it has run out. Django's file cache
keeps 300 entries and drops any of them.
"""

import hashlib
import os
import random
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache

from config.cache_json import JsonSerializer

LIMITS = ("allauth:", "throttle_")
"""How the keys of limits begin, with allauth and the REST framework."""
SWEEP_CHANCE = 1 / 200
"""Of the writes, so many look through the folder for what has run out."""
FOREVER = 32_503_680_000.0  # the year 3000


class FileCache(BaseCache):
    """One file per entry: when it runs out, a line break, and its value as JSON."""

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(params)
        self.folder = Path(location)
        self.max_values = int(params.get("OPTIONS", {}).get("MAX_ENTRIES", 10_000))
        self.serializer = JsonSerializer()

    def add(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        """Store it unless it is there; of several that try at once, one succeeds."""
        path = self._path(key, version)
        unfinished = self._write(path, value, timeout)
        try:
            if self._read(path) is None:
                self._discard_expired(path)
            os.link(unfinished, path)
        except FileExistsError:
            return False
        finally:
            unfinished.unlink()
        return True

    def _discard_expired(self, path: Path) -> None:
        """Remove an entry that has run out; one that another process has just added stays."""
        aside = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
        with suppress(FileNotFoundError):
            path.rename(aside)
            if self._read(aside) is not None:
                with suppress(FileExistsError):
                    os.link(aside, path)
            aside.unlink()

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        data = self._read(self._path(key, version))
        if data is None:
            return default
        value = self.serializer.loads(data)
        return default if value is None else value

    def set(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> None:
        path = self._path(key, version)
        self._write(path, value, timeout).rename(path)
        if random.random() < SWEEP_CHANCE:  # noqa: S311 - when to tidy up is no secret
            self.sweep()

    def touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        path = self._path(key, version)
        data = self._read(path)
        if data is None:
            return False
        self._write_bytes(path, data, timeout).rename(path)
        return True

    def delete(self, key: Any, version: int | None = None) -> bool:
        path = self._path(key, version)
        with suppress(FileNotFoundError):
            path.unlink()
            return True
        return False

    def clear(self) -> None:
        for path in self._entries():
            path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Delete what has run out and, beyond MAX_ENTRIES, the oldest values: never a limit."""
        values = []
        for path in self._entries():
            with suppress(OSError):
                if self._read(path) is None:
                    path.unlink(missing_ok=True)
                elif path.parent.name == "values":
                    values.append((path.stat().st_mtime, path))
        for _, path in sorted(values)[: max(0, len(values) - self.max_values)]:
            path.unlink(missing_ok=True)

    def _entries(self) -> list[Path]:
        return list(self.folder.glob("*/*.json"))

    def _path(self, key: Any, version: int | None) -> Path:
        full = self.make_and_validate_key(key, version=version)
        kind = "limits" if str(key).startswith(LIMITS) else "values"
        return self.folder / kind / f"{hashlib.sha256(full.encode()).hexdigest()}.json"

    def _read(self, path: Path) -> bytes | None:
        """The value's JSON; None if there is none or it has run out."""
        try:
            until, _, data = path.read_bytes().partition(b"\n")
            return data if float(until) > time.time() else None
        except (OSError, ValueError):
            return None

    def _write(self, path: Path, value: Any, timeout: Any) -> Path:
        data = self.serializer.dumps(value)
        return self._write_bytes(path, data if isinstance(data, bytes) else b"%d" % data, timeout)

    def _write_bytes(self, path: Path, data: bytes, timeout: Any) -> Path:
        until = self.get_backend_timeout(timeout)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        unfinished = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
        unfinished.write_bytes(f"{FOREVER if until is None else until}\n".encode() + data)
        return unfinished
