"""A checkpoint is used if it is whole, and otherwise an error."""

import multiprocessing
import os

import pytest

from rlhf.training import rundir
from rlhf.training.rundir.checkpoints import find_checkpoint, save_checkpoint
from rlhf.training.rundir.errors import InputError


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


def test_a_damaged_checkpoint_does_no_harm_next_to_a_whole_one(tmp_path):
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
