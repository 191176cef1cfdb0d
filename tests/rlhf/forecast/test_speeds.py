"""Seconds for units of work: from a measurement, and by arithmetic without one."""

import copy

import pytest

from rlhf.forecast.speeds import from_calibration, rough, stop_rates
from rlhf.forecast.work import Decode, Work
from rlhf.training.model_files import ModelShape
from tests.rlhf.calibrations import FIGURES

SHAPE = ModelShape(135_000_000, 540_000_000, 30, 576, 49_152, 8192, 384, has_template=True)


def test_a_measurement_prices_each_unit():
    speeds = from_calibration(FIGURES, lora=True)
    # The first load imports what every process imports once: 3 s, of which 2 are the model.
    assert (speeds.start, speeds.load, speeds.reward_load) == (7.0, 2.0, 4.0)
    work = Work(train_tokens=100, updates=10, read_tokens=50, loads=1)
    assert speeds.seconds(work, 0.0) == pytest.approx(7 + 1.0 + 0.2 + 0.2 + 2)
    full = from_calibration(FIGURES, lora=False)
    assert full.seconds(work, 0.0) == pytest.approx(7 + 1.2 + 2.0 + 0.2 + 2)
    assert not speeds.is_rough


def test_a_step_lies_between_the_measured_numbers_of_rows_and_goes_on_beyond():
    speeds = from_calibration(FIGURES, lora=True)
    assert speeds.step(4) == speeds.step(1) == 0.08
    assert speeds.step(10) == pytest.approx(0.12)
    assert speeds.step(64) == pytest.approx(0.4)
    assert speeds.step(160) == pytest.approx(0.4 + 96 * 0.24 / 48)


def test_responses_that_have_ended_cost_no_more():
    speeds = from_calibration(FIGURES, lora=True)
    work = Work(decodes=[Decode(1, 64, 101)])
    never = speeds.seconds(work, 0.0) - speeds.start
    assert never == pytest.approx(100 * 0.4)
    assert speeds.seconds(work, 0.1) - speeds.start < never / 3


def test_a_reward_model_that_did_not_fit_is_priced_by_the_policys_passes():
    figures = copy.deepcopy(FIGURES)
    for name in ("reward_token", "reward_update", "reward_load", "prior_token", "score_token"):
        del figures["costs"][name]
    speeds = from_calibration(figures, lora=True)
    assert speeds.reward_token == 3 * 0.004
    assert speeds.score_token == speeds.read_token


@pytest.mark.parametrize("broken", [{}, {"costs": {}}, FIGURES | {"decoding": []}])
def test_a_broken_measurement_is_none(broken):
    assert from_calibration(broken, lora=True) is None


def test_few_endings_leave_a_wide_range():
    low, likely, high = stop_rates(1, 500)
    assert low < likely < high
    assert high / likely > 3, "one ending tells little"
    assert stop_rates(0, 500)[1] == 0
    assert stop_rates(0, 500)[2] > 0
    low, likely, high = stop_rates(100, 1000)
    assert high / low < 1.6


def test_arithmetic_is_six_operations_for_each_parameter_and_token():
    speeds = rough(SHAPE, kind="cpu", device="", threads=1, lora=False, budget=64)
    assert speeds.train_token == pytest.approx(6 * 135e6 / (40e9 * 0.35))
    assert speeds.read_token == pytest.approx(speeds.train_token / 3)
    assert speeds.is_rough
    assert "rough: 6 N D" in speeds.basis
    gpu = rough(SHAPE, kind="cuda", device="NVIDIA H100 80GB", threads=8, lora=False, budget=64)
    assert gpu.train_token == pytest.approx(6 * 135e6 / (989e12 * 0.35))


def test_arithmetic_reproduces_the_training_of_llama_65b():
    """Touvron et al. 2023: 1.4 trillion tokens on 2,048 A100 in about 21 days."""
    shape = ModelShape(65_200_000_000, 0, 80, 8192, 32_000, 2048, 16_384, has_template=False)
    speeds = rough(shape, kind="cuda", device="NVIDIA A100", threads=8, lora=False, budget=64)
    days = 1.4e12 * speeds.train_token / 2048 / 86_400
    assert 21 / 1.5 < days < 21 * 1.5
