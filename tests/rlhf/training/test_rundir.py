"""The run folder: what is written is whole, what is torn is ignored, what is wrong is one sentence."""

import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from rlhf.training import rundir
from rlhf.training.rundir.checkpoints import find_checkpoint, save_checkpoint
from rlhf.training.rundir.errors import InputError
from rlhf.training.rundir.files import (
    read_json,
    read_jsonl,
    replace_folder,
    write_json,
    write_jsonl,
)
from rlhf.training.rundir.reports import MetricsWriter, read_error, read_metrics, read_result


def test_metrics_are_read_back_and_a_torn_last_line_is_ignored(tmp_path):
    with MetricsWriter(tmp_path) as metrics:
        metrics.write(1, loss=2.5)
        metrics.write(2, loss=math.nan)
    with (tmp_path / rundir.METRICS).open("ab") as file:
        file.write(b'{"step": 3, "lo\xc3')
    rows = read_metrics(tmp_path)
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 2.5), (2, None)]
    assert read_metrics(tmp_path, after_step=1) == rows[1:]


def test_a_resumed_run_drops_the_steps_that_it_will_write_again(tmp_path):
    with MetricsWriter(tmp_path) as metrics:
        for step in (1, 2, 3):
            metrics.write(step, loss=float(step))
    with (tmp_path / rundir.METRICS).open("a") as file:
        file.write('{"step": 4, "lo')
    with MetricsWriter(tmp_path, resume_after=2) as metrics:
        metrics.write(3, loss=30.0)
    assert [row["loss"] for row in read_metrics(tmp_path)] == [1.0, 2.0, 30.0]


def test_json_with_nan_is_refused_and_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "x.json", {"a": 1})
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "x.json", {"a": math.inf})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1}
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".new")]


def test_a_bad_line_is_named_by_its_number(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "prompts.jsonl").write_text('{"prompt_id": "1"}\n\n{"prompt')
    with pytest.raises(InputError, match=r"data/prompts.jsonl line 3 isn't valid JSON"):
        list(read_jsonl(data / "prompts.jsonl"))
    (data / "prompts.jsonl").write_text('{"prompt_id": "1"}\n{"id": "2"}\n')
    with pytest.raises(InputError, match="line 2 has no field 'prompt_id'"):
        list(read_jsonl(data / "prompts.jsonl", required=["prompt_id"]))


@pytest.mark.parametrize("row", ["9" * 5000, "[" * 100_000])
def test_a_line_that_python_gives_up_on_is_named_too(tmp_path, row):
    (tmp_path / "prompts.jsonl").write_text(f"{{}}\n{row}\n")
    with pytest.raises(InputError, match=r"prompts.jsonl line 2 isn't valid JSON"):
        list(read_jsonl(tmp_path / "prompts.jsonl"))
    (tmp_path / "config.json").write_text(row)
    with pytest.raises(InputError, match=r"config.json isn't valid JSON"):
        read_json(tmp_path / "config.json")


def test_a_line_separator_inside_a_response_does_not_cut_the_line(tmp_path):
    write_jsonl(tmp_path / "r.jsonl", [{"text": "one\u2028two\u0085three"}])
    assert list(read_jsonl(tmp_path / "r.jsonl")) == [{"text": "one\u2028two\u0085three"}]


def test_a_folder_is_put_in_place_whole_or_not_at_all(tmp_path):
    run = tmp_path / "run"

    def write(*texts, dies=False):
        def fill(new):
            for number, text in enumerate(texts):
                (new / f"model-{number}").write_text(text)
            if dies:
                raise KeyboardInterrupt

        return fill

    def inside():
        return {p.name: p.read_text() for p in (run / "policy").iterdir()}

    replace_folder(run / "policy", write("first", "first"))
    with pytest.raises(KeyboardInterrupt):
        replace_folder(run / "policy", write("sec", "", "temporary", dies=True))
    assert inside() == {"model-0": "first", "model-1": "first"}
    replace_folder(run / "policy", write("second"))
    assert inside() == {"model-0": "second"}
    assert [p.name for p in run.iterdir()] == ["policy"]


def _save(run_dir, text):
    save_checkpoint(run_dir, lambda folder: (folder / "weights").write_text(text))


