"""A stage's process: what its exit code and error.json say."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from rlhf.training.rundir.reports import read_error, read_result

STAGE = """
import sys, time
from pathlib import Path
from rlhf.training.rundir.errors import InputError, Stopped
from rlhf.training.rundir.process import run_stage
from rlhf.training.rundir.reports import write_result

def main(run_dir, stop):
    "A stage for a test."
    what = (run_dir / "what").read_text()
    if what == "input":
        raise InputError("config.json: steps must be 1 or more, got 0.")
    if what == "bug":
        raise KeyError("surprise")
    if what == "memory":
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")
    if what == "wait":
        (run_dir / "ready").touch()
        while not stop.requested:
            time.sleep(0.01)
        raise Stopped
    if what == "a thread that aborts the farewell":
        import atexit, os
        print("all is done")
        atexit.register(os.abort)
    write_result(run_dir, {"steps": 1})

run_stage(main)
"""


def _start(run_dir, what):
    (run_dir / "what").write_text(what)
    command = [sys.executable, "-c", textwrap.dedent(STAGE), str(run_dir)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize(
    ("what", "code", "kind", "says"),
    [
        ("input", 2, "input", "config.json: steps must be 1 or more, got 0."),
        ("bug", 1, "bug", "KeyError: 'surprise'; log.txt has the rest."),
        ("memory", 1, "memory", "Out of memory"),
    ],
)
def test_the_exit_code_and_error_file_say_what_happened(tmp_path, what, code, kind, says):
    process = _start(tmp_path, what)
    process.communicate(timeout=30)
    assert process.returncode == code
    error = read_error(tmp_path)
    assert error["kind"] == kind
    assert says in error["message"]
    assert read_result(tmp_path) is None


@pytest.mark.parametrize(("processes", "code"), [("2", 0), ("1", -signal.SIGABRT)])
def test_of_several_processes_none_that_has_done_its_work_fails_on_the_way_out(
    tmp_path, monkeypatch, processes, code
):
    monkeypatch.setenv("WORLD_SIZE", processes)
    process = _start(tmp_path, "a thread that aborts the farewell")
    output = process.communicate(timeout=30)[0]
    assert process.returncode == code
    assert code or "all is done" in output  # what was printed is not lost on this way out
    assert read_result(tmp_path) == {"steps": 1}


def test_sigterm_stops_a_stage_with_143_and_starting_again_finishes_it(tmp_path):
    process = _start(tmp_path, "wait")
    deadline = time.monotonic() + 30
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < deadline, "the stage never began"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143
    assert read_error(tmp_path)["kind"] == "stopped"

    again = _start(tmp_path, "finish")
    again.communicate(timeout=30)
    assert again.returncode == 0
    assert read_result(tmp_path) == {"steps": 1}
    assert read_error(tmp_path) is None

    third = _start(tmp_path, "bug")
    assert "already has its result" in third.communicate(timeout=30)[0]
    assert third.returncode == 0
