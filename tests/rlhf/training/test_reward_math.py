"""From ranks to pairs to likelihoods, against numbers that can be checked on paper."""

import math

import pytest
import torch

from rlhf.training import reward_math
from rlhf.training.reward_math import Pair
from rlhf.training.rundir import BELOW


def test_a_ranking_of_three_gives_three_pairs_and_a_tie_is_one_of_them():
    pairs = reward_math.pairs_of([2, 1, 2], ["a", "b", "c"])
    assert pairs == [
        Pair(better=1, worse=0, tie=False, margin=1),
        Pair(better=0, worse=2, tie=True),
        Pair(better=1, worse=2, tie=False, margin=1),
    ]


def test_unranked_responses_and_identical_texts_are_compared_with_nothing():
    assert reward_math.pairs_of([1, None], ["a", "b"]) == []
    assert reward_math.pairs_of([1, 2], ["a", " a"]) == []
    assert len(reward_math.pairs_of([1, 2, None], ["a", "b", "a"])) == 1


def test_what_a_top_k_ranking_leaves_out_loses_to_what_it_ranks_and_is_not_a_tie():
    pairs = reward_math.pairs_of([BELOW, 1, BELOW, 2], ["a", "b", "c", "d"])
    assert pairs == [
        Pair(better=1, worse=0, tie=False, margin=2),
        Pair(better=3, worse=0, tie=False, margin=1),
        Pair(better=1, worse=2, tie=False, margin=2),
        Pair(better=1, worse=3, tie=False, margin=1),
        Pair(better=3, worse=2, tie=False, margin=1),
    ]
    # Two choices: b before all, then d before a and c; the last two are not chosen between.
    loss = reward_math.plackett_luce_loss(torch.zeros(4), [BELOW, 1, BELOW, 2])
    assert loss.item() == pytest.approx((math.log(4) + math.log(3)) / 2)


def test_davidson_probabilities_by_hand():
    # Scores log 4 and 0, nu = 1/2: weights 4, 1 and 1/2 * sqrt(4) = 1, together 6.
    first, second = torch.tensor([math.log(4.0)]), torch.tensor([0.0])
    win, lose, tie = reward_math.davidson_log_probs(first, second, torch.tensor(math.log(0.5)))
    assert win.exp().item() == pytest.approx(4 / 6)
    assert lose.exp().item() == pytest.approx(1 / 6)
    assert tie.exp().item() == pytest.approx(1 / 6)


def losses(difference, *, tie=False, **options):
    options = {"log_nu": None} | options
    return reward_math.pair_losses(
        torch.tensor([difference]), torch.tensor([0.0]), torch.tensor([tie]), **options
    ).item()


def test_a_preference_without_ties_is_bradley_terry():
    assert losses(math.log(3.0)) == pytest.approx(-math.log(0.75))


def test_half_a_tie_is_half_a_win_each():
    expected = -(math.log(0.75) + math.log(0.25)) / 2
    assert losses(math.log(3.0), tie=True) == pytest.approx(expected)


def test_davidson_with_a_negligible_nu_is_bradley_terry():
    tiny = torch.tensor(-30.0)
    assert losses(1.0, log_nu=tiny) == pytest.approx(losses(1.0), abs=1e-6)


def test_a_tie_pulls_the_scores_together_under_both_treatments():
    for log_nu in (None, torch.tensor(0.0)):
        score = torch.tensor([1.0], requires_grad=True)
        loss = reward_math.pair_losses(
            score, torch.tensor([0.0]), torch.tensor([True]), log_nu=log_nu
        )
        loss.sum().backward()
        assert score.grad.item() > 0


def test_a_margin_is_taken_off_the_difference_and_smoothing_mixes_both_sides():
    assert losses(2.0, margin=torch.tensor([1.0])) == pytest.approx(losses(1.0))
    expected = 0.9 * losses(1.0) + 0.1 * losses(-1.0)
    assert losses(1.0, label_smoothing=0.1) == pytest.approx(expected)


def test_plackett_luce_of_three_is_two_choices():
    # Scores log 3, log 2, log 1 ranked in this order: choices of 3/6 and 2/3.
    scores = torch.tensor([3.0, 2.0, 1.0]).log()
    expected = -(math.log(3 / 6) + math.log(2 / 3)) / 2
    assert reward_math.plackett_luce_loss(scores, [1, 2, 3]).item() == pytest.approx(expected)
    assert reward_math.plackett_luce_loss(scores, [1, 1, 1]).item() == 0


def test_annotators_who_agree_82_percent_err_in_10():
    assert reward_math.smoothing_from_agreement(0.82) == pytest.approx(0.1)
    assert reward_math.smoothing_from_agreement(1.0) == 0
    assert reward_math.smoothing_from_agreement(0.4) == 0.5


def test_calibration_error_by_hand():
    # Two pairs at confidence 0.9 of which one is right: off by 0.4. Two at 0.6, both right: also
    # 0.4. A probability of 0.1 that lost is a confidence of 0.9 that won.
    error, bins = reward_math.expected_calibration_error(
        [0.9, 0.1, 0.6, 0.6], [0.0, 0.0, 1.0, 1.0], bins=10
    )
    assert error == pytest.approx(0.4)
    assert [b["n"] for b in bins] == [2, 2]
    assert [b["accuracy"] for b in bins] == [1.0, 0.5]
