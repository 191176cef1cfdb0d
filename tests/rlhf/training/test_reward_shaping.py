"""Reward shaping on numbers that can be checked on paper."""

import math

import pytest
import torch

from rlhf.training import reward_shaping


def test_an_unfinished_response_has_its_score_replaced_not_lowered():
    scores = torch.tensor([5.0, 5.0, -7.0])
    finished = torch.tensor([True, False, False])
    assert reward_shaping.replace_unfinished(scores, finished, -2.0).tolist() == [5.0, -2.0, -2.0]


def test_safety_speaks_for_harmful_prompts_and_for_responses_that_look_unsafe():
    helpful, safe = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([0.5, -3.0, 0.5])
    harmful = torch.tensor([True, False, False])
    # sigmoid(-3) = 0.047 is below 0.15.
    scores, is_safety = reward_shaping.combine_scores(helpful, safe, harmful, threshold=0.15)
    assert scores.tolist() == [0.5, -3.0, 1.0]
    assert is_safety.tolist() == [True, True, False]
    scores, _ = reward_shaping.combine_scores(helpful, safe, harmful, threshold=0.0)
    assert scores.tolist() == [0.5, 1.0, 1.0]


def test_the_multiplier_grows_while_the_cost_is_above_its_limit_and_shrinks_below():
    multiplier = reward_shaping.Multiplier(value=2.0, limit=0.5, rate=1.0)
    multiplier.update(1.5)
    assert multiplier.value == pytest.approx(2 * math.e)
    multiplier.update(-0.5)
    assert multiplier.value == pytest.approx(2.0)
    multiplier.update(float("nan"))
    assert multiplier.value == pytest.approx(2.0)
    fixed = reward_shaping.Multiplier(value=2.0, limit=0.0, rate=0.0)
    fixed.update(9.0)
    assert fixed.value == 2.0


def test_reward_less_cost_by_hand():
    # helpfulness 3, cost 1 (safety -1), multiplier 2: (3 - 2) / 3.
    multiplier = reward_shaping.Multiplier(value=2.0, limit=0.0, rate=0.1)
    total = multiplier.reward(torch.tensor([3.0]), torch.tensor([-1.0]))
    assert total.item() == pytest.approx(1 / 3)


def test_the_penalty_rises_evenly_over_the_last_tokens():
    # Of 20 tokens the last 8: nothing to 12, half at 16, all at 20.
    lengths = torch.tensor([3, 12, 16, 20])
    lost = reward_shaping.overlong_penalty(lengths, longest=20, buffer=8, penalty=3.0)
    assert lost.tolist() == [0.0, 0.0, 1.5, 3.0]
