"""A worker's row, kept alive by a thread for as long as the process lives."""

import logging
import threading
from collections.abc import Callable, Sequence

from django.db import DatabaseError, connection

from rlhf import jobs
from rlhf.stages import code_version

SECONDS = 5.0
log = logging.getLogger(__name__)


class Presence:
    """Says every few seconds that this worker lives, so that pages and the sweeper can tell."""

    def __init__(self, queues: Sequence[str]) -> None:
        self.queues = ",".join(queues)
        self.name = jobs.this_worker(self.queues)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="presence", daemon=True)

    def start(self) -> None:
        self._say(jobs.worker_seen, queues=self.queues, version=code_version())
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _keep(self) -> None:
        try:
            while not self._stop.wait(SECONDS):
                self._say(jobs.worker_seen, queues=self.queues, version=code_version())
            self._say(jobs.worker_gone)
        finally:
            connection.close()

    def _say(self, what: Callable[..., None], **fields: str) -> None:
        try:
            what(self.name, **fields)
        except DatabaseError:
            log.warning("The database can't be reached.", exc_info=True)
            # A connection that a restart has cut stays dead: next time needs a new one.
            connection.close_if_unusable_or_obsolete()