def test_a_checkpoint_without_its_manifest_does_not_exist(tmp_path):
    assert find_checkpoint(tmp_path) is None
    _save(tmp_path, "first")
    (tmp_path / "checkpoint.new").mkdir()
    (tmp_path / "checkpoint.new" / "weights").write_text("half")
    assert (find_checkpoint(tmp_path) / "weights").read_text() == "first"
    _save(tmp_path, "second")
    assert (find_checkpoint(tmp_path) / "weights").read_text() == "second"
    (find_checkpoint(tmp_path) / rundir.MANIFEST).unlink()
    assert find_checkpoint(tmp_path) is None


def changed(folder):
    (folder / "weights").write_text("First")


def cut_short(folder):
    (folder / "weights").write_text("fir")


def taken_away(folder):
    (folder / "weights").unlink()


def half_a_manifest(folder):
    manifest = folder / rundir.MANIFEST
    manifest.write_bytes(manifest.read_bytes()[:20])


@pytest.mark.parametrize(
    ("damage", "file"),
    [
        (changed, "weights"),
        (cut_short, "weights"),
        (taken_away, "weights"),
        (half_a_manifest, "manifest.json"),
    ],
)
def test_a_damaged_checkpoint_is_neither_used_nor_taken_for_none(tmp_path, damage, file):
    _save(tmp_path, "first")
    damage(tmp_path / rundir.CHECKPOINT)
    with pytest.raises(InputError, match=f"checkpoint/{file} .*remove the folder checkpoint to"):
        find_checkpoint(tmp_path)
    # What a process leaves that is killed while it writes the next one changes nothing.
    (tmp_path / "checkpoint.new").mkdir()
    (tmp_path / "checkpoint.new" / "weights").write_text("half")
    with pytest.raises(InputError, match=f"checkpoint/{file} "):
        find_checkpoint(tmp_path)


def test_beside_a_whole_checkpoint_a_damaged_one_does_no_harm(tmp_path):
    _save(tmp_path, "first")
    (tmp_path / rundir.CHECKPOINT).rename(tmp_path / "checkpoint.old")
    _save(tmp_path, "second")
    assert not (tmp_path / "checkpoint.old").exists()
    (tmp_path / rundir.CHECKPOINT).rename(tmp_path / "checkpoint.old")
    _save(tmp_path / "elsewhere", "third")
    (tmp_path / "elsewhere" / rundir.CHECKPOINT).rename(tmp_path / rundir.CHECKPOINT)
    cut_short(tmp_path / rundir.CHECKPOINT)
    assert (find_checkpoint(tmp_path) / "weights").read_text() == "second"
    cut_short(tmp_path / "checkpoint.old")
    with pytest.raises(InputError, match=r"remove the folders checkpoint and checkpoint\.old to"):
        find_checkpoint(tmp_path)


def save_twice_and_die(run_dir, deadline):
    """Two more checkpoints, by a process that is killed before so many acts on the file system."""
    acts = 0

    def dies_before(act):
        def acting(*given, **named):
            nonlocal acts
            acts += 1
            if acts > deadline:
                os._exit(9)
            return act(*given, **named)

        return acting

    def write(folder):
        for number in range(3):
            (folder / f"weights-{number}").write_text(str(number))

    save_checkpoint(run_dir, write)
    for name in ("unlink", "rmdir", "rename", "replace", "mkdir", "fsync"):
        setattr(os, name, dies_before(getattr(os, name)))
    for _ in range(2):
        save_checkpoint(run_dir, write)
    os._exit(0)


def test_killed_before_any_act_of_saving_there_is_a_whole_checkpoint_and_no_alarm(tmp_path):
    """Whatever lies there then, half written or half deleted, is no damage."""
    code, deadline = 9, 0
    while code == 9:
        run_dir = tmp_path / str(deadline)
        process = multiprocessing.get_context("fork").Process(
            target=save_twice_and_die, args=(run_dir, deadline)
        )
        process.start()
        process.join()
        code = process.exitcode
        assert (find_checkpoint(run_dir) / "weights-2").read_text() == "2"
        _save(run_dir, "next")
        assert (find_checkpoint(run_dir) / "weights").read_text() == "next"
        deadline += 1
    assert code == 0
    assert deadline > 20


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
    said = process.communicate(timeout=30)[0]
    assert process.returncode == code
    assert code or "all is done" in said  # what was printed is not lost on this way out
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
