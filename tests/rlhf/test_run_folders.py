"""Run folders: what a later claim resumes from."""

import pytest

from rlhf import job_run, jobs
from rlhf.models import Round
from rlhf.run_folders import input_hash, resume_from_earlier
from rlhf.training import rundir
from rlhf.training.rundir.checkpoints import find_checkpoint, save_checkpoint
from rlhf.training.rundir.files import read_json, write_json
from tests.rlhf.machine import (
    expire,
    launch,
    ready,
    real_transactions,
    work,
)

pytestmark = real_transactions


@pytest.fixture
def job(project, grace, ada):
    ready(project)
    return launch(project, grace)


def test_another_input_does_not_resume_from_the_old_checkpoint(job):
    claimed = jobs.claim("gpu", owner="hal")
    job_run.prepare_run_folder(claimed)
    save_checkpoint(claimed.run_dir, lambda folder: (folder / "step").write_text("30"))
    round = Round.objects.get()
    round.config["generate"]["temperature"] = 0.5
    round.save()
    expire(job)
    assert work("slowly").metrics["first_step"] == 0


def test_a_setting_that_came_with_a_new_version_does_not_cost_the_checkpoint(job):
    """The folder of before lacks the setting: there it was what its default does."""
    claimed = jobs.claim("gpu", owner="hal")
    job_run.prepare_run_folder(claimed)
    save_checkpoint(claimed.run_dir, lambda folder: (folder / "step").write_text("30"))
    config = read_json(claimed.run_dir / rundir.CONFIG)
    del config["dtype"]
    write_json(claimed.run_dir / rundir.CONFIG, config)
    jobs.write(claimed, input_sha256=input_hash(claimed.run_dir))
    expire(job)
    assert work("slowly").metrics["first_step"] == 30


def test_a_folder_with_a_setting_that_no_longer_exists_is_not_resumed(job):
    claimed = jobs.claim("gpu", owner="hal")
    job_run.prepare_run_folder(claimed)
    save_checkpoint(claimed.run_dir, lambda folder: (folder / "step").write_text("30"))
    config = read_json(claimed.run_dir / rundir.CONFIG)
    write_json(claimed.run_dir / rundir.CONFIG, config | {"beams": 4})
    expire(job)
    assert work("slowly").metrics["first_step"] == 0


def test_a_damaged_checkpoint_of_an_earlier_claim_is_passed_over_for_the_one_before(tmp_path):
    for claim, step in (("1", 5), ("2", 9)):
        save_checkpoint(
            tmp_path / claim, lambda folder, step=step: (folder / "step").write_text(str(step))
        )
    (tmp_path / "2" / rundir.CHECKPOINT / "step").write_text("")
    (tmp_path / "3").mkdir()
    resume_from_earlier(tmp_path / "3", [tmp_path / "2", tmp_path / "1"])
    assert (find_checkpoint(tmp_path / "3") / "step").read_text() == "5"
    assert [path.name for path in (tmp_path / "3").iterdir()] == [rundir.CHECKPOINT]
