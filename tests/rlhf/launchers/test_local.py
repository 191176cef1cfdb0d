"""Launching on this machine: what the program sees."""

import pytest

from rlhf.workers.next_job import run_next_job
from tests.rlhf.machine import (
    launch,
    ready,
    real_transactions,
)

pytestmark = real_transactions


@pytest.fixture
def job(project, grace, ada):
    ready(project)
    return launch(project, grace)


def test_the_process_sees_no_secret_and_no_hub(job, settings, monkeypatch, tmp_path):
    script = "import os, json, sys; json.dump(dict(os.environ), open(sys.argv[1], 'w'))"
    out = tmp_path / "environment.json"

    def command(job, run_dir):
        import sys

        return [sys.executable, "-c", script, str(out)]

    monkeypatch.setenv("SECRET_KEY", "hush")
    run_next_job("gpu", owner="hal", command=command)
    text = out.read_text()
    assert '"HF_HUB_OFFLINE": "1"' in text
    assert "hush" not in text
    assert "DATABASE_URL" not in text
