"""Configurations: the file is the exact record, and a wrong one is refused in one sentence."""

import json
from collections import Counter

import pytest

from rlhf.training import configs, settings
from rlhf.training.configs import BaseConfig, PPOConfig
from rlhf.training.configs.ppo_groups import KLSettings, PTXSettings, TripwireSettings
from rlhf.training.rundir.errors import InputError


def test_a_saved_configuration_is_read_back_equal(tmp_path):
    config = BaseConfig(seed=7, learning_rate=1)
    settings.save(config, tmp_path / "config.json")
    assert settings.load(BaseConfig, tmp_path / "config.json") == config
    assert json.loads((tmp_path / "config.json").read_text())["learning_rate"] == 1.0


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"sed": 1}', "config.json: 'sed' is not a setting of BaseConfig."),
        ('{"batch_size": 0}', "config.json: batch_size must be 1 or more, got 0."),
        ('{"seed": true}', "config.json: seed must be a whole number, got True."),
        ('{"seed": 1.5}', "config.json: seed must be a whole number, got 1.5."),
        ('{"learning_rate": NaN}', "config.json: learning_rate must be a number, got nan."),
        ('{"hidden_size": 130}', r"heads \(4\) must divide hidden_size \(130\)."),
        ("[]", "config.json must hold a JSON object."),
        ("{", "config.json isn't valid JSON"),
    ],
)
def test_a_wrong_configuration_is_refused_in_one_sentence(tmp_path, content, says):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=says):
        settings.load(BaseConfig, tmp_path / "config.json")


def test_a_missing_configuration_says_so(tmp_path):
    with pytest.raises(InputError, match=r"config.json is missing from the run folder; put"):
        settings.load(BaseConfig, tmp_path / "config.json")


def every_config():
    """The configuration classes of all stages."""
    return list(configs.CONFIGS.values())


def needed(config):
    """Something for every setting that has no default."""
    return {key: "x" for key, known in config.settings().items() if known.is_required}


def test_every_setting_explains_itself():
    for config in every_config():
        for key, known in config.settings().items():
            assert known.help.endswith("."), f"{config.__name__}.{key}"


def test_no_group_of_settings_has_more_than_twelve():
    sizes = Counter(known.group for known in PPOConfig.settings().values())
    assert max(sizes.values()) <= 12


MODELS = {"policy": "p", "reference": "p", "reward_model": "r"}
IDLE = {"kl": {"target": 5.0}, "ptx": {"batch_size": 2}}


def test_a_changed_setting_that_does_nothing_is_refused_with_what_to_do_about_it():
    with pytest.raises(settings.IdleError) as refused:
        PPOConfig(**MODELS, kl=KLSettings(target=5.0), ptx=PTXSettings(batch_size=2))
    assert refused.value.reasons == {
        "kl.target": "kl.target requires kl.controller = adaptive, and kl.controller is 'fixed'; "
        "leave it at 6.0 or change kl.controller",
        "ptx.batch_size": "ptx.batch_size requires ptx.weight > 0, and ptx.weight is 0.0; leave it at "
        "64 or change ptx.weight",
    }
    assert str(refused.value) in refused.value.reasons.values()


def test_switching_off_what_is_off_already_is_no_mistake():
    config = PPOConfig(**MODELS, tripwire=TripwireSettings(evaluations=0))
    assert config.tripwire.evaluations == 0
    with pytest.raises(ValueError, match=r"tripwire\.evaluations requires test_reward_model"):
        PPOConfig(**MODELS, tripwire=TripwireSettings(evaluations=5))


def test_a_default_may_be_written_out_whatever_the_switches_say():
    written = json.dumps(PPOConfig(**MODELS).to_dict())
    assert json.dumps(PPOConfig.from_dict(json.loads(written)).to_dict()) == written


def test_what_was_stored_is_read_as_it_is_and_put_back_only_by_request():
    stored = PPOConfig.from_dict(MODELS | IDLE, stored=True)
    assert (stored.kl.target, stored.ptx.batch_size) == (5.0, 2)
    repaired = PPOConfig.without_idle(MODELS | IDLE)
    assert repaired == MODELS | {"kl": {"target": 6.0}, "ptx": {"batch_size": 64}}
    PPOConfig.from_dict(repaired)


def test_what_is_put_back_may_switch_others_off():
    chain = {"kl.weight": 0.0, "kl.controller": "adaptive", "kl.target": 5.0}
    assert set(PPOConfig.idle(MODELS | chain)) == {"kl.controller", "kl.target"}
    PPOConfig.from_dict(PPOConfig.without_idle(MODELS | chain))


def test_a_stage_by_hand_refuses_it_and_a_run_that_was_begun_or_frozen_says_so_and_goes_on(
    tmp_path, monkeypatch, capsys
):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(MODELS | IDLE))
    with pytest.raises(InputError, match=r"config.json: kl.target requires kl.controller"):
        settings.load(PPOConfig, path)
    monkeypatch.setenv(settings.FROZEN, "1")
    assert settings.load(PPOConfig, path).kl.target == 5.0
    monkeypatch.delenv(settings.FROZEN)
    (tmp_path / "checkpoint").mkdir()
    assert settings.load(PPOConfig, path).kl.target == 5.0
    printed = capsys.readouterr().out
    assert printed.count("This has no effect here: kl.target requires kl.controller") == 2
    assert settings.load(PPOConfig, path, stored=True).kl.target == 5.0
    assert not capsys.readouterr().out


