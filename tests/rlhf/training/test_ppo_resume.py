"""A run that is stopped or killed, at any moment, ends with the same bytes."""

import json
import multiprocessing
import os
import random
import signal
import time

import pytest

from rlhf.training import ppo
from rlhf.training.rundir.errors import Stopped
from rlhf.training.rundir.process import StopRequest
from tests.rlhf.training.conftest import finish, stop_after, weights
from tests.rlhf.training.tiny import rows_of, run, start

CLOCKS = {"time", "samples_per_second", "seconds_generate", "seconds_score", "seconds_train"}


def without_clocks(folder):
    return [
        {name: value for name, value in row.items() if name not in CLOCKS}
        for row in rows_of(folder / "metrics.jsonl")
    ]


def last_checkpoint(folder):
    """Adapters or weights, critic, optimizer and best weights as bytes; the state without clocks."""
    folder = folder / "checkpoint"
    state = json.loads((folder / "state.json").read_text())
    state.pop("seconds")
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}, state


@pytest.mark.parametrize(
    "changed",
    [
        {"kl_controller": "adaptive", "kl_horizon": 100.0, "ema_decay": 0.9},
        {"lora_rank": 2, "lora_alpha": 8.0, "ptx_weight": 0.5, "ptx_batch_size": 3},
        {"critic": "model", "temperature": 0.9, "entropy_bonus": 0.01},
        {"dtype": "bfloat16", "lora_rank": 2},
        {"reference_ema": 0.5, "ema_decay": 0.9, "ema_export": "beside"},
        {"reference_ema": 0.5, "lora_rank": 2, "normalise_samples": 200, "max_new_tokens": 40},
    ],
    ids=[
        *("adaptive KL", "LoRA and ptx", "critic of its own", "bfloat16"),
        *("a reference that follows", "adapters that follow, scores measured anew"),
    ],
)
def test_killed_at_random_moments_it_ends_with_the_same_bytes(ready, changed):
    settings = {"steps": 8, "checkpoint_every": 2, "tripwire_evaluations": 9, **changed}
    whole, killed = ready("whole", **settings), ready("killed", **settings)
    began = time.monotonic()
    finish(whole)
    took = time.monotonic() - began
    generator = random.Random(7)
    kills = 0
    context = multiprocessing.get_context("fork")  # a process to kill, without importing all again
    for _ in range(40):
        process = context.Process(target=ppo.main, args=(killed, StopRequest()))
        process.start()
        # Long enough to get past a checkpoint now and then, wherever it then is: loading,
        # sampling, in an update, in the middle of a file. The first may die before its first line.
        process.join(timeout=generator.uniform(0.05, 0.6) * took)
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.join()
        if (killed / "result.json").exists():
            break
    else:
        finish(killed)
    assert kills >= 1
    assert weights(killed) == weights(whole)
    assert without_clocks(killed) == without_clocks(whole)
    assert last_checkpoint(killed) == last_checkpoint(whole)
    assert (killed / "samples.jsonl").read_text() == (whole / "samples.jsonl").read_text()


@pytest.mark.parametrize("stopped_after", [1, 2, 4])
def test_a_stopped_run_ends_with_the_same_bytes_as_one_that_was_not(ready, stopped_after):
    settings = {"steps": 5, "kl_controller": "adaptive", "kl_horizon": 100.0}
    whole, broken = ready("whole", **settings), ready("broken", **settings)
    finish(whole)
    with pytest.raises(Stopped):
        ppo.main(broken, stop_after(broken, stopped_after))
    assert not (broken / "result.json").exists()
    finish(broken)
    assert weights(broken) == weights(whole)
    assert (broken / "samples.jsonl").read_text() == (whole / "samples.jsonl").read_text()
    kept = [
        [row[k] for k in ("step", "reward", "kl", "kl_weight")]
        for row in rows_of(broken / "metrics.jsonl")
    ]
    assert kept == [
        [row[k] for k in ("step", "reward", "kl", "kl_weight")]
        for row in rows_of(whole / "metrics.jsonl")
    ]


def test_kill_9_at_any_moment_and_a_restart_end_with_the_same_bytes(ready):
    settings = {"steps": 40, "checkpoint_every": 3}
    whole, killed = ready("whole", **settings), ready("killed", **settings)
    finish(whole)
    process = start("ppo", killed)
    metrics = killed / "metrics.jsonl"
    while not (metrics.exists() and len(metrics.read_text().splitlines()) >= 5):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert not (killed / "result.json").exists()
    finished = run("ppo", killed)
    assert finished.returncode == 0, finished.stderr
    steps = [row["step"] for row in rows_of(whole / "metrics.jsonl")]
    assert [row["step"] for row in rows_of(metrics)] == steps
    assert weights(killed) == weights(whole)


def test_sigterm_leaves_a_checkpoint_and_exit_code_143(ready):
    folder = ready(steps=2000, checkpoint_every=1000)
    process = start("ppo", folder)
    metrics = folder / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143
    assert json.loads((folder / "error.json").read_text())["kind"] == "stopped"
    assert (folder / "checkpoint" / "manifest.json").exists()
