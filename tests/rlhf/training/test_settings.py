"""Configurations: the file is the exact record, and a wrong one is refused in one sentence."""

import dataclasses
import json

import pytest

from rlhf.training import configs, settings
from rlhf.training.configs import BaseConfig, PPOConfig
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
    return [
        value
        for value in vars(configs).values()
        if isinstance(value, type)
        and issubclass(value, settings.StageConfig)
        and value is not settings.StageConfig
    ]


def needed(config):
    """Something for every setting that has no default."""
    missing = dataclasses.MISSING
    return {f.name: "x" for f in dataclasses.fields(config) if settings.default_of(f) is missing}


def test_every_setting_explains_itself():
    for config in every_config():
        for field in dataclasses.fields(config):
            assert field.metadata.get("help", "").endswith("."), f"{config.__name__}.{field.name}"


MODELS = {"policy": "p", "reference": "p", "reward_model": "r"}
IDLE = {"kl_target": 5.0, "ptx_batch_size": 2}


def test_a_changed_setting_that_does_nothing_is_refused_with_what_to_do_about_it():
    with pytest.raises(settings.IdleError) as refused:
        PPOConfig(**MODELS, **IDLE)
    assert refused.value.reasons == {
        "kl_target": "kl_target belongs to kl_controller 'adaptive', and kl_controller is 'fixed'; "
        "leave it at 6.0 or change kl_controller",
        "ptx_batch_size": "ptx_batch_size belongs to ptx_weight above 0, and ptx_weight is 0.0; leave "
        "it at 64 or change ptx_weight",
    }
    assert str(refused.value) in refused.value.reasons.values()


def test_switching_off_what_is_off_already_is_no_mistake():
    assert PPOConfig(**MODELS, tripwire_evaluations=0).tripwire_evaluations == 0
    with pytest.raises(ValueError, match="tripwire_evaluations belongs to a test_reward_model"):
        PPOConfig(**MODELS, tripwire_evaluations=5)


def test_a_default_may_be_written_out_whatever_the_switches_say():
    written = json.dumps(PPOConfig(**MODELS).to_dict())
    assert json.dumps(PPOConfig.from_dict(json.loads(written)).to_dict()) == written


def test_what_was_stored_is_read_as_it_is_and_put_back_only_by_request():
    stored = PPOConfig.from_dict(MODELS | IDLE, stored=True)
    assert stored.to_dict().items() >= IDLE.items()
    mended = PPOConfig.without_idle(MODELS | IDLE)
    assert mended == MODELS | {"kl_target": 6.0, "ptx_batch_size": 64}
    PPOConfig.from_dict(mended)


def test_what_is_put_back_may_switch_others_off():
    chain = {"kl_weight": 0.0, "kl_controller": "adaptive", "kl_target": 5.0}
    assert set(PPOConfig.idle(MODELS | chain)) == {"kl_controller", "kl_target"}
    PPOConfig.from_dict(PPOConfig.without_idle(MODELS | chain))


def test_a_stage_by_hand_refuses_it_and_a_run_that_was_begun_or_frozen_says_so_and_goes_on(
    tmp_path, monkeypatch, capsys
):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(MODELS | IDLE))
    with pytest.raises(InputError, match=r"config.json: ptx_batch_size belongs to ptx_weight"):
        settings.load(PPOConfig, path)
    monkeypatch.setenv(settings.FROZEN, "1")
    assert settings.load(PPOConfig, path).kl_target == 5.0
    monkeypatch.delenv(settings.FROZEN)
    (tmp_path / "checkpoint").mkdir()
    assert settings.load(PPOConfig, path).kl_target == 5.0
    said = capsys.readouterr().out
    assert said.count("This does nothing here: kl_target belongs to kl_controller") == 2
    assert settings.load(PPOConfig, path, stored=True).kl_target == 5.0
    assert not capsys.readouterr().out


def test_a_policy_that_would_never_learn_or_never_at_its_full_step_size_is_refused():
    PPOConfig(**MODELS, steps=5, critic_warmup_steps=4, warmup_steps=1)
    with pytest.raises(ValueError, match=r"critic_warmup_steps \(5\) must be below steps \(5\)"):
        PPOConfig(**MODELS, steps=5, critic_warmup_steps=5)
    with pytest.raises(ValueError, match=r"warmup_steps \(2\) must not exceed the 1 steps"):
        PPOConfig(**MODELS, steps=5, critic_warmup_steps=4, warmup_steps=2)


@pytest.mark.parametrize("config", every_config(), ids=lambda config: config.__name__)
def test_a_number_that_no_run_could_take_is_refused_in_one_sentence(config):
    for field in dataclasses.fields(config):
        default = settings.default_of(field)
        if type(default) is int:
            for value in (10**30, 10**400, -(10**400), 10**5000):
                with pytest.raises(
                    ValueError, match=rf"^{field.name} must be [\d-]+ or (more|less)"
                ):
                    config(**needed(config), **{field.name: value})
        elif type(default) is float:
            for value in (10**400, -(10**400)):
                with pytest.raises(ValueError, match=rf"^{field.name} must be a number"):
                    config(**needed(config), **{field.name: value})


def test_a_seed_is_at_most_what_every_generator_takes():
    for config in every_config():
        field = config.__dataclass_fields__.get("seed")
        assert field is None or field.metadata["maximum"] == settings.MOST_SEED


def test_a_number_of_thousands_of_digits_is_no_json(tmp_path):
    (tmp_path / "config.json").write_text('{"steps": ' + "9" * 5000 + "}")
    with pytest.raises(InputError, match=r"config.json isn't valid JSON"):
        settings.load(PPOConfig, tmp_path / "config.json")
