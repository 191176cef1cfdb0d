"""A worker's row, kept alive by a thread for as long as the process lives."""

import logging
import threading
from collections.abc import Sequence

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
        jobs.worker_seen(self.name, queues=self.queues, version=code_version())
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        jobs.worker_gone(self.name)

    def _keep(self) -> None:
        try:
            while not self._stop.wait(SECONDS):
                try:
                    jobs.worker_seen(self.name, queues=self.queues, version=code_version())
                except DatabaseError:
                    log.warning("The database can't be reached.", exc_info=True)
        finally:
            connection.close()
