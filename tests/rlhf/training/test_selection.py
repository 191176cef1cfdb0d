"""An ensemble's disagreement as a stage: what is refused, in one sentence and with exit code 2."""

import pytest

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
