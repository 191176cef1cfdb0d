"""A round's configuration: one class says what a setting may be, on the page and behind it."""

import dataclasses

import pytest

from rlhf.models import Round, Worker
from rlhf.pages.launch_form import LaunchForm
from rlhf.round_config import (
    LENGTHS,
    NARROWED,
    SECTIONS,
    RoundConfig,
    SettingsError,
    base_config,
    default_config,
    freeze,
    preset,
    proposed_preset,
    with_changes,
)
from tests.rlhf.calibrations import MACHINE

pytestmark = pytest.mark.django_db


def test_the_form_s_limits_are_those_of_the_classes(project):
    form = LaunchForm(project=project, defaults=default_config(project, "tiny"))
    assert len(form.fields) > 80
    for key, field in form.fields.items():
        section, _, name = key.partition(".")
        known = SECTIONS[section].settings()[name]
        low, high = NARROWED.get((section, name), (known.minimum, known.maximum))
        if known.choices:
            assert [value for value, _ in field.choices] == list(known.choices), key
        elif hasattr(field, "min_value"):
            assert (field.min_value, field.max_value) == (low, high), key


def test_every_setting_of_a_round_is_on_the_form_but_what_is_filled_in(project):
    form = LaunchForm(project=project, defaults=default_config(project, "tiny"))
    on_form = {key.partition(".")[2] for key in form.fields if key.startswith("round.")}
    fields = {field.name for field in dataclasses.fields(RoundConfig)}
    assert fields - on_form == {"corpus", "corpus_clean_share", "batches"}


def test_the_largest_overlap_of_the_form_can_be_launched_and_one_more_cannot(project):
    config = default_config(project, "tiny")
    field = LaunchForm(project=project, defaults=config).fields["round.overlap"]
    config["round"]["overlap"] = field.max_value
    assert freeze(config, Round.FULL_PLAN, project).sections["round"].overlap == field.max_value
    config["round"]["overlap"] += 1
    with pytest.raises(SettingsError, match="overlap must be 20 or less"):
        freeze(config, Round.FULL_PLAN, project)


def test_a_frozen_configuration_holds_every_setting_and_no_model(project):
    frozen = freeze({"ppo": {"steps": 3}}, Round.FULL_PLAN, project).to_dict()
    assert frozen["ppo"]["steps"] == 3
    assert frozen["ppo"]["kl"]["weight"] == 0.2
    assert frozen["round"]["overlap"] == project.overlap
    assert "policy" not in frozen["ppo"]
    assert "corpus" not in frozen["round"]


def test_every_section_that_is_wrong_is_named_at_once(project):
    config = {"ppo": {"steps": -1}, "round": {"harmful_share": 2.0}}
    with pytest.raises(SettingsError) as refused:
        freeze(config, Round.FULL_PLAN, project)
    assert set(refused.value.reasons) == {"ppo", "round"}


def test_a_round_of_an_older_version_is_read_with_defaults_for_what_it_lacks(project):
    old = {"round": {"ranking_prompts": 6, "annotators": 5}}
    round = Round.objects.create(project=project, number=1, plan=Round.FULL_PLAN, config=old)
    sizes = RoundConfig.of(round)
    assert (sizes.ranking_prompts, sizes.kl_reference) == (6, "base")
    assert sizes.overlap == project.overlap


def test_a_project_that_asks_more_people_than_a_round_may_is_offered_the_most(project):
    project.overlap = 99
    project.save()
    assert default_config(project, "tiny")["round"]["overlap"] == 20


