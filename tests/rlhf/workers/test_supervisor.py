"""The supervisor: its programs are restarted, and stopped with it."""

import sys

import pytest

from rlhf.workers.supervisor import Child, PortBusy, Supervisor, check_port
from tests.rlhf.machine import (
    alive,
    real_transactions,
    wait_until,
)

pytestmark = real_transactions


def test_a_child_that_dies_is_started_again_and_all_are_stopped_in_the_end(tmp_path):
    lines: list[str] = []
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    supervisor = Supervisor([Child("sleeper", sleeper)], tmp_path, grace=5, on_restart=lines.append)
    supervisor.start()
    first = supervisor.children[0].process
    first.kill()
    first.wait()
    wait_until(lambda: supervisor.check() or supervisor.children[0].process is not None, 5)
    second = supervisor.children[0].process
    assert second.pid != first.pid
    assert "restarting in" in lines[0]
    supervisor.stop()
    assert not alive(second.pid)


def test_a_program_that_dies_at_once_is_restarted_after_longer_and_longer_pauses(tmp_path):
    supervisor = Supervisor([Child("dud", [sys.executable, "-c", "exit(3)"])], tmp_path)
    supervisor.start()
    child = supervisor.children[0]
    pauses = []
    for _ in range(3):
        child.due_at = 0.0
        supervisor.check() if child.process is None else None
        child.process.wait()
        supervisor.check()
        pauses.append(child.pause)
    supervisor.stop()
    assert pauses == [2.0, 4.0, 8.0]


def test_a_busy_port_is_said_in_one_sentence():
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortBusy, match=f"Port {port} is in use"):
            check_port("127.0.0.1", port)