def test_a_policy_that_would_never_learn_or_never_at_its_full_learning_rate_is_refused():
    def config(**changes):
        return PPOConfig.from_dict(MODELS | {"steps": 5} | changes)

    config(critic={"warmup_steps": 4}, optimizer={"warmup_steps": 1})
    with pytest.raises(ValueError, match=r"critic.warmup_steps \(5\) must be below steps \(5\)"):
        config(critic={"warmup_steps": 5})
    with pytest.raises(ValueError, match=r"warmup_steps \(2\) must not exceed the 1 steps"):
        config(critic={"warmup_steps": 4}, optimizer={"warmup_steps": 2})


# --- Groups, and the keys of earlier versions -------------------------------------------------

FLAT = {"kl_weight": 0.3, "critic": "model", "rules": {"too_short": 1.0}, "normalise_samples": 16}
NESTED = {
    "kl": {"weight": 0.3},
    "critic": {"kind": "model"},
    "rule_rewards": {"weights": {"too_short": 1.0}},
    "reward": {"normalize_samples": 16},
}


def test_a_config_json_of_an_earlier_version_is_read_as_the_same_configuration(tmp_path):
    (tmp_path / "flat.json").write_text(json.dumps(MODELS | FLAT))
    (tmp_path / "nested.json").write_text(json.dumps(MODELS | NESTED))
    flat, nested = (
        settings.load(PPOConfig, tmp_path / f"{name}.json") for name in ("flat", "nested")
    )
    assert flat == nested
    assert nested.critic.kind == "model"
    dotted = {f"{group}.{name}": v for group, table in NESTED.items() for name, v in table.items()}
    assert PPOConfig.from_dict(MODELS | dotted) == nested


def test_every_key_of_an_earlier_version_has_a_place_and_every_setting_in_a_group_had_a_key():
    flat = {old: key for old, key in PPOConfig.OLD_KEYS.items() if "." not in old}
    assert len(flat) == len(set(flat.values()))
    in_groups = {key for key in PPOConfig.settings() if "." in key}
    assert set(flat.values()) == in_groups
    assert set(PPOConfig.OLD_KEYS.values()) == in_groups


@pytest.mark.parametrize(
    "before",
    [
        {"microbatch_tokens": 90},
        {"optimizer.microbatch_tokens": 90},
        {"optimizer": {"microbatch_tokens": 90}},
    ],
    ids=["flat", "dotted", "in its group"],
)
def test_a_setting_of_a_group_that_was_renamed_is_read_under_its_earlier_name(before):
    assert PPOConfig.from_dict(MODELS | before).optimizer.tokens_per_pass == 90


def test_changes_win_over_what_was_there_whichever_way_they_are_written():
    for change in ({"kl_weight": 0.1}, {"kl.weight": 0.1}, {"kl": {"weight": 0.1}}):
        merged = PPOConfig.merged(MODELS | {"kl": {"weight": 0.5, "budget": 9.0}}, change)
        assert merged == MODELS | {"kl": {"weight": 0.1, "budget": 9.0}}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"kl": {"wieght": 1.0}}, "'kl.wieght' is not a setting of PPOConfig"),
        ({"kl": 3.0}, "'kl' is not a setting of PPOConfig"),
        ({"kl_weight": 1.0, "kl": {"weight": 1.0}}, "kl.weight is given twice"),
        ({"kl": {"weight": -1.0}}, "kl.weight must be 0 or more, got -1"),
        ({"critic": {"kind": "both"}}, "critic.kind must be one of head, model, got 'both'"),
    ],
)
def test_a_wrong_setting_in_a_group_is_named_by_its_place(values, says):
    with pytest.raises(ValueError, match=f"^{says}$"):
        PPOConfig.from_dict(MODELS | values)


# --- Numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("config", every_config(), ids=lambda config: config.__name__)
def test_a_number_that_no_run_could_take_is_refused_in_one_sentence(config):
    for key, known in config.settings().items():
        if type(known.default) is int:
            for value in (10**30, 10**400, -(10**400), 10**5000):
                with pytest.raises(ValueError, match=rf"^{key} must be [\d-]+ or (more|less)"):
                    config.from_dict(needed(config) | {key: value})
        elif type(known.default) is float:
            for value in (10**400, -(10**400)):
                with pytest.raises(ValueError, match=rf"^{key} must be a number"):
                    config.from_dict(needed(config) | {key: value})


def test_a_seed_is_at_most_what_every_generator_takes():
    for config in every_config():
        known = config.settings().get("seed")
        assert known is None or known.maximum == settings.MOST_SEED


def test_a_number_of_thousands_of_digits_is_no_json(tmp_path):
    (tmp_path / "config.json").write_text('{"steps": ' + "9" * 5000 + "}")
    with pytest.raises(InputError, match=r"config.json isn't valid JSON"):
        settings.load(PPOConfig, tmp_path / "config.json")


def test_rewards_of_fewer_than_eight_responses_are_not_whitened():
    few = {"prompts_per_step": 7, "minibatch_size": 7, "whiten_rewards": True}
    with pytest.raises(ValueError, match="needs 8 responses"):
        PPOConfig.from_dict({"policy": "p", "reference": "p", "reward_model": "r", **few})