@pytest.mark.parametrize(
    ("parameters", "kind", "expected", "doubtful"),
    [
        (1_000_000, "cpu", "tiny", False),
        (135_000_000, "cpu", "small-lm", False),
        (135_000_000, "cuda", "small-lm", False),
        (3_000_000_000, "cuda", "small", False),
        (3_000_000_000, "cpu", "small-lm", True),
        (0, "cuda", "small", False),
        (0, "cpu", "small-lm", True),
    ],
)
def test_the_preset_goes_by_the_models_size_and_the_workers_device(
    project, base, parameters, kind, expected, doubtful
):
    Worker.objects.create(name="gpu@hal", queues="gpu", machine=MACHINE | {"kind": kind})
    base.n_parameters = parameters
    base.save()
    proposal = proposed_preset(project)
    assert (proposal.preset, proposal.is_doubtful) == (expected, doubtful)
    assert proposal.reason.startswith(expected)
    steps = preset(expected)["ppo"]["steps"]
    assert default_config(project)["ppo"]["steps"] == steps


def test_a_named_model_is_measured_with_responses_as_long_as_its_rounds(project):
    base = base_config(project, is_named=True)
    small = preset("small-lm")
    assert base["evaluate"]["max_new_tokens"] == small["generate"]["max_new_tokens"]
    assert small["ppo"]["rollout"]["max_new_tokens"] == small["evaluate"]["max_new_tokens"]


def lengths_of(frozen):
    """The longest response of the round and of each stage that samples."""
    flat = {section: frozen.sections[section].flat() for section in ("round", *LENGTHS)}
    return {section: flat[section][LENGTHS.get(section, "max_new_tokens")] for section in flat}


def test_one_longest_response_holds_for_everything_that_a_round_samples(project):
    config = default_config(project, "small")
    form = LaunchForm(project=project, defaults=config)
    assert "round.max_new_tokens" in form.fields
    assert not {f"{section}.{key}" for section, key in LENGTHS.items()} & set(form.fields)
    assert set(lengths_of(freeze(config, Round.FULL_PLAN, project)).values()) == {256}
    changed = with_changes(config, {"round": {"max_new_tokens": 96}})
    assert set(lengths_of(freeze(changed, Round.FULL_PLAN, project)).values()) == {96}


def test_a_stage_with_a_length_of_its_own_is_refused_with_what_to_do(project):
    config = with_changes(default_config(project, "tiny"), {"evaluate": {"max_new_tokens": 48}})
    with pytest.raises(SettingsError, match=r"round 56, evaluate 48\); set round.max_new_tokens"):
        freeze(config, Round.FULL_PLAN, project)
    stages = {"generate": {"max_new_tokens": 48}, "ppo": {"rollout": {"max_new_tokens": 64}}}
    with pytest.raises(SettingsError, match=r"generate 48, ppo 64\)"):
        freeze(stages, Round.FULL_PLAN, project)
    stages["ppo"]["rollout"]["max_new_tokens"] = 48  # alike, so it is the round's
    assert set(lengths_of(freeze(stages, Round.FULL_PLAN, project)).values()) == {48}


def test_the_length_that_the_base_was_measured_with_is_offered_until_somebody_changes_it(project):
    config = base_config(project, length=96)
    assert config["evaluate"]["max_new_tokens"] == 96
    Round.objects.create(project=project, number=0, plan=["evaluate"], config=config)
    offered = default_config(project)
    assert offered["round"]["max_new_tokens"] == 96
    launched = freeze(
        with_changes(offered, {"round": {"max_new_tokens": 128}}), Round.FULL_PLAN, project
    )
    Round.objects.create(project=project, number=1, plan=Round.FULL_PLAN, config=launched.to_dict())
    again = default_config(project)
    assert again["round"]["max_new_tokens"] == 128
    assert set(lengths_of(freeze(again, Round.FULL_PLAN, project)).values()) == {128}


def test_a_round_of_an_older_version_offers_the_length_of_its_evaluation(project):
    old = {
        "round": {"ranking_prompts": 6},
        "generate": {"max_new_tokens": 256},
        "ppo": {"max_new_tokens": 200},
        "evaluate": {"max_new_tokens": 56},
    }
    Round.objects.create(project=project, number=1, plan=Round.FULL_PLAN, config=old)
    offered = default_config(project)
    assert offered["round"]["max_new_tokens"] == 56
    assert set(lengths_of(freeze(offered, Round.FULL_PLAN, project)).values()) == {56}
