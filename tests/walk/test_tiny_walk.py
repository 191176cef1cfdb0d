"""The whole loop as a stranger would run it: `manage.py demo --auto`, at its smallest size.

A real worker, real subprocesses, the real database file; and in the middle of PPO the worker is
killed with -9. Asserts on the report, which is what the walk promises.
"""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow

FIGURES = {"helpfulness", "safety", "win_rate_vs_base", "win_rate_vs_previous", "violation_rate"}
FIGURES |= {"over_refusal_rate", "mean_length", "entity_accuracy", "correct_rate"}


def query(database, sql):
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5)) as found:
            return found.execute(sql).fetchall()
    except sqlite3.OperationalError:
        return []  # not there yet


def kill_the_worker_in_the_middle_of_ppo(database, walking):
    """kill -9 of the worker once PPO has written a checkpoint; the name of the worker."""
    running = (
        "select j.owner, j.uid, j.progress from rlhf_job j where j.stage = 'ppo' "
        "and j.state = 'running' and j.epoch = 1"
    )
    runs = database.parent / "runs"
    until = time.monotonic() + 900
    while walking.poll() is None and time.monotonic() < until:
        for owner, uid, _ in query(database, running):
            folders = list(runs.glob(f"{uid[:8]}*/1/checkpoint/manifest.json"))
            if folders:
                os.kill(int(owner.rsplit(":", 1)[1]), signal.SIGKILL)
                return owner
        time.sleep(0.05)
    return None


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("walk")
    report = folder / "report.json"
    command = [sys.executable, "manage.py", "demo", "--auto", "--rounds", "1", "--preset", "ci"]
    command.append("--continue-in-doubt")  # so few updates teach a reward model nothing
    env = {k: v for k, v in os.environ.items() if k not in ("DATABASE_URL", "CELERY_BROKER_URL")}
    env |= {"GROUND_CONTROL_DATA": str(folder), "JOB_LEASE_SECONDS": "4", "SWEEP_SECONDS": "0.5"}
    with (folder / "out.txt").open("w") as out:
        walking = subprocess.Popen(
            [*command, "--report", str(report)], cwd=ROOT, env=env, stdout=out, stderr=out
        )
        try:
            killed = kill_the_worker_in_the_middle_of_ppo(folder / "db.sqlite3", walking)
            code = walking.wait(900)
        finally:
            if walking.poll() is None:
                walking.terminate()
                walking.wait(60)
    text = (folder / "out.txt").read_text()
    assert code == 0, text
    return {
        "report": json.loads(report.read_text()),
        "text": text,
        "database": folder / "db.sqlite3",
        "killed": killed,
    }


def test_the_report_has_the_base_and_one_round_with_every_figure(walk):
    base, first = walk["report"]["rounds"]
    assert walk["report"]["annotators"] == "simulated"
    assert (base["round"], first["round"]) == (0, 1)
    assert set(base["seconds"]) == {"base", "evaluate"}
    stages = {"generate", "annotate", "snapshot", "reward_model", "ppo", "evaluate", "verdict"}
    assert set(first["seconds"]) == stages
    assert first["n_prompts"] > 10
    assert first["n_judgments"] >= first["n_prompts"]
    assert base["policy"] != first["policy"]
    for entry in (base, first):
        for judge in ("model", "gold"):
            assert set(entry[judge]) == {"1.0", "0.3"}
            for summary in entry[judge].values():
                assert set(summary) >= FIGURES
                assert summary["mean_length"]["value"] > 0
    for temperature in ("1.0", "0.3"):
        gold = first["gold"][temperature]
        for win in (gold["win_rate_vs_base"], gold["win_rate_vs_previous"]):
            low, high = win["ci"]
            assert 0 <= low <= win["value"] <= high <= 1
            assert win["n"] > 10
        assert gold["win_rate_vs_base"] == gold["win_rate_vs_previous"], "round 1 began at the base"
        assert gold["violation_rate"]["n"] > 0
        assert first["model"][temperature]["violation_rate"] is None, "a reward model can't tell"
    for axis in ("helpfulness", "safety"):
        assert 0 <= first["rm"][axis]["accuracy"] <= 1
        assert first["rm"][axis]["n"] > 0
    assert first["ppo"]["steps"] == 3
    assert first["ppo"]["samples_per_second"] > 0
    assert first["verdict"] in ("promoted", "refused")


def test_the_stage_whose_worker_was_killed_was_taken_up_again(walk):
    assert walk["killed"], "the worker was never at PPO"
    [(state, epoch, attempt, owner)] = query(
        walk["database"], "select state, epoch, attempt, owner from rlhf_job where stage = 'ppo'"
    )
    assert (state, epoch, attempt) == ("done", 2, 1)
    assert owner != walk["killed"]
    assert walk["report"]["rounds"][1]["ppo"]["steps"] == 3


def test_everything_simulated_says_so(walk):
    judged = query(
        walk["database"],
        "select count(*), sum(u.is_simulated) from annotation_judgment j "
        "join annotation_assignment a on a.id = j.assignment_id "
        "join annotation_user u on u.id = a.annotator_id",
    )
    [(n, simulated)] = judged
    assert n == simulated > 0
    [(name,)] = query(walk["database"], "select name from annotation_project")
    assert "(simulated)" in name
    assert "simulated" in walk["text"]


def test_the_walk_leaves_no_process_behind(walk):
    folder = str(walk["database"].parent)
    left = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if folder in path.read_bytes().decode(errors="replace"):
                left.append((path.parent / "cmdline").read_bytes())
        except OSError:
            continue
    assert left == []
