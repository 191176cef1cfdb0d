"""Rounds: opening, advancing, deciding, cancelling; each act happens once."""

import json
import threading

import pytest
from django.db import connection

from annotation.models import Batch, Event, Project
from rlhf import rounds
from rlhf.errors import RoundError
from rlhf.model_paths import model_path
from rlhf.models import Checkpoint, Job, Round
from tests.factories import (
    BatchFactory,
    ComparisonFactory,
    PromptFactory,
)
from tests.rlhf.machine import (
    BEFORE,
    BETTER,
    WARNINGS,
    at_stage,
    launch,
    real_transactions,
    scored,
    small_config,
    work,
)

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("section", "name", "value", "says"),
    [
        ("ppo", "kl", {"weight": -1}, "kl.weight must be 0 or more"),
        ("ppo", "stepz", 3, "'stepz' is not a setting"),
        ("generate", "k", 1, "k must be between 2 and 9"),
        ("generate", "k", "four", "k must be a whole number"),
        ("round", "harmful_share", 1.5, "harmful_share must be 1 or less"),
        ("round", "ppo_prompts", "many", "must be a whole number"),
        ("round", "kl_reference", "yesterday", "kl_reference must be one of base, previous"),
        ("round", "moon", "full", "'moon' is not a setting of RoundConfig"),
        ("warp", "speed", 9, "'warp' is not a part"),
    ],
)
def test_an_impossible_setting_is_refused_in_one_sentence(
    project, base, grace, section, name, value, says
):
    config = small_config(project)
    config.setdefault(section, {})[name] = value
    with pytest.raises(RoundError, match=says):
        rounds.open_round(project, by=grace, config=config, acknowledged=WARNINGS)


def test_opening_freezes_numbers_and_writes_who_did_it(project, base, grace):
    job = launch(project, grace)
    round = job.round
    assert (round.number, round.state, round.start_policy) == (1, "generate", base)
    assert round.config["ppo"]["kl"]["weight"] == 0.2, "every setting is on record"
    assert "policy" not in round.config["ppo"], "which model is on the row, not in the settings"
    assert Event.objects.get(verb="launched").actor == grace


def test_only_one_round_runs_at_a_time(project, base, grace):
    launch(project, grace)
    with pytest.raises(RoundError, match="Round 1 is in generate"):
        launch(project, grace)


