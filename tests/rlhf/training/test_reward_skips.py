"""Updates of a reward model that are not finite are skipped and counted, and too many end the run."""

import json

import pytest

from rlhf.training import reward_model
from rlhf.training.reward_run import RewardRun
from rlhf.training.rundir.errors import InputError, Stopped
from rlhf.training.rundir.process import StopRequest
from tests.rlhf.training.test_reward_options import opinions
from tests.rlhf.training.tiny import result_of, rows_of, run_folder

HEAVY = 1e39
"""A weight that float32 can't hold: the loss of its batch is not finite."""


def waiting(folder, trunk, *, heavy, **settings):
    """A run of which each ranking of these numbers, by ada, weighs too much."""
    rows, reference = opinions()
    for row in rows:
        if row["annotator"] == "ada" and row["prompt_id"] in {f"p{n}" for n in heavy}:
            row["weight"] = HEAVY
    config = {
        "trunk": trunk, "test_share": 0.5, "epochs": 3, "rankings_per_batch": 2,
        "prior": False, "threads": 1,
    }  # fmt: skip
    return run_folder(folder, config | settings, preferences=rows, reference=reference)


def test_an_update_that_is_not_finite_is_skipped_counted_and_printed(talker, tmp_path, capsys):
    folder = waiting(tmp_path / "run", talker, heavy=[3])
    reward_model.main(folder, StopRequest())
    result = result_of(folder)
    assert result["skipped_updates"] == 3  # once in each epoch
    assert [w for w in result["warnings"] if "3 of" in w and "not finite" in w]
    counts = [row["skipped_updates"] for row in rows_of(folder / "metrics.jsonl")]
    assert counts == sorted(counts)
    assert counts[-1] == 3
    lines = [line for line in capsys.readouterr().out.splitlines() if "skipped, not finite" in line]
    assert len(lines) == 3
    assert "not finite: loss" in lines[0]


def test_a_reward_model_of_which_no_update_was_finite_is_not_saved(talker, tmp_path):
    folder = waiting(tmp_path / "run", talker, heavy=range(14))
    with pytest.raises(InputError, match=r"Of the train-RM not one of the \d+ updates"):
        reward_model.main(folder, StopRequest())
    assert not (folder / "train").exists()
    assert not (folder / "result.json").exists()


def test_a_run_whose_updates_are_never_finite_is_given_up(talker, tmp_path):
    folder = waiting(tmp_path / "run", talker, heavy=range(14), epochs=50)
    with pytest.raises(InputError, match="20 updates in a row of the train-RM were not finite"):
        reward_model.main(folder, StopRequest())
    assert len(rows_of(folder / "metrics.jsonl")) == 20
    assert not (folder / "train").exists()


def test_what_was_left_out_before_a_stop_counts_after_it(talker, tmp_path):
    straight = waiting(tmp_path / "straight", talker, heavy=[3, 5])
    reward_model.main(straight, StopRequest())
    folder = waiting(tmp_path / "stopped", talker, heavy=[3, 5])
    stop, record = StopRequest(), RewardRun.record
    patch = pytest.MonkeyPatch()

    def counting(self, *given, **metrics):
        record(self, *given, **metrics)
        stop.requested = self.step >= 16  # within the second of the two models

    patch.setattr(RewardRun, "record", counting)
    with patch.context(), pytest.raises(Stopped):
        reward_model.main(folder, stop)
    patch.undo()
    assert json.loads((folder / "checkpoint" / "state.json").read_text())["skipped"]
    reward_model.main(folder, StopRequest())
    counted = [result_of(f)["skipped_updates"] for f in (straight, folder)]
    assert counted[0] == counted[1] > 0
    assert result_of(straight)["warnings"] == result_of(folder)["warnings"]
