"""Child processes end with their parent, and with all that they started."""

import subprocess
import sys

import pytest

from rlhf.launchers import processes
from tests.rlhf.machine import (
    ROOT,
    alive,
    real_transactions,
    wait_until,
)

pytestmark = real_transactions


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's help is Linux's")
def test_children_die_with_a_parent_that_was_killed(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from rlhf.launchers import processes;"
        "p = processes.start([sys.executable, '-c', 'import time; time.sleep(60)'], cwd=Path('.'));"
        "print(p.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE)
    pid = int(parent.stdout.readline())
    assert alive(pid)
    parent.kill()
    parent.wait()
    wait_until(lambda: not alive(pid), 5)


def test_stopping_takes_grandchildren_along(tmp_path):
    script = (
        "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', "
        "'import time; time.sleep(60)']); open('pid', 'w').write(str(p.pid)); time.sleep(60)"
    )
    process = processes.start([sys.executable, "-c", script], cwd=tmp_path)
    pid = wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    processes.stop(process, grace=2)
    wait_until(lambda: not alive(int(pid)), 5)
