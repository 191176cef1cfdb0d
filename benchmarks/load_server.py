"""The web server under test: as docs/production.md starts it, on loopback, in a folder of its own."""

import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 90.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """gunicorn with workers and threads. `kill` is SIGKILL to all of it, `start` the way back."""

    def __init__(
        self,
        folder: Path,
        *,
        database: str = "",
        port: int = 0,
        workers: int = 2,
        threads: int = 8,
    ) -> None:
        self.folder, self.port = folder, port or free_port()
        self.workers, self.threads = workers, threads
        folder.mkdir(parents=True, exist_ok=True)
        self.env = {
            **os.environ,
            "GROUND_CONTROL_DATA": str(folder),
            "DATABASE_URL": database or f"sqlite:///{folder / 'db.sqlite3'}",
            "DJANGO_SETTINGS_MODULE": "config.settings",
            # People are limited by their hands; what drives this benchmark is not.
            "API_RATE": "1000000/min",
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.peak_kib = 0

    def run(self, *command: str) -> str:
        """Run a Python command of the product in the server's environment; what it printed."""
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=self.env, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def fill(self, **options: int) -> dict[str, Any]:
        given = [word for name, n in options.items() for word in (f"--{name}", str(n))]
        made: dict[str, Any] = json.loads(self.run("-m", "benchmarks.load_queue", *given))
        return made

    def start(self) -> None:
        log = (self.folder / "gunicorn.log").open("ab")
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "gunicorn", "config.wsgi",
                "--bind", f"127.0.0.1:{self.port}", "--workers", str(self.workers),
                "--threads", str(self.threads), "--log-level", "warning", "--no-control-socket",
            ],
            cwd=ROOT, env=self.env, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        log.close()
        self.wait()

    def wait(self) -> None:
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                connection.request("GET", "/accounts/login/")
                if connection.getresponse().status == 200:
                    return
            except OSError:
                time.sleep(0.1)
            finally:
                connection.close()
        raise RuntimeError(f"The server did not start; see {self.folder / 'gunicorn.log'}.")

    def pids(self) -> list[int]:
        """The master and its workers."""
        if self.process is None:
            return []
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        try:
            return [self.process.pid, *map(int, children.read_text().split())]
        except OSError:
            return [self.process.pid]

    def remember_memory(self) -> None:
        """Peak resident memory of all processes together, as far as it was looked at (KiB)."""
        total = 0
        for pid in self.pids():
            try:
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            except OSError:
                continue
            total += sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
        self.peak_kib = max(self.peak_kib, total)

    def cpu_seconds(self) -> float:
        """Processor time of all living processes together, user and system."""
        ticks = 0
        for pid in self.pids():
            try:
                stat = Path(f"/proc/{pid}/stat").read_text()
            except OSError:
                continue
            # utime and stime are fields 14 and 15; the name, field 2, may contain spaces.
            ticks += sum(int(value) for value in stat.rsplit(")", 1)[1].split()[11:13])
        return ticks / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """As the power cut of a process: no handler runs, in the master and in every worker."""
        self.remember_memory()
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def kill_a_worker(self) -> None:
        """SIGKILL to one worker; gunicorn starts another."""
        workers = self.pids()[1:]
        if workers:
            try:
                os.kill(secrets.choice(workers), signal.SIGKILL)
            except ProcessLookupError:
                return

    def stop(self) -> None:
        self.remember_memory()
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
        self.process = None


@contextmanager
def database_of_its_own(url: str) -> Iterator[str]:
    """A fresh PostgreSQL database on the server that `url` names, dropped afterwards."""
    import psycopg

    base, name = url.rsplit("/", 1)[0], f"ground_control_load_{secrets.token_hex(4)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    try:
        yield f"{base}/{name}"
    finally:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
