"""Which run folders can go, and which never do."""

import os
from datetime import timedelta
from io import StringIO

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.utils import timezone

from rlhf import pruning
from rlhf.models import Checkpoint, Job
from tests.rlhf.factories import checkpoint, new_job, new_round

pytestmark = pytest.mark.django_db

KIB = b"x" * 1024


def prune(*options):
    output = StringIO()
    call_command("prune_runs", *options, stdout=output)
    return output.getvalue()


def old_job(round, stage, *, epochs=1, **fields):
    """A job that ended a month ago; each of its folders holds one KiB."""
    job = new_job(round, stage, epoch=epochs, **fields)
    Job.objects.filter(pk=job.pk).update(ended_at=timezone.now() - timedelta(days=30))
    for epoch in range(1, epochs + 1):
        folder = job.run_dir.with_name(str(epoch))
        folder.mkdir(exist_ok=True)
        (folder / "samples.jsonl").write_bytes(KIB)
    return job


@pytest.fixture
def first(project):
    return new_round(project, 1)


def test_attempts_before_the_one_that_succeeded_can_go_and_nothing_goes_unasked(first):
    job = old_job(first, "ppo", epochs=3)
    output = prune()
    assert "an earlier attempt of what is done" in output
    assert "2 folders can go, which would free 2.0 KB. Nothing is removed yet" in output
    assert sorted(p.name for p in job.run_dir.parent.iterdir()) == ["1", "2", "3"]
    assert "Removed 2 folders, which freed 2.0 KB" in prune("--delete")
    assert [p.name for p in job.run_dir.parent.iterdir()] == ["3"]
    assert "Nothing can go" in prune("--delete")


def test_what_waits_runs_or_ended_lately_stays(first):
    for state in ("queued", "running"):
        job = new_job(first, "ppo", state=state, epoch=2)
        job.run_dir.with_name("1").mkdir()
    late = new_job(first, "evaluate", epoch=2)
    late.run_dir.with_name("1").mkdir()
    assert "Nothing can go" in prune()
    assert "1 folder can go" in prune("--days", "0"), "only the one that has ended"


def test_a_folder_with_a_model_stays_whatever_else_is_true(first, project):
    job = old_job(first, "ppo", epochs=2)
    model = checkpoint(project, "round-1", round=first, state="refused")
    folder = job.run_dir.with_name("1") / "policy"
    folder.mkdir()
    Checkpoint.objects.filter(pk=model.pk).update(path=str(folder))
    assert "Nothing can go" in prune()


def test_a_stopped_job_goes_once_it_was_tried_again_and_done(first):
    stopped = old_job(first, "ppo", state="cancelled")
    assert "Nothing can go" in prune(), "a retry would go on from it"
    again = old_job(first, "ppo")
    prune("--delete")
    assert not stopped.run_dir.exists()
    assert again.run_dir.exists()


def test_where_a_round_stopped_is_kept_until_a_later_round_has_followed(project):
    stopped = new_round(project, 1, state="cancelled", failed_stage="ppo")
    job = old_job(stopped, "ppo", state="cancelled")
    saved = job.run_dir / "checkpoint"
    saved.mkdir()
    assert "Nothing can go" in prune()
    new_round(project, 2)
    prune("--delete")
    assert not saved.exists()
    assert (job.run_dir / "samples.jsonl").exists(), "its curves and log still have a page"


def test_what_no_job_knows_can_go_and_other_folders_are_none_of_our_business(first):
    job = old_job(first, "ppo")
    folder, other = job.run_dir.parent, settings.RUNS_DIR / "serving"
    other.mkdir()
    job.delete()
    for path in (folder, other):
        os.utime(path, (0, 0))
    assert "no job in this database belongs to it" in prune("--delete")
    assert not folder.exists()
    assert other.exists()


def test_a_file_that_is_linked_from_a_folder_that_stays_frees_nothing(first):
    job = old_job(first, "ppo", epochs=2)
    (job.run_dir / "policy").write_bytes(KIB)
    (job.run_dir.with_name("1") / "policy").hardlink_to(job.run_dir / "policy")
    (folder,) = pruning.unneeded_folders(older_than=timedelta(days=7))
    assert pruning.freed_bytes([folder.path]) == 1024, "the samples, not the model"


def test_an_interrupted_removal_is_finished_by_the_next(first):
    job = old_job(first, "ppo")
    half = job.run_dir.with_name(f"1{pruning.PRUNED}")
    half.mkdir()
    assert "interrupted" in prune("--delete")
    assert not half.exists()


def test_an_impossible_age_is_refused():
    with pytest.raises(CommandError, match="between 0 and"):
        prune("--days", "-1")
