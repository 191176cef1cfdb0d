"""The process that starts and restarts the server's other processes, and stops them when it ends."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from rlhf.launchers import processes

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
STABLE_SECONDS = 30.0
"""A program that ran this long is restarted after the first pause again."""


class PortBusy(Exception):
    """Another program listens on the port; one sentence for a person."""


@dataclass
class Child:
    """One program that should be running."""

    name: str
    command: Sequence[str]
    process: "subprocess.Popen[bytes] | None" = None
    started_at: float = 0.0
    due_at: float = 0.0
    pause: float = FIRST_PAUSE


@dataclass
class Supervisor:
    """Keeps programs running until `stop`. `grace`: seconds between SIGTERM and SIGKILL."""

    children: list[Child]
    cwd: Path
    env: Mapping[str, str] | None = None
    log: Path | None = None
    grace: float = 30.0
    on_restart: Callable[[str], None] = lambda line: None
    stopping: bool = field(default=False, init=False)

    def start(self) -> None:
        for child in self.children:
            self._start(child)

    def check(self) -> None:
        """Restart the programs that have died, each time after a longer pause."""
        now = time.monotonic()
        for child in self.children:
            if child.process is not None:
                code = child.process.poll()
                if code is None:
                    if now - child.started_at > STABLE_SECONDS:
                        child.pause = FIRST_PAUSE
                    continue
                # Kill the child processes that it left, before a new one starts.
                processes.signal_group(child.process, signal.SIGKILL)
                child.process, child.due_at = None, now + child.pause
                self.on_restart(
                    f"{child.name} ended with exit code {code}; restarting in {child.pause:.0f} s."
                )
                child.pause = min(child.pause * 2, LONGEST_PAUSE)
            elif now >= child.due_at:
                self._start(child)

    def run(self) -> None:
        """Start all programs, run until SIGTERM or Ctrl-C, then stop all programs."""

        def on_signal(number: int, frame: FrameType | None) -> None:
            self.stopping = True

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, on_signal)
        try:
            self.start()
            while not self.stopping:
                self.check()
                time.sleep(0.2)
        finally:
            self.stop()

    def stop(self) -> None:
        """Send SIGTERM to all programs; kill those that still run after the grace period."""
        running = [child.process for child in self.children if child.process is not None]
        for process in running:
            processes.signal_group(process, signal.SIGTERM)
        until = time.monotonic() + self.grace
        for process in running:
            processes.wait(process, max(0.0, until - time.monotonic()))
            processes.stop(process, grace=0.0)

    def _start(self, child: Child) -> None:
        output = self.log.open("ab") if self.log else None
        try:
            # SIGTERM, so that a worker requeues its job also if its supervisor was killed.
            child.process = processes.start(
                child.command,
                cwd=self.cwd,
                env=self.env,
                output=output,
                at_parents_death=signal.SIGTERM,
            )
        finally:
            if output is not None:
                output.close()
        child.started_at = time.monotonic()


def workers_and_sweeper(queues: Sequence[str] = ("default", "gpu")) -> list[Child]:
    """A worker for each queue, the sweeper, and the keeper of served policies."""
    python = sys.executable
    workers = [
        Child(
            f"worker {queue}",
            [
                python, "-m", "celery", "--quiet", "-A", "config", "worker", "-Q", queue,
                "-n", f"{queue}-{time.time_ns()}@%h", "-l", "WARNING",
                "--without-gossip", "--without-mingle",
            ],
        )
        for queue in queues
    ]  # fmt: skip
    commands = {"sweeper": "sweep", "policies": "serve_policies"}
    return [*workers, *(Child(name, [python, "manage.py", c]) for name, c in commands.items())]


def web_server(host: str, port: int) -> Child:
    """The web server; PortBusy if something else listens there."""
    check_port(host, port)
    return Child(
        "web",
        [
            sys.executable, "-m", "gunicorn", "config.wsgi", "--bind", f"{host}:{port}",
            "--threads", "8", "--workers", "1", "--log-level", "warning", "--no-control-socket",
        ],
    )  # fmt: skip


def check_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            raise PortBusy(
                f"Port {port} is in use by another program; choose another with PORT={port + 1}."
            ) from None
