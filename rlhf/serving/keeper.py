"""The keeper of served policies: one `transformers serve` process for each, on loopback only.

Runs in `manage.py serve_policies`. It reads the desired states from `PolicyServer` rows and writes
the actual states back.
"""

import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from subprocess import Popen
from typing import Any

from django.conf import settings
from django.db import DatabaseError, connection
from django.db.models import Q
from django.utils import timezone

from annotation.lib.heartbeat import stale_before
from rlhf.launchers import processes
from rlhf.models import PolicyServer
from rlhf.serving import client, server_process
from rlhf.serving.client import ServingError
from rlhf.serving.server_process import WarmUp, last_log_line
from rlhf.serving.servers import SILENT_AFTER
from rlhf.training.server_guard import KEY as SERVER_KEY

State = PolicyServer.State
log = logging.getLogger(__name__)

STARTING_CHECK_SECONDS, READY_CHECK_SECONDS = 1.0, 5.0
"""The interval of health checks."""
MAX_MISSED_CHECKS = 6
"""A ready server is stopped after this many failed health checks in a row."""
MAX_STARTS = 3
"""A server that dies is started up to this many times; then it counts as failed."""
IN_TURN = "This model can't write two answers in parallel: the second follows the first."


@dataclass
class _Running:
    """A server process of this keeper; times are of `time.monotonic`."""

    process: "Popen[bytes]"
    port: int
    started_at: float
    checked_at: float = 0.0
    missed_checks: int = 0
    warm_up: WarmUp | None = None


class Keeper:
    """Runs the servers whose rows have `is_wanted`, and stops the others."""

    def __init__(self, *, on_problem: Callable[[str], None] = lambda line: None) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.on_problem = on_problem
        self.running: dict[int, _Running] = {}
        self.in_turn: set[int] = set()
        """Rows whose model can't write answers in parallel."""

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Check all servers twice a second until `should_stop`; then stop every server."""
        try:
            while not should_stop():
                try:
                    self.check_all()
                except DatabaseError:
                    log.warning("The database can't be reached; servers go on.", exc_info=True)
                    connection.close_if_unusable_or_obsolete()
                time.sleep(0.5)
        finally:
            self.stop_all()

    def check_all(self) -> None:
        """Take over unkept rows; then start, check or stop the server of each own row."""
        unkept = Q(owner="") | Q(seen_at=None) | Q(seen_at__lt=stale_before(SILENT_AFTER))
        wanted = PolicyServer.objects.filter(is_wanted=True).exclude(state=State.FAILED)
        for pk in wanted.filter(unkept).exclude(owner=self.name).values_list("pk", flat=True):
            PolicyServer.objects.filter(unkept, pk=pk, is_wanted=True).update(
                owner=self.name, seen_at=timezone.now(), state=State.OFF
            )
        own = PolicyServer.objects.filter(owner=self.name)
        for server in own.select_related("checkpoint"):
            self._check(server)
        own_pks = set(own.values_list("pk", flat=True))
        if own_pks:  # An update takes SQLite's write lock even where it matches no row.
            own.update(seen_at=timezone.now())
        for pk in set(self.running) - own_pks:
            self._stop(pk)  # deleted, or taken over by another keeper

    def stop_all(self) -> None:
        for pk in list(self.running):
            self._stop(pk)
        PolicyServer.objects.filter(owner=self.name).exclude(state=State.FAILED).update(
            owner="", state=State.OFF, port=None, process_id=None, reason=""
        )

    def _check(self, server: PolicyServer) -> None:
        running = self.running.get(server.pk)
        if not server.is_wanted:
            if running:
                self._stop(server.pk)
            self._record(server, State.OFF, owner="", port=None, process_id=None)
            return
        idle = timezone.now() - timedelta(minutes=settings.POLICY_IDLE_MINUTES)
        if running and server.state == State.READY and server.used_at < idle:
            self._stop(server.pk)
            self._record(server, State.OFF, is_wanted=False, sleeps=True, owner="", port=None)
        elif running is None:
            self._start(server)
        elif (code := running.process.poll()) is not None:
            self._stop(server.pk)
            self._restart_or_fail(server, f"It ended with {code}: {last_log_line(server)}")
        else:
            self._check_health(server, running)

    def _check_health(self, server: PolicyServer, running: _Running) -> None:
        now = time.monotonic()
        is_starting = server.state == State.STARTING
        pause = STARTING_CHECK_SECONDS if is_starting else READY_CHECK_SECONDS
        if now - running.checked_at < pause:
            return
        running.checked_at = now
        if client.is_healthy(running.port):
            running.missed_checks = 0
            if server.state != State.READY:
                self._warm_up(server, running)
        elif is_starting:
            if now - running.started_at > settings.POLICY_START_SECONDS:
                self._stop(server.pk)
                self._record(server, State.FAILED, reason="It did not start in time.", owner="")
        else:
            running.missed_checks += 1
            if running.missed_checks >= MAX_MISSED_CHECKS:
                self._stop(server.pk)
                self._restart_or_fail(server, "It stopped answering.")

    def _warm_up(self, server: PolicyServer, running: _Running) -> None:
        """Ready after a first answer. A model that fails it is restarted to answer in turn."""
        if running.warm_up is None:
            running.warm_up = WarmUp(server.folder / "model", running.port)
        reason = IN_TURN if server.pk in self.in_turn else ""
        if not running.warm_up.is_done:
            self._record(server, State.STARTING, reason=reason)
        elif not running.warm_up.problem:
            self._record(server, State.READY, reason=reason, used_at=timezone.now())
        elif server.pk not in self.in_turn:
            self.in_turn.add(server.pk)
            self._stop(server.pk)
            self._record(server, State.OFF, reason=IN_TURN, starts=0)
        else:
            self._stop(server.pk)
            self._restart_or_fail(server, f"It could not answer: {last_log_line(server)}")

    def _start(self, server: PolicyServer) -> None:
        try:
            folder = server_process.prepare_folder(server)
            key = server_process.new_key(server)
            port = server_process.free_port()
            in_turn = server.pk in self.in_turn
            with (server.folder / "log.txt").open("wb") as output:
                process = processes.start(
                    server_process.command(folder, port, in_turn=in_turn),
                    cwd=settings.BASE_DIR,
                    env={**settings.TRAINING_ENVIRONMENT, SERVER_KEY: key},
                    output=output,
                )
        except (OSError, ValueError, ServingError) as error:
            self._record(server, State.FAILED, reason=str(error)[:300], owner="")
            return
        self.running[server.pk] = _Running(process, port, time.monotonic())
        self._record(
            server,
            State.STARTING,
            port=port,
            process_id=process.pid,
            started_at=timezone.now(),
            starts=server.starts + 1,
        )

    def _restart_or_fail(self, server: PolicyServer, reason: str) -> None:
        self.on_problem(f"{server}: {reason}")
        if server.starts >= MAX_STARTS:
            self._record(server, State.FAILED, reason=reason[:300], owner="", port=None)
        else:
            self._record(server, State.OFF, reason="It ended unexpectedly and is started again.")

    def _record(self, server: PolicyServer, state: str, **fields: Any) -> None:
        own = PolicyServer.objects.filter(pk=server.pk, owner=self.name)
        own.update(state=state, seen_at=timezone.now(), **fields)

    def _stop(self, pk: int) -> None:
        processes.stop(self.running.pop(pk).process, grace=3.0)


def run_keeper(on_problem: Callable[[str], None]) -> None:
    """Keep servers until SIGTERM or Ctrl-C."""
    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, frame: signals.append(received))
    Keeper(on_problem=on_problem).run(lambda: bool(signals))
