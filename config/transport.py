"""The embedded broker: kombu's filesystem transport, except that a message appears whole.

Messages only wake workers; the database says what is to be done (docs/decisions/0003).
"""

import time
import uuid
from pathlib import Path
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, filesystem
from kombu.utils.json import dumps

NAME = "folder"


class Channel(filesystem.Channel):
    def _put(self, queue: str, payload: Any, **_: Any) -> None:  # type: ignore[override]
        """Write under another name, then rename.

        kombu opens a message under its final name before it writes it. A worker that reads it in
        between ends with a JSONDecodeError, and its running job with it.
        """
        path = Path(self.data_folder_out) / f"{time.time_ns():020d}_{uuid.uuid4().hex}.{queue}.msg"
        unfinished = path.with_name(f".{path.name}.new")
        unfinished.write_text(dumps(payload))  # type: ignore[no-untyped-call]
        unfinished.rename(path)


class Transport(filesystem.Transport):
    Channel = Channel


TRANSPORT_ALIASES[NAME] = f"{__name__}:Transport"


def options(folder: Path) -> dict[str, Any]:
    """`broker_transport_options` for a queue folder, which is made if it is missing."""
    messages, control = folder / "messages", folder / "control"
    for part in (messages, control):
        part.mkdir(parents=True, exist_ok=True)
    return {
        "data_folder_in": str(messages),
        "data_folder_out": str(messages),
        "control_folder": str(control),
        "polling_interval": 0.2,
    }
