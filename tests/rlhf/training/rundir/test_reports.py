"""Metrics: what is torn is ignored, and a resumed run writes no step twice."""

import math

from rlhf.training import rundir
from rlhf.training.rundir.reports import MetricsWriter, read_metrics


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
