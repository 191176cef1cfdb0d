"""Reward models at chance, or of a handful of updates, hold the round until a person decides."""

import pytest

from annotation.models import Event
from rlhf import rounds
from rlhf.doubts import FEW_UPDATES, doubts_about, expected_updates
from rlhf.errors import RoundError
from rlhf.models import Job, Round
from rlhf.preflight import preflight
from rlhf.training.configs import RewardModelConfig
from rlhf.verdict import propose_verdict
from tests.rlhf.machine import at_stage, small_config

pytestmark = pytest.mark.django_db

NOTE = "It is a rehearsal <b>only</b>."


def figures(accuracy, low, high, n=80):
    return {"accuracy": accuracy, "accuracy_ci": [low, high], "n": n}


def result(*, train=(0.7, 0.6, 0.8), test=(0.66, 0.55, 0.76), updates=20):
    return {
        "train": {"helpfulness": figures(*train), "safety": figures(0.8, 0.7, 0.9)},
        "test": {"helpfulness": figures(*test), "safety": figures(0.8, 0.7, 0.9)},
        "updates": {"train": updates, "test": updates},
    }


AT_CHANCE = result(train=(0.52, 0.42, 0.62))


def test_fine_reward_models_raise_no_doubt():
    assert doubts_about(result()) == []
    older = {k: v for k, v in result().items() if k != "updates"}
    assert doubts_about(older) == []
    assert doubts_about({}) == []


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (AT_CHANCE, "train-RM's helpfulness is not clearly better than chance"),
        (result(test=(0.36, 0.2, 0.49)), "test-RM's helpfulness is not clearly better"),
        (result(train=(0.6, 0.5, 0.7)), "60 % [50, 70 %], n = 80 pairs"),
        (result(updates=1), "trained by 1 update only"),
        (result(updates=FEW_UPDATES - 1), "fewer than 8 hardly move it"),
        (result() | {"test": {"safety": {"accuracy": None, "n": 0}}}, "safety was not measured"),
    ],
)
def test_each_doubt_is_a_sentence_with_its_figures(found, says):
    assert says in " ".join(doubts_about(found))


def test_updates_are_counted_before_the_launch_as_the_stage_counts_them(project, base):
    settings = RewardModelConfig(trunk="t", test_share=0.5, epochs=1, rankings_per_batch=32)
    assert expected_updates(40, settings) == {"train": 1, "test": 1}
    assert expected_updates(360, settings) == {"train": 6, "test": 6}
    [check] = [c for c in preflight(project, small_config(project)) if c.key == "updates"]
    assert check.verdict == "warning"
    assert check.answer.startswith("About 1 update of the train-RM and 1 of the test-RM")
    plenty = small_config(project)
    plenty["reward_model"] |= {"epochs": 20, "rankings_per_batch": 1}
    [check] = [c for c in preflight(project, plenty) if c.key == "updates"]
    assert check.verdict == "go"


def trained(project, base, found, **fields):
    """A round whose reward models have just been trained with this result."""
    round = at_stage(project, "reward_model", base, **fields)
    job = Job.objects.create(
        project=project, round=round, stage="reward_model", state="done", metrics=found
    )
    following = rounds.advance(job)
    round.refresh_from_db()
    return round, following


def test_a_round_with_fine_reward_models_goes_on_by_itself(project, base):
    round, job = trained(project, base, result())
    assert (round.state, job.stage, round.open_hold) == ("ppo", "ppo", None)


def test_a_round_at_chance_waits_until_grace_lets_it_go_on_and_keeps_that_for_good(
    project, base, grace
):
    round, job = trained(project, base, AT_CHANCE)
    assert (round.state, job) == ("reward_model", None)
    assert "helpfulness is not clearly better than chance" in round.open_hold["doubts"][0]
    assert Event.objects.filter(verb="waits for a decision on").exists()
    with pytest.raises(RoundError, match="Say in a sentence why"):
        rounds.continue_in_doubt(round, "  ", grace)
    job = rounds.continue_in_doubt(round, NOTE, grace)
    assert job.stage == "ppo"
    assert rounds.continue_in_doubt(round, "Again.", grace) is None, "sent twice"
    round.refresh_from_db()
    assert (round.state, round.open_hold) == ("ppo", None)
    [hold] = round.holds
    assert (hold["decision"], hold["by"], hold["note"]) == ("continued", str(grace), NOTE)
    assert hold["decided_at"] > hold["at"]
    reason = propose_verdict(round).reasons[-1]
    assert NOTE in reason
    assert str(grace) in reason
    assert "52 %" in reason
    assert round.jobs.filter(stage="ppo").count() == 1


def test_the_reward_models_are_trained_again_with_other_settings_only(project, base, grace):
    round, _ = trained(project, base, AT_CHANCE)
    before = round.config["reward_model"]
    with pytest.raises(RoundError, match="Change a setting"):
        rounds.retrain(round, {"epochs": before["epochs"]}, "", grace)
    with pytest.raises(RoundError, match="members can't be changed here"):
        rounds.retrain(round, {"members": 9}, "", grace)
    with pytest.raises(RoundError, match="epochs must be 1 or more"):
        rounds.retrain(round, {"epochs": 0}, "", grace)
    job = rounds.retrain(round, {"epochs": 7, "rankings_per_batch": 2}, "More updates.", grace)
    assert (job.stage, job.state) == ("reward_model", "queued")
    assert rounds.retrain(round, {"epochs": 9}, "", grace) is None, "sent twice"
    round.refresh_from_db()
    changed = round.config["reward_model"]
    assert changed == before | {"epochs": 7, "rankings_per_batch": 2}
    [hold] = round.holds
    assert hold["note"] == "epochs 1 → 7, rankings_per_batch 8 → 2. More updates."
    Job.objects.filter(pk=job.pk).update(state="done", metrics=result())
    assert rounds.advance(Job.objects.get(pk=job.pk)).stage == "ppo"


def test_a_round_that_waits_can_be_cancelled_and_a_round_without_ppo_never_waits(
    project, base, grace
):
    round, _ = trained(project, base, AT_CHANCE)
    assert rounds.cancel_round(round, grace)
    round.refresh_from_db()
    assert (round.state, round.failed_stage) == ("cancelled", "reward_model")
    assert round.holds[0]["decision"] == "cancelled"
    assert rounds.retry_stage(round, grace).stage == "reward_model"
    Round.objects.all().update(state="cancelled")
    Job.objects.all().delete()
    Round.objects.all().delete()
    alone, _ = trained(project, base, AT_CHANCE)
    Round.objects.filter(pk=alone.pk).update(holds=[], plan=["snapshot", "reward_model"])
    job = alone.jobs.get()
    rounds.advance(job)
    alone.refresh_from_db()
    assert (alone.state, alone.holds) == ("done", [])
