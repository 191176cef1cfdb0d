"""The log of a stage: stamped lines of every attempt, kept when folders are pruned."""

import re
import subprocess
import sys
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from rlhf import job_run, pruning
from rlhf.models import Job
from rlhf.run_folders import kept_log
from rlhf.stage_logs import LINE_CHARS, SHOWN, log_files, search_log
from rlhf.training import rundir
from rlhf.training.rundir import log
from tests.rlhf.factories import new_job
from tests.rlhf.pages.browsing import page, text_of

pytestmark = pytest.mark.django_db
STAMPED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (INFO|WARNING|ERROR) +\S")

STAGE = """
import logging, warnings
from rlhf.training.rundir import log
from rlhf.training.rundir.process import run_stage
from rlhf.training.rundir.reports import Progress, write_result

def main(run_dir, stop):
    progress = Progress(run_dir)
    progress.phase("loading the policy")
    for step in (1, 2):
        progress.of_run(step, 2, "steps", f"reward +0.{step}")
    log.warning("left out: Prompt p17 is too long.")
    warnings.warn("a library's warning")
    logging.getLogger("a.library").error("two\\nlines")
    if (run_dir / "broken").exists():
        raise ValueError("surprise")
    write_result(run_dir, {"steps": 2, "kl": 1.5})

run_stage(main)
"""


def _run(folder):
    ended = subprocess.run(
        [sys.executable, "-c", STAGE, str(folder)], capture_output=True, text=True, check=False
    )
    return (ended.stdout + ended.stderr).splitlines()


def test_a_stage_says_what_it_does_in_stamped_lines_and_so_do_libraries_and_errors(tmp_path):
    lines = _run(tmp_path)
    assert all(STAMPED.match(line) for line in lines), lines
    text = "\n".join(lines)
    for said in (
        "INFO    loading the policy",
        "INFO    steps 2 of 2: reward +0.2",
        "WARNING left out: Prompt p17",
        "a library's warning",
        "ERROR   a.library: two",
        "INFO    result: steps 2, kl 1.5",
        "done in",
    ):
        assert said in text, said
    (tmp_path / rundir.RESULT).unlink()
    (tmp_path / "broken").touch()
    lines = _run(tmp_path)
    assert any("ERROR   ValueError: surprise" in line for line in lines)
    assert all(STAMPED.match(line) for line in lines), "the traceback as well"


def test_the_log_of_every_attempt_is_read_searched_and_downloaded(
    client, mission, project, rita, otto
):
    second = mission["rounds"][2]
    first = second.jobs.get(stage="generate")
    log.append(first.run_dir, "loading the policy")
    log.append(first.run_dir, "left out: Prompt p17 <script>", "WARNING")
    retried = new_job(second, "generate")
    (retried.run_dir / rundir.LOG).write_bytes(
        b"50%\rno stamp \x1b[31m" + b"x" * (2 * LINE_CHARS) + b"\n" * (SHOWN + 5) + b"\xff\n"
    )
    client.force_login(rita)
    body = text_of(page(client, "stage_log", project.slug, 2, "generate"))
    assert "2 attempts" in body
    assert f"the last {SHOWN:,} of them" in body
    warned = text_of(page(client, "stage_log", project.slug, 2, "generate", level="WARNING"))
    assert "1 of" in warned
    assert "p17 &lt;script&gt;" in warned
    found = text_of(page(client, "stage_log", project.slug, 2, "generate", q="POLICY load"))
    assert "loading the policy" in found
    assert "p17" not in found
    none = text_of(page(client, "stage_log", project.slug, 2, "generate", q="nowhere"))
    assert "No line matches" in none
    assert "No log yet" in text_of(page(client, "stage_log", project.slug, 2, "annotate"))
    assert page(client, "stage_log", project.slug, 2, "nonsense").status_code == 404
    file = client.get(reverse("stage_log_text", args=[project.slug, 2, "generate"]))
    text = b"".join(file.streaming_content).decode()
    assert text.startswith("=== attempt 1 of 2 ===\n2")
    assert "\x1b" not in text
    client.force_login(otto)
    assert page(client, "stage_log", project.slug, 2, "generate").status_code == 404


def test_pruning_removes_folders_and_keeps_what_their_stages_said(mission):
    job = mission["rounds"][2].jobs.get(stage="evaluate")
    log.append(job.run_dir, "the first claim")
    later = job.run_dir.with_name("2")
    later.mkdir()
    log.append(later, "the second claim")
    Job.objects.filter(pk=job.pk).update(epoch=2, ended_at=timezone.now() - timedelta(days=400))
    pruning.remove(pruning.unneeded_folders(older_than=timedelta(days=30)))
    assert not job.run_dir.exists()
    assert kept_log(job.run_dir).is_file()
    found = search_log(log_files(job.round, "evaluate"))
    assert [line.text for line in found.lines] == ["the first claim", "the second claim"]


def test_a_worker_writes_down_its_claim_and_how_it_ended(mission):
    job = mission["running"]
    job.owner = "gpu@lab"
    outcome = job_run.outcome_of_error(job, ValueError("surprise"))
    job_run._log_outcome(job, outcome)
    text = (job.run_dir / rundir.LOG).read_text()
    assert "ERROR   ValueError: surprise" in text
    assert "WARNING ppo of Round 3: queued: ValueError: surprise" in text
