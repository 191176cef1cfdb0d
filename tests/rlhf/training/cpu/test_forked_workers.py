"""Processes that a stage forks from itself: they end together, and what they tell each other arrives."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlhf.training import parallel
from rlhf.training.rundir.reports import read_error
from tests.rlhf.training.conftest import weights
from tests.rlhf.training.test_ppo_resume import last_checkpoint, without_clocks
from tests.rlhf.training.tiny import ROOT, result_of, rows_of, run, start

pytestmark = pytest.mark.skipif(not parallel.can_fork(), reason="stages fork on Linux only")


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def forks_of(pid):
    """Its children, without the commands that what it imports may run for a moment."""
    seen = children_of(pid)
    if seen:
        time.sleep(0.1)
    return [child for child in seen if alive(child) and command_of(child) == command_of(pid)]


def command_of(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def alive(pid):
    """Whether it runs, and is not merely remembered until its parent asks."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(there, *, process=None, seconds=60):
    until = time.monotonic() + seconds
    while not (found := there()):
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)
    return found


def steps_of(folder):
    path = folder / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def at_work(folder, *, steps=1):
    """The stage in two processes, some steps on; the first one, and the other one's number."""
    process = start("ppo", folder)
    (other,) = wait_until(lambda: forks_of(process.pid), process=process)
    wait_until(lambda: steps_of(folder) >= steps, process=process)
    return process, other


@pytest.fixture
def long(ready):
    return ready("long", processes=2, steps=5000, checkpoint_every=5000)


def test_a_small_policy_is_trained_by_a_process_for_each_thread(ready):
    folder = ready("two threads", threads=2)
    assert run("ppo", folder).returncode == 0
    assert result_of(folder)["processes"] == 2
    folder = ready("many threads", threads=9, steps=1)
    assert run("ppo", folder).returncode == 0
    assert result_of(folder)["processes"] == 4
    folder = ready("told not to", threads=2, processes=1)
    assert run("ppo", folder).returncode == 0
    assert result_of(folder)["processes"] == 1


def test_killed_at_random_moments_two_processes_end_with_the_same_bytes(ready):
    # So many steps that none is the last one while the test sleeps, however fast the machine.
    settings = {"steps": 48, "checkpoint_every": 5, "processes": 2, "tripwire_evaluations": 0}
    whole, killed = ready("whole", **settings), ready("killed", **settings)
    assert run("ppo", whole).returncode == 0
    generator = random.Random(3)
    for steps in sorted(generator.choices(range(1, 32), k=3)):
        process, other = at_work(killed, steps=steps)
        time.sleep(generator.uniform(0, 0.2))
        os.kill(generator.choice([process.pid, other]), signal.SIGKILL)
        process.communicate(timeout=60)
        wait_until(lambda other=other: not alive(other))
    assert run("ppo", killed).returncode == 0
    assert weights(killed) == weights(whole)
    assert without_clocks(killed) == without_clocks(whole)
    assert last_checkpoint(killed) == last_checkpoint(whole)


def test_when_one_is_killed_the_first_says_so_and_ends(long):
    process, other = at_work(long)
    os.kill(other, signal.SIGKILL)
    _, output = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "shared the work was killed (SIGKILL)" in output
    assert "SIGKILL" in read_error(long)["message"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_nobody_goes_on_without_the_first(long, number):
    process, other = at_work(long)
    process.send_signal(number)
    process.communicate(timeout=60)
    wait_until(lambda: not alive(other), seconds=10)


def test_asked_to_stop_all_stop_after_one_checkpoint(long):
    process, other = at_work(long)
    process.terminate()
    _, output = process.communicate(timeout=60)
    assert process.returncode == 143
    assert output.count("Stopped on request") == 1
    wait_until(lambda: not alive(other), seconds=10)
    assert (long / "checkpoint/manifest.json").exists()
    assert read_error(long)["kind"] == "stopped"
    assert [row["step"] for row in rows_of(long / "metrics.jsonl")] == list(
        range(1, steps_of(long) + 1)
    )


def test_bad_input_is_told_once(ready):
    folder = ready("too many", processes=2, prompts_per_step=500, minibatch_size=250)
    done = run("ppo", folder)
    assert done.returncode == 2
    assert done.stderr.count("fewer than") == 1


def test_a_gpu_is_not_shared_by_forking(ready, monkeypatch):
    monkeypatch.setattr(parallel, "can_fork", lambda: False)
    from rlhf.training import ppo
    from rlhf.training.rundir.errors import InputError
    from rlhf.training.rundir.process import StopRequest

    with pytest.raises(
        InputError, match="processes is 2, and a stage can fork only on the CPU of a Linux"
    ):
        ppo.main(ready("elsewhere", processes=2), StopRequest())


TELL = """
import sys, torch
from rlhf.training.cpu import forked_workers
forked_workers.ARENA_BYTES = 64  # so that every message takes several turns
torch.set_num_threads(1)
size = int(sys.argv[1])
peers = forked_workers.fork(size)
for turn in range(50):
    numbers = torch.arange(100.0) * (peers.rank + 1) + turn
    peers.all_reduce(numbers)
    assert torch.equal(numbers, torch.arange(100.0) * (size * (size + 1) / 2) + turn * size)
    doubles = torch.full((7, 3), 0.1, dtype=torch.float64)
    peers.all_reduce(doubles)
    assert float(doubles[6, 2]) == sum([0.1] * size)
    items = peers.all_gather({"rank": peers.rank, "text": "x" * (turn * peers.rank * 7)})
    assert [t["rank"] for t in items] == list(range(size))
    assert [len(t["text"]) for t in items] == [turn * rank * 7 for rank in range(size)]
    for count in (3, 40):
        parts = [torch.full((count,), float(peers.rank)), torch.ones(2)]
        peers.all_reduce_many(parts)
        sums = torch.cat(parts).tolist()
        assert sums == [size * (size - 1) / 2] * count + [size] * 2
sys.stdout.write(f"all told {peers.rank}" + chr(10))
peers.close()
"""


@pytest.mark.parametrize("size", [2, 3])
def test_what_they_tell_each_other_arrives_whole_and_in_order(size):
    done = subprocess.run(
        [sys.executable, "-c", TELL, str(size)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split("\n"))[-size:] == [f"all told {rank}" for rank in range(size)]
