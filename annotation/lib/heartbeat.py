"""Signs of life: the thread that works on a row renews its time stamp; a stale stamp means that it died."""

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Self

from django.db import DatabaseError, connection
from django.utils import timezone

log = logging.getLogger(__name__)


class Heartbeat:
    """Calls `renew` every so many seconds, in a thread, from `start` to `stop` or while a `with` runs.

    A database that can't be reached is waited for: the next beat tries again.
    """

    def __init__(self, renew: Callable[[], object], *, every: float, name: str) -> None:
        self.renew, self.every = renew, every
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._renewed_at = time.monotonic()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self.stop()

    def seconds_since_renewal(self) -> float:
        """Seconds since the last beat that reached the database, or since this object was made."""
        return time.monotonic() - self._renewed_at

    def _run(self) -> None:
        try:
            while not self._stopping.wait(self.every):
                try:
                    self.renew()
                    self._renewed_at = time.monotonic()
                except DatabaseError:
                    log.warning("The database can't be reached.", exc_info=True)
                    # A connection that a restart has cut stays dead: the next beat needs a new one.
                    connection.close_if_unusable_or_obsolete()
        finally:
            connection.close()


def is_stale(renewed_at: datetime | None, limit: timedelta) -> bool:
    """Whether the last sign of life is older than the limit, or there was none."""
    return renewed_at is None or renewed_at < stale_before(limit)


def stale_before(limit: timedelta) -> datetime:
    """Rows whose last sign of life is before this moment are stale."""
    return timezone.now() - limit
