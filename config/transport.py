"""The embedded broker: a folder of message files, one file a message.

Celery's filesystem transport opens a file under its final name and then writes it, so a reader can
meet half a message (57 of 1,500 in a test), which stops a worker for good. Here a message is written
beside, fsynced and renamed, and read after a rename inside the same folder tree. Messages are hints
that wake a worker; what has to be done stands in the database (docs/decisions/0003).
"""

import os
import time
import uuid
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, filesystem
from kombu.utils.json import dumps, loads

NAME = "folder"


class Channel(filesystem.Channel):
    """Puts and gets message files atomically; folders that somebody deletes are made again."""

    def written_table(self, exchange: str) -> list[Any]:
        try:
            return super().get_table(exchange)  # type: ignore[no-any-return, no-untyped-call]
        except ValueError:  # cut off in the middle by kombu's own way of writing
            return []

    def get_table(self, exchange: str) -> list[Any]:
        # What a process has bound it never writes again, so a deleted file is no lost route.
        return self.written_table(exchange) or [
            filesystem.exchange_queue_t(key.routing_key, "", key.queue)
            for key in self.state.bindings
            if key.exchange == exchange
        ]

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        # kombu truncates the table before it locks it: whoever binds at that moment reads nothing
        # and dies, and of two first binders one is forgotten.
        path: Path = self._exchange_file(exchange)  # type: ignore[no-untyped-call]
        path.parent.mkdir(parents=True, exist_ok=True)
        bound = [routing_key or "", pattern or "", queue or ""]
        with (path.parent / "binding.lock").open("w") as gate:
            filesystem.lock(gate, filesystem.LOCK_EX)  # type: ignore[no-untyped-call]
            try:
                table = [list(row) for row in self.written_table(exchange)]
                if bound not in table:
                    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.new")
                    beside.write_text(dumps([bound, *table]))  # type: ignore[no-untyped-call]
                    beside.rename(path)
            finally:
                filesystem.unlock(gate)  # type: ignore[no-untyped-call]

    def _put(self, queue: str, payload: Any, **_: Any) -> None:  # type: ignore[override]
        folder = Path(self.data_folder_out)
        folder.mkdir(parents=True, exist_ok=True)
        # Zero-padded wall-clock nanoseconds: names sort by age, also over a reboot.
        name = f"{time.time_ns():020d}_{uuid.uuid4().hex}.{queue}.msg"
        beside = folder / f".{name}.new"
        with beside.open("wb") as file:
            file.write(dumps(payload).encode())  # type: ignore[no-untyped-call]
            file.flush()
            os.fsync(file.fileno())
        beside.rename(folder / name)

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        taken = Path(self.processed_folder)
        taken.mkdir(parents=True, exist_ok=True)
        for path in messages(Path(self.data_folder_in), queue):
            mine = taken / path.name
            try:
                path.rename(mine)
            except OSError:
                continue  # another worker was faster
            data = mine.read_bytes()
            mine.unlink()
            return loads(data.decode())  # type: ignore[no-untyped-call]
        raise Empty

    def _size(self, queue: str) -> int:
        return len(messages(Path(self.data_folder_in), queue))

    def _purge(self, queue: str) -> int:
        found = messages(Path(self.data_folder_in), queue)
        for path in found:
            path.unlink(missing_ok=True)
        return len(found)


class Transport(filesystem.Transport):
    Channel = Channel


TRANSPORT_ALIASES[NAME] = f"{__name__}:Transport"


def messages(folder: Path, queue: str) -> list[Path]:
    """The waiting messages of a queue, oldest first."""
    ending = f".{queue}.msg"
    try:
        names = sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:
        return []
    return [
        folder / name
        for name in names
        if name.endswith(ending) and name.count(".") == ending.count(".") and name[0] != "."
    ]


def options(folder: Path) -> dict[str, Any]:
    """`broker_transport_options` for a queue folder, whose parts are made if they are missing."""
    parts = {"data_folder_in": "messages", "data_folder_out": "messages"}
    parts |= {"processed_folder": "taken", "control_folder": "control"}
    for part in set(parts.values()):
        (folder / part).mkdir(parents=True, exist_ok=True)
    return {
        **{name: str(folder / part) for name, part in parts.items()},
        "store_processed": False,
        "polling_interval": 0.2,
    }
