"""An ensemble's disagreement as a stage: what is refused, in one sentence and with exit code 2."""

import pytest

from rlhf.training import selection
from tests.rlhf.training.tiny import ask, run, run_folder


def row(**changes):
    return {"comparison_id": "7", "messages": ask("paint"), "responses": ["yes", "no"]} | changes


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "has no comparisons"),
        ([row(responses="yes")], "line 1: responses must be a list of texts"),
        ([row(), row(age=-1)], "line 2: age must be a whole number, 0 or more, got -1"),
        ([row()], "does not exist"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_line(tmp_path, rows, words):
    folder = run_folder(tmp_path / "run", {"reward_model": "nowhere"}, comparisons=rows)
    finished = run("selection", folder)
    assert finished.returncode == 2
    assert words in finished.stderr
    assert not (folder / "result.json").exists()


def test_what_would_teach_three_times_as_much_comes_first_three_times_as_often():
    times = 4_000
    first = sum(
        3.0 / selection.exponential(f"rewards {i}", "much")
        > 1.0 / selection.exponential(f"rewards {i}", "little")
        for i in range(times)
    )
    assert first / times == pytest.approx(0.75, abs=0.03)
