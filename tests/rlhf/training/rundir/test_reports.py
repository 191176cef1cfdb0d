"""Metrics: what is torn is ignored, and a resumed run writes no step twice."""

import math

from rlhf.training import rundir
from rlhf.training.rundir.reports import MetricsWriter, Progress, read_metrics, read_progress


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


def test_a_phase_is_shown_as_it_begins_and_then_at_most_once_a_second(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("rlhf.training.rundir.reports.time.monotonic", lambda: now[0])
    progress = Progress(tmp_path)
    progress.phase("loading the models")
    assert read_progress(tmp_path)["note"] == "loading the models"
    assert read_progress(tmp_path)["total"] == 0, "how much there is to do is not known"
    now[0] += 5
    report = progress.phase("sampling", 40, "prompts")
    now[0] += 0.5
    report(3.7)
    assert read_progress(tmp_path)["done"] == 0
    now[0] += 0.5
    report(10.4)
    shown = read_progress(tmp_path)
    assert (shown["done"], shown["total"], shown["unit"]) == (10, 40, "prompts")
    assert shown["eta_seconds"] == 2.8
    now[0] += 9
    progress.of_run(2, 14, "updates", "train-RM", 60.0)
    now[0] += 9
    progress.phase("update 3", unit="passes")(4, 9)
    now[0] += 9
    progress.phase("update 3", unit="passes")
    assert read_progress(tmp_path)["done"] == 2
    now[0] += 9
    progress.phase("scoring", unit="texts")
    now[0] += 1
    progress.phase("scoring", unit="texts")(4, 9)
    shown = read_progress(tmp_path)
    assert (shown["done"], shown["total"], shown["eta_seconds"]) == (2, 14, 60.0)
    progress.of_run(14, 14, "updates")
    assert read_progress(tmp_path)["done"] == 14, "the end is always written"
    silent = Progress(tmp_path / "nowhere", writes=False)
    silent.phase("sampling")
