"""Configurations: the file is the exact record, and a wrong one is refused in one sentence."""

import json

import pytest

from rlhf.training import configs
from rlhf.training.configs import BaseConfig
from rlhf.training.rundir import InputError


def test_a_saved_configuration_is_read_back_equal(tmp_path):
    config = BaseConfig(seed=7, learning_rate=1)
    configs.save(config, tmp_path / "config.json")
    assert configs.load(BaseConfig, tmp_path / "config.json") == config
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
        configs.load(BaseConfig, tmp_path / "config.json")


def test_a_missing_configuration_says_so(tmp_path):
    with pytest.raises(InputError, match=r"config.json is missing from the run folder."):
        configs.load(BaseConfig, tmp_path / "config.json")


def test_every_setting_explains_itself():
    import dataclasses

    for name, value in vars(configs).items():
        if dataclasses.is_dataclass(value):
            for field in dataclasses.fields(value):
                assert field.metadata.get("help", "").endswith("."), f"{name}.{field.name}"