@real_transactions
def test_of_eight_admins_who_launch_at_once_one_succeeds(project, base, grace):
    gate, errors = threading.Barrier(8), []

    def go():
        gate.wait()
        try:
            launch(project, grace)
        except RoundError as error:
            errors.append(str(error))
        finally:
            connection.close()

    threads = [threading.Thread(target=go) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == 7
    assert (Round.objects.count(), Job.objects.count()) == (1, 1)


def test_closing_annotation_needs_a_judgment_and_happens_once(project, base, grace):
    batch = BatchFactory(project=project)
    comparison = ComparisonFactory(batch=batch)
    round = at_stage(project, "annotate", base, batch=batch)
    with pytest.raises(RoundError, match="There are no judgments yet"):
        rounds.close_annotation(round, grace)
    comparison.judged = 1
    comparison.save()
    assert rounds.close_annotation(round, grace).stage == "snapshot"
    assert rounds.close_annotation(round, grace) is None
    batch.refresh_from_db()
    assert batch.state == Batch.State.CLOSED
    assert Job.objects.count() == 1


def test_a_round_that_was_cancelled_is_not_advanced_by_a_job_that_ends_late(project, base, grace):
    job = launch(project, grace)
    Job.objects.filter(pk=job.pk).update(state=Job.State.RUNNING)
    assert rounds.cancel_round(job.round, grace)
    assert not rounds.cancel_round(job.round, grace), "cancelling twice is cancelling once"
    job.refresh_from_db()
    assert job.cancel_requested_at
    job.state = Job.State.DONE
    assert rounds.advance(job) is None
    assert Round.objects.get().state == Round.State.CANCELLED


def test_the_base_is_promoted_when_it_has_been_measured(project, grace):
    round = Round.objects.create(project=project, number=0, state="evaluate", plan=Round.BASE_PLAN)
    round.policy = Checkpoint.objects.create(
        project=project, kind="policy", name="base", round=round, path="x"
    )
    round.save()
    job = Job.objects.create(project=project, round=round, stage="evaluate", state="done")
    assert rounds.advance(job) is None
    round.refresh_from_db()
    assert round.state == Round.State.DONE
    assert Checkpoint.objects.current_policy(project) == round.policy


def test_asking_for_the_base_twice_makes_one_round(project, grace):
    job = rounds.open_base_round(project, grace, preset_name="ci")
    assert rounds.open_base_round(project, grace, preset_name="ci") == job
    assert (Round.objects.count(), Job.objects.count()) == (1, 1)


def test_without_held_out_prompts_the_base_is_built_and_not_measured(project, grace):
    job = rounds.open_base_round(project, grace, preset_name="ci")
    assert job.round.plan == ["base"]
    assert rounds.open_base_round(project, grace) == job


def test_a_model_by_name_is_ready_at_once_where_there_is_nothing_to_measure_with(project, grace):
    assert rounds.open_base_round(project, grace, policy="org/some-model") is None
    assert Round.objects.get().state == Round.State.DONE
    assert Checkpoint.objects.current_policy(project).path == "org/some-model"


def test_a_model_by_name_is_measured_and_not_built(project, grace):
    PromptFactory(project=project, split="heldout")
    job = rounds.open_base_round(project, grace, policy="org/some-model")
    assert (job.stage, job.round.plan) == ("evaluate", ["evaluate"])
    assert job.round.policy.path == "org/some-model"


def test_a_base_with_a_misspelled_model_is_measured_with_the_right_one(project, grace, tmp_path):
    PromptFactory(project=project, split="heldout")
    job = rounds.open_base_round(project, grace, policy="org/smol-modl")
    rounds.cancel_job(job, grace)
    again = rounds.open_base_round(project, grace, policy=str(tmp_path))
    assert (again.stage, again.round.policy.path) == ("evaluate", str(tmp_path))
    assert Round.objects.count() == 1


def test_a_named_model_takes_the_place_of_a_base_that_could_not_be_built(project, grace):
    job = rounds.open_base_round(project, grace, preset_name="ci")
    rounds.cancel_job(job, grace)
    assert rounds.open_base_round(project, grace, policy="org/some-model") is None
    round = Round.objects.get()
    assert (round.state, round.plan, round.policy.state) == ("done", [], "promoted")
    assert "base" not in round.config


def test_a_folder_that_is_not_there_is_refused_before_anything_is_made(project, grace, tmp_path):
    with pytest.raises(RoundError, match=r"no folder .*/nowhere"):
        rounds.open_base_round(project, grace, policy=f"{tmp_path}/nowhere")
    assert not Round.objects.exists()


@pytest.mark.parametrize(
    "named",
    ["/etc", "/nowhere", "../..", "models/../../etc", "~root", "link", "a\x00b", "/" + "x" * 400],
)
def test_a_project_s_admin_names_no_folder_outside_those_that_are_meant_for_models(
    project, grace, tmp_path, named
):
    (tmp_path / "link").symlink_to("/etc")
    named = str(tmp_path / "link") if named == "link" else named
    with pytest.raises(RoundError, match=r"MODEL_FOLDERS|neither a folder nor"):
        rounds.open_base_round(project, grace, policy=named)
    assert not Round.objects.exists()


def test_a_folder_that_may_not_be_named_answers_the_same_whether_it_exists_or_not(
    project, grace, tmp_path, settings, monkeypatch
):
    settings.MODEL_FOLDERS = [tmp_path / "models"]
    (tmp_path / "present").mkdir()
    monkeypatch.chdir(tmp_path)
    sentences = set()
    for name in ("present", "absent"):
        with pytest.raises(RoundError) as refused:
            rounds.open_base_round(project, grace, policy=f"{tmp_path}/{name}")
        sentences.add(str(refused.value).replace(name, "NAME"))
        # A bare word is a hub's name, whatever lies in the server's folder.
        assert model_path(name, project) == name
    assert len(sentences) == 1


def test_a_project_names_its_own_runs_and_no_other_project_s(project, otto, grace, settings):
    theirs = Project.objects.exclude(pk=project.pk).get()
    for owner, is_own in ((project, True), (theirs, False)):
        base = Round.objects.create(project=owner, number=7, plan=["base"])
        run = Job.objects.create(project=owner, round=base, stage="base").run_dir / "model"
        run.mkdir(parents=True)
        if is_own:
            assert model_path(str(run), project) == str(run.resolve())
        else:
            with pytest.raises(RoundError, match="MODEL_FOLDERS"):
                model_path(str(run), project)
    with pytest.raises(RoundError, match="MODEL_FOLDERS"):
        model_path(str(settings.RUNS_DIR), project)


@pytest.mark.parametrize(
    ("base", "may"), [("/etc", False), ("org/model", True), ("/" + "x" * 5000, False)]
)
def test_the_base_of_adapters_is_asked_about_too(project, tmp_path, base, may):
    folder = tmp_path / "adapters"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    if may:
        assert model_path(str(folder), project) == str(folder.resolve())
    else:
        with pytest.raises(RoundError, match=r"adapters|neither"):
            model_path(str(folder), project)


def test_the_verdict_ends_the_round_and_is_on_record(project, base, grace):
    round = scored(project, base, "gold", BEFORE, BETTER)
    rounds.give_verdict(round, "promoted", "", grace)
    round.refresh_from_db()
    assert (round.state, round.verdict, round.verdict_by) == ("done", "promoted", grace)
    assert Checkpoint.objects.current_policy(project) == round.policy
    with pytest.raises(RoundError, match="not waiting for a verdict"):
        rounds.give_verdict(round, "promoted", "", grace)


def test_deciding_against_the_gate_needs_a_reason(project, base, grace):
    round = scored(project, base, "gold", BEFORE, BETTER)
    with pytest.raises(RoundError, match="say in a note why"):
        rounds.give_verdict(round, "refused", " ", grace)
    rounds.give_verdict(round, "refused", "It calls everybody “dear”.", grace)
    assert Checkpoint.objects.current_policy(project) == base, (
        "the next round starts where this one did"
    )


def test_a_reward_round_asks_nobody_and_takes_only_its_own_project(project, base, grace):
    batch = BatchFactory(project=project, is_imported=True, state=Batch.State.CLOSED)
    job = rounds.open_reward_round(project, [batch], grace)
    assert (job.stage, job.round.plan) == ("snapshot", Round.REWARD_ONLY_PLAN)
    assert job.round.config["round"]["batches"] == [batch.pk]
    foreign = BatchFactory()
    rounds.cancel_round(job.round, grace)
    with pytest.raises(RoundError, match="another project"):
        rounds.open_reward_round(project, [foreign], grace)


@real_transactions
def test_nothing_to_freeze_fails_the_stage_with_the_reason(project, base, grace):
    batch = BatchFactory(project=project, is_imported=True, state=Batch.State.CLOSED)
    rounds.open_reward_round(project, [batch], grace)
    done = work(queue="default")
    assert done.state == Job.State.FAILED
    assert "nothing to freeze" in done.reason
