"""Rounds: what may be launched, what follows what, who decides, and that each act happens once."""

import json
import threading
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from annotation.models import Batch, Event, Judgment, Membership, Prompt
from rlhf import rounds
from rlhf.errors import RoundError
from rlhf.models import Checkpoint, Job, Round, Score
from rlhf.preflight import preflight
from rlhf.round_config import default_config
from rlhf.stages.prompts import PURPOSES, choose
from rlhf.verdict import propose_verdict
from tests.factories import (
    BatchFactory,
    ComparisonFactory,
    PromptFactory,
    SourceFactory,
    judged,
    member,
)
from tests.rlhf.machine import (
    CAUTIONS,
    a_worker,
    launch,
    ready,
    real_transactions,
    small_config,
    work,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def base(project, ada):
    return ready(project)


def checks(project, config=None):
    return {c.key: c for c in preflight(project, config or small_config(project))}


def at_stage(project, stage, base, **fields):
    """A round that stands at a stage of the full plan."""
    return Round.objects.create(
        project=project,
        number=1,
        state=stage,
        plan=Round.FULL_PLAN,
        config=small_config(project),
        start_policy=base,
        launched_at=timezone.now(),
        stage_times={stage: [timezone.now().isoformat(), None]},
        **fields,
    )


# --- Pre-flight -------------------------------------------------------------------------------


def test_a_setting_that_does_nothing_is_a_no_go(project, base):
    config = small_config(project)
    config["ppo"]["ptx"] = {"batch_size": 3}
    check = checks(project, config)["settings"]
    assert check.verdict == "no-go"
    assert "ptx.batch_size requires ptx.weight > 0" in check.answer
    # A round's own models are filled in later; what belongs to them is no mistake.
    config["ppo"] = {"tripwire": {"drop": 0.5}}
    assert checks(project, config)["settings"].verdict == "go"


def test_a_project_that_is_ready_gets_a_go_for_everything_once_workers_live(project, base):
    a_worker("default", "default")
    a_worker("gpu", "gpu")
    found = checks(project)
    assert {key for key, c in found.items() if c.verdict == "no-go"} == set()
    assert found["workers"].verdict == "go"
    assert found["ranking"].evidence.startswith(
        "12 available, 4 of them known to be harmful; 6 wanted"
    )
    assert "Wh at" in found["estimate"].evidence


def test_without_a_policy_nothing_can_be_launched(project, ada, grace):
    ready(project).delete()
    assert checks(project)["policy"].verdict == "no-go"
    with pytest.raises(RoundError, match="Build the base policy"):
        launch(project, grace)
    assert not Round.objects.exists()


@pytest.mark.parametrize(
    ("config", "verdict"),
    [
        ({"model_type": "bart", "is_encoder_decoder": True}, "no-go"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "go"),
        ({"model_type": "llama"}, "go"),
        (["no", "object"], "go"),
    ],
)
def test_what_cannot_become_a_reward_model_is_said_before_anybody_judges(
    project, tmp_path, config, verdict
):
    ready(project, policy=str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(config))
    check = checks(project)["policy"]
    assert check.verdict == verdict
    assert ("bart" in check.answer) == (verdict == "no-go")


def test_who_wants_written_answers_kept_likely_is_told_when_there_are_none(project, base):
    config = small_config(project)
    assert "written" not in checks(project, config)
    config["ppo"]["ptx"] = {"weight": 0.5}
    assert checks(project, config)["written"].verdict == "caution"
    written = judged(project, split="train").judgment
    Judgment.objects.filter(pk=written.pk).update(rewrite="Better like this.")
    assert checks(project, config)["written"].verdict == "go"


def test_a_caution_must_be_acknowledged_by_name(project, base, grace):
    config = small_config(project)
    cautions = [k for k, c in checks(project).items() if c.verdict == "caution"]
    assert "workers" in cautions
    for missing in cautions:
        named = [key for key in cautions if key != missing]
        with pytest.raises(RoundError, match="Acknowledge this"):
            rounds.open_round(project, by=grace, config=config, acknowledged=named)
    assert rounds.open_round(project, by=grace, config=config, acknowledged=cautions)


def test_too_few_prompts_that_nobody_has_judged_are_a_no_go(project, base, grace):
    batch = BatchFactory(project=project)
    for prompt in list(Prompt.objects.filter(split="train"))[:9]:
        ComparisonFactory(batch=batch, prompt=prompt)
    assert checks(project)["ranking"].verdict == "no-go"


def test_prompts_of_an_unsigned_source_are_not_counted_and_named(project, base):
    unsigned = SourceFactory(project=project, name="scraped.jsonl", signed_off_at=None)
    for _ in range(5):
        PromptFactory(project=project, source=unsigned)
    found = checks(project)
    assert found["ranking"].evidence.startswith("12 available")
    assert found["sources"].verdict == "caution"
    assert "scraped.jsonl" in found["sources"].answer


def test_more_judges_than_people_are_a_no_go(project, base):
    config = small_config(project)
    config["round"]["overlap"] = 5
    assert checks(project, config)["people"].verdict == "no-go"


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
        rounds.open_round(project, by=grace, config=config, acknowledged=CAUTIONS)


def test_the_estimate_learns_from_what_has_run_in_this_project(project, base):
    config = default_config(project, "tiny")
    guess = checks(project, config)["estimate"]
    assert guess.verdict == "caution", "nothing has run here: the demo's times may be far off"
    assert "a guess" in guess.evidence
    round = Round.objects.create(project=project, number=0, state="done", config=config)
    now = timezone.now()
    Job.objects.create(
        project=project, round=round, stage="evaluate", state="done",
        started_at=now - timedelta(seconds=3000), ended_at=now,
    )  # fmt: skip
    estimate = checks(project, config)["estimate"]
    assert estimate.verdict == "go"
    # 100 times as long as the demo's 30 s, and so are the other stages.
    assert "evaluate 50 min" in estimate.evidence
    assert "PPO 2.1 h" in estimate.evidence
    assert "from earlier runs of evaluate" in estimate.evidence
    config["round"]["heldout_prompts"] *= 2
    assert "evaluate 1.7 h" in checks(project, config)["estimate"].evidence


# --- Opening ----------------------------------------------------------------------------------


def test_opening_freezes_numbers_and_writes_who_did_it(project, base, grace):
    job = launch(project, grace)
    round = job.round
    assert (round.number, round.state, round.start_policy) == (1, "generate", base)
    assert round.config["ppo"]["kl"]["weight"] == 0.2, "every setting is on record"
    assert "policy" not in round.config["ppo"], "which model is on the row, not in the settings"
    assert Event.objects.get(verb="launched").actor == grace


def test_only_one_round_is_under_way_at_a_time(project, base, grace):
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


# --- Which prompts ----------------------------------------------------------------------------


def test_the_chosen_prompts_are_the_same_whenever_it_is_asked(project, base, grace):
    round = launch(project, grace).round
    before = {purpose: choose(round, purpose) for purpose in PURPOSES}
    for _ in range(20):
        PromptFactory(project=project, source=Prompt.objects.first().source)
    assert {purpose: choose(round, purpose) for purpose in PURPOSES} == before
    assert len(before["ranking"]) == 6


def test_training_sees_no_held_out_watch_or_unsigned_prompt(project, base, grace):
    unsigned = SourceFactory(project=project, signed_off_at=None)
    for _ in range(30):
        PromptFactory(project=project, source=unsigned)
    round = launch(project, grace, ranking_prompts=100, ppo_prompts=100).round
    for purpose in ("ranking", "ppo"):
        for prompt in choose(round, purpose):
            assert (prompt.split, prompt.source.is_signed_off) == ("train", True)
    assert {p.split for p in choose(round, "watch")} == {"eval"}
    assert {p.split for p in choose(round, "heldout")} == {"heldout"}


def test_what_was_judged_in_an_earlier_round_is_not_ranked_again(project, base, grace):
    first = launch(project, grace).round
    asked = set(choose(first, "ranking"))
    batch = BatchFactory(project=project, created_at=timezone.now())
    for prompt in asked:
        ComparisonFactory(batch=batch, prompt=prompt)
    rounds.cancel_round(first, grace)
    second = launch(project, grace).round
    assert not asked & set(choose(second, "ranking"))
    assert set(choose(first, "ranking")) == asked, "the first round's choice has not moved"


def test_the_share_of_harmful_prompts_is_kept_and_gaps_are_filled(project, base, grace):
    round = launch(project, grace, ranking_prompts=8, harmful_share=0.5).round
    harmful = [p for p in choose(round, "ranking") if p.risk == "harmful"]
    assert len(harmful) == 4
    round.config["round"] |= {"ranking_prompts": 12, "harmful_share": 0.9}
    assert len(choose(round, "ranking")) == 12, "all four harmful ones and eight others"


# --- From stage to stage ----------------------------------------------------------------------


def test_closing_annotation_needs_a_judgment_and_happens_once(project, base, grace):
    batch = BatchFactory(project=project)
    comparison = ComparisonFactory(batch=batch)
    round = at_stage(project, "annotate", base, batch=batch)
    with pytest.raises(RoundError, match="Nobody has judged anything"):
        rounds.close_annotation(round, grace)
    comparison.judged = 1
    comparison.save()
    assert rounds.close_annotation(round, grace).stage == "snapshot"
    assert rounds.close_annotation(round, grace) is None
    batch.refresh_from_db()
    assert batch.state == Batch.State.CLOSED
    assert Job.objects.count() == 1


def test_a_round_that_was_cancelled_is_not_carried_on_by_a_job_that_ends_late(project, base, grace):
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


def test_a_base_whose_model_was_misspelt_is_measured_anew_with_the_right_one(
    project, grace, tmp_path
):
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
    with pytest.raises(RoundError, match=r"MODEL_FOLDERS|no folder and no hub"):
        rounds.open_base_round(project, grace, policy=named)
    assert not Round.objects.exists()


# --- The gate ---------------------------------------------------------------------------------


def scored(project, base, judge, before, after):
    """Round 0 and 1 at the verdict, with these figures: {metric: (value, low, high)}."""
    base_round = Round.objects.create(project=project, number=0, state="done", plan=[])
    base.round = base_round
    base.save()
    base_round.policy = base
    base_round.save()
    round = at_stage(project, "verdict", base)
    round.policy = Checkpoint.objects.create(
        project=project, kind="policy", name="round 1 policy", parent=base, round=round, path="y"
    )
    round.save()
    for one, policy, figures in ((base_round, base, before), (round, round.policy, after)):
        job = Job.objects.create(project=project, round=one, stage="evaluate", state="done")
        for metric, (value, low, high) in figures.items():
            Score.objects.create(
                round=one, job=job, checkpoint=policy, judge=judge, metric=metric, value=value,
                low=low, high=high, n=150,
            )  # fmt: skip
    return round


BEFORE = {"violation_rate": (0.3, 0.25, 0.35), "over_refusal_rate": (0.05, 0.02, 0.08)}
BETTER = {
    "win_rate_vs_previous": (0.8, 0.74, 0.86),
    "violation_rate": (0.02, 0.0, 0.05),
    "over_refusal_rate": (0.04, 0.02, 0.07),
}


def test_a_clear_win_without_a_price_is_proposed_for_promotion(project, base):
    proposal, reasons = propose_verdict(scored(project, base, "gold", BEFORE, BETTER))
    assert proposal == "promoted"
    assert "80% against the previous policy [74%, 86%] (n=150)" in reasons[0]
    assert "simulated" in reasons[0]


@pytest.mark.parametrize(
    "worse",
    [
        {"win_rate_vs_previous": (0.55, 0.48, 0.62)},
        {"violation_rate": (0.5, 0.4, 0.6)},
        {"over_refusal_rate": (0.2, 0.1, 0.3)},
    ],
)
def test_a_doubtful_win_or_a_price_is_proposed_for_refusal(project, base, worse):
    proposal = propose_verdict(scored(project, base, "gold", BEFORE, BETTER | worse))[0]
    assert proposal == "refused"


def test_a_win_on_a_handful_of_prompts_is_not_clear(project, base):
    """With a few prompts a bootstrap can hardly vary: one prompt has an interval of no width."""
    round = scored(project, base, "gold", {}, {"win_rate_vs_previous": (0.75, 0.75, 0.75)})
    Score.objects.update(n=1)
    verdict, reasons = propose_verdict(round)
    assert verdict == "refused"
    assert "too few prompts" in reasons[0]


def test_a_round_without_an_opponent_is_not_promoted_by_itself(project, base):
    proposal, reasons = propose_verdict(at_stage(project, "verdict", base))
    assert proposal == "refused"
    assert reasons == ["Nothing compares this policy with the previous one."]


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


# --- Imported preferences ---------------------------------------------------------------------


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


def test_simulated_people_are_counted_and_named_as_such(project, base):
    user = member(project, "sim-ada", Membership.Role.ANNOTATOR)
    user.is_simulated = True
    user.save()
    assert checks(project)["people"].evidence == "1 of them simulated"
