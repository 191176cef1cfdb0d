"""A stage that takes more than the operator allows is stopped, and its reason names the limit."""

import os
import pwd
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from rlhf.launchers import limits
from rlhf.models import Job
from rlhf.training import rundir
from rlhf.workers.next_job import run_next_job
from tests.rlhf.machine import launch, ready, real_transactions

pytestmark = real_transactions


@pytest.fixture
def job(project, grace, settings):
    ready(project)
    settings.JOB_STOP_GRACE_SECONDS = 0
    return launch(project, grace)


def run(code, python=sys.executable):
    """The job after its worker ran this code in place of the stage's program."""
    return run_next_job(
        "gpu", owner="hal", command=lambda job, folder: [python, "-c", code, folder]
    )


@pytest.mark.parametrize(
    ("setting", "most", "code"),
    [
        ("STAGE_MAX_HOURS", 0.0002, "import time; time.sleep(60)"),
        (
            "STAGE_MAX_MEMORY_GIB",
            0.15,
            # In a child of its own: what counts is all of the stage's processes together.
            (
                "import subprocess, sys; subprocess.run([sys.executable, '-c', "
                "'import time; x = bytearray(300 * 2**20); time.sleep(60)'])"
            ),
        ),
        ("STAGE_MAX_PROCESSOR_HOURS", 0.0001, "while True: pass"),
        (
            "STAGE_MAX_DISK_GIB",
            0.002,
            (
                "import sys, time; [open(f'{sys.argv[1]}/{n}', 'wb').write(bytes(2**20)) "
                "for n in range(4)]; time.sleep(60)"
            ),
        ),
    ],
)
def test_the_limit_that_is_reached_is_named(job, settings, monkeypatch, setting, most, code):
    monkeypatch.setattr(limits, "DISK_SECONDS", 0.0)
    setattr(settings, setting, most)
    done = run(code)
    assert (done.state, setting in done.reason) == (Job.State.FAILED, True), done.reason
    assert run(code) is None  # and is not tried again


def test_no_file_of_a_stage_grows_beyond_what_its_folder_may_have(job, settings):
    settings.STAGE_MAX_DISK_GIB = 0.001
    settings.JOB_MAX_ATTEMPTS = 1
    done = run("import sys; open(f'{sys.argv[1]}/big', 'wb').write(bytes(2**22))")
    assert done.state == Job.State.FAILED
    assert (done.run_dir / "big").stat().st_size <= 2**21


@pytest.mark.skipif(
    not Path("/usr/bin/python3").exists() or os.geteuid() != 0,
    reason="only root starts programs as somebody else",
)
def test_a_stage_runs_as_the_user_that_the_operator_names(job, settings):
    settings.STAGE_USER = "nobody"
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)  # the test's own folder is closed to others
    settings.RUNS_DIR = folder
    try:
        done = run(
            "import os, sys; print(os.geteuid(), os.getgroups()); "
            "print(sorted(set(os.environ) & {'SECRET_KEY', 'DATABASE_URL'})); "
            "open(f'{sys.argv[1]}/mine', 'w').write('x')",
            python="/usr/bin/python3",
        )
        nobody = pwd.getpwnam("nobody")
        assert (done.run_dir / "mine").stat().st_uid == nobody.pw_uid
        log = (done.run_dir / rundir.LOG).read_text()
        assert f"{nobody.pw_uid} [{nobody.pw_gid}]" in log
        assert "[]" in log
    finally:
        shutil.rmtree(folder)


def test_a_user_that_does_not_exist_is_said_in_a_sentence(job, settings):
    settings.STAGE_USER = "nobody-of-this-name"
    done = run("pass")
    assert done.state == Job.State.FAILED
    assert "STAGE_USER is nobody-of-this-name" in done.reason
