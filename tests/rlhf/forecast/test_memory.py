"""The memory and disk of a round, by part."""

import pytest

from rlhf.computing_cost import sections_of
from rlhf.forecast.memory import disk_parts, footprint, stage_needs
from rlhf.forecast.work import Counts, Lengths
from rlhf.training.model_files import ModelShape
from tests.rlhf.calibrations import FIGURES

SHAPE = ModelShape(**FIGURES["model"])
COUNTS = Counts(ranking=40, comparisons=40, ppo=40, watch=5, heldout=20)
LENGTHS = Lengths(50.0, 0.01)
SMALL = {
    "generate": {"k": 4, "max_new_tokens": 48},
    "reward_model": {"rankings_per_batch": 32, "max_length": 1024, "prior": False},
    "ppo": {"lora": {"rank": 16}, "rollout": {"max_new_tokens": 48}},
    "evaluate": {"max_new_tokens": 48},
}


def needs(config=SMALL, measured=FIGURES):
    unit = footprint(SHAPE, is_half=False, measured=measured)
    return {n.stage: n for n in stage_needs(sections_of(config), COUNTS, LENGTHS, unit)}


def reward_model(**changes):
    changed = SMALL | {"reward_model": SMALL["reward_model"] | changes}
    return needs(changed)["reward_model"]


def test_a_batch_of_rankings_needs_the_memory_of_one_pass_however_large_it_is():
    """20 comparisons of four short answers took 15.7 GB with a model of this size in one pass."""
    need = reward_model()
    assert need.total < 4.3e9
    assert reward_model(rankings_per_batch=1000).total == need.total
    assert reward_model(rankings_per_batch=1, max_length=64).total < need.total
    assert "tokens_per_pass" in need.remedy
    in_one = reward_model(tokens_per_pass=1_000_000)
    assert in_one.largest == "activations"
    assert in_one.total > 12e9


def test_training_all_weights_needs_gradients_moments_and_a_reference():
    lora = needs()["ppo"]
    full = needs(SMALL | {"ppo": {"rollout": {"max_new_tokens": 48}}})["ppo"]
    assert full.parts["policy with gradients and optimizer"] == 16 * 135e6
    assert lora.parts["policy with gradients and optimizer"] < 6 * 135e6
    assert full.total > lora.total


def test_without_a_measurement_activations_are_arithmetic():
    one_pass = SMALL | {"reward_model": SMALL["reward_model"] | {"tokens_per_pass": 1_000_000}}
    need = needs(one_pass, measured=None)["reward_model"]
    tokens = 32 * (256 + 4 * 48)
    assert need.parts["activations"] == pytest.approx(tokens * 16 * 4 * 30 * 576)


def test_a_rounds_disk_is_its_policy_its_reward_models_and_checkpoints():
    parts = disk_parts(sections_of(SMALL), SHAPE, is_half=False)
    assert parts["policy"] == 4 * 135e6
    assert parts["reward models"] == 2 * 4 * 135e6, "two trunks, no prior"
    kept = parts["policy"] + parts["reward models"]
    assert 1.5e9 < kept < 1.8e9, "a round of this model left 1.6 GB"
    with_prior = SMALL | {"reward_model": {"prior": True}}
    assert disk_parts(sections_of(with_prior), SHAPE, is_half=False)["reward models"] == 16 * 135e6
