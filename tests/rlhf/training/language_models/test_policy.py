"""A prompt that does not fit the model's context stops a stage, or is left out and counted."""

import json

import pytest
import torch

from rlhf.training.data import Prompt
from rlhf.training.language_models.policy import load_policy
from rlhf.training.rundir.errors import InputError
from tests.rlhf.training.conftest import finish


def prompt(name, text):
    return Prompt(name, [{"role": "user", "content": text}])


@pytest.fixture
def policy(talker):
    return load_policy(str(talker), "policy", device=torch.device("cpu"))


def test_refuse_names_the_prompt_and_leave_out_continues_without_it(policy, capsys):
    prompts = [prompt("short", "paint the lamp"), prompt("long", "lamp " * 5000)]
    with pytest.raises(InputError, match=r"Prompt long has \d+ tokens"):
        policy.encode_fitting(prompts, room=8, long_prompts="refuse")
    kept, encoded = policy.encode_fitting(prompts, room=8, long_prompts="leave_out")
    assert [p.prompt_id for p in kept] == ["short"]
    assert len(encoded) == 1
    assert "left out: Prompt long" in capsys.readouterr().out


def test_when_none_fits_it_stops_all_the_same(policy):
    with pytest.raises(InputError, match="No prompt fits"):
        policy.encode_fitting([prompt("long", "lamp " * 5000)], room=8, long_prompts="leave_out")


def test_ppo_stops_at_it_or_trains_without_it_as_its_configuration_says(ready):
    strict, lenient = ready("strict"), ready("lenient", long_prompts="leave_out")
    for folder in (strict, lenient):
        with (folder / "data" / "prompts.jsonl").open("a") as file:
            row = {"prompt_id": "endless", "risk": "", "category": "", "messages": []}
            row["messages"] = [{"role": "user", "content": "lamp " * 5000}]
            file.write(json.dumps(row) + "\n")
    with pytest.raises(InputError, match="Prompt endless"):
        finish(strict)
    assert finish(lenient)["steps"] == 2
