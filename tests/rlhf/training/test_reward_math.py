"""From ranks to pairs to likelihoods, against numbers that can be checked on paper."""

import itertools
import math
import random

import pytest
import torch

from rlhf.training import reward_math
from rlhf.training.data import BELOW
from rlhf.training.reward_math import Pair


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


def test_a_tie_for_the_first_place_is_either_order():
    # Worths 3, 2 and 1: the first two come first as 3, 2 (3/6 * 2/3) or as 2, 3 (2/6 * 3/4).
    scores = torch.tensor([3.0, 2.0, 1.0]).log()
    expected = -math.log(3 / 6 * 2 / 3 + 2 / 6 * 3 / 4) / 2
    assert reward_math.plackett_luce_loss(scores, [1, 1, 2]).item() == pytest.approx(expected)
    # A tie for the last place is no statement: 3/6 is all that was chosen.
    last = reward_math.plackett_luce_loss(scores, [1, 2, 2]).item()
    assert last == pytest.approx(-math.log(3 / 6))


def likelihood_of(scores, ranks):
    """P(a ranking) as its definition has it: over every order that agrees with it, the product of
    choices, one after another. Also how many choices those are."""
    ranked = [i for i, r in enumerate(ranks) if r is not None]
    total = 0.0
    for order in itertools.permutations(ranked):
        if any(ranks[a] > ranks[b] for a, b in itertools.pairwise(order)):
            continue
        worths = [scores[i].exp() for i in order]
        total = total + math.prod(w / sum(worths[n:]) for n, w in enumerate(worths))
    last = max(ranks[i] for i in ranked)
    return total, sum(ranks[i] < last for i in ranked)


RANKINGS = [
    [1, 2],
    [2, 1, 3],
    [1, 1, 2],
    [2, 1, 2],
    [4, 2, 1, 3],
    [1, 2, 2, 3],
    [2, 1, 1, 1],
    [1, 1, 1, 2],
    [2, None, 1, 3],
    [1, 3, 1, None, 2, 3],
    [2, 2, 1, 2, 3, 3],
    [BELOW, 1, BELOW, 2, 2],
]


@pytest.mark.parametrize("ranks", RANKINGS, ids=str)
def test_plackett_luce_and_its_gradient_are_those_of_going_through_every_order(ranks):
    torch.manual_seed(0)
    scores = torch.randn(len(ranks), dtype=torch.float64, requires_grad=True)
    likelihood, choices = likelihood_of(scores, ranks)
    expected = -likelihood.log() / choices
    (gradient,) = torch.autograd.grad(expected, scores)
    loss = reward_math.plackett_luce_loss(scores, ranks)
    (ours,) = torch.autograd.grad(loss, scores)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    assert torch.allclose(ours, gradient, atol=1e-12)
    # Several heads at once say what each says alone.
    both = reward_math.plackett_luce_loss(torch.stack([scores, -scores]), ranks)
    assert both[0].item() == pytest.approx(loss.item())
    alone = reward_math.plackett_luce_loss(-scores, ranks)
    assert both[1].item() == pytest.approx(alone.item())


def test_all_rankings_of_four_together_are_certain():
    scores = torch.tensor([1.5, -0.3, 0.2, 0.9], dtype=torch.float64)
    total = sum(
        math.exp(-3 * reward_math.plackett_luce_loss(scores, ranks).item())
        for ranks in itertools.permutations(range(4))
    )
    assert total == pytest.approx(1.0)


def test_extreme_scores_leave_no_nan():
    scores = torch.tensor([200.0, -200.0, 0.0, 150.0], requires_grad=True)
    for ranks in ([4, 1, 3, 2], [2, 1, 1, 2], [1, 1, 1, 2]):
        loss = reward_math.plackett_luce_loss(scores, ranks)
        (gradient,) = torch.autograd.grad(loss, scores)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()


def test_scores_are_recovered_from_rankings_drawn_with_them():
    """1,500 rankings of 4 out of 6, of which every third reader did not tell the top two apart."""
    true = torch.tensor([1.2, 0.6, 0.1, -0.3, -0.6, -1.0])
    generator = random.Random(0)
    drawn = []
    for number in range(1500):
        shown = generator.sample(range(6), 4)
        # Sorting by score plus Gumbel noise is Plackett-Luce sampling.
        noisy = {i: float(true[i]) - math.log(-math.log(generator.random())) for i in shown}
        order = sorted(shown, key=lambda i: -noisy[i])
        ranks = {i: place for place, i in enumerate(order, start=1)}
        if number % 3 == 0:
            ranks[order[1]] = 1
        drawn.append([ranks.get(i) for i in range(6)])
    scores = torch.zeros(6, requires_grad=True)
    optimizer = torch.optim.LBFGS([scores], max_iter=60)

    def loss():
        optimizer.zero_grad()
        made = [
            reward_math.plackett_luce_loss(scores, r) * sum(x is not None for x in r) for r in drawn
        ]
        total = torch.stack(made).mean()
        total.backward()
        return total

    optimizer.step(loss)
    centered = scores.detach() - scores.detach().mean()
    assert (centered - true + true.mean()).abs().max() < 0.12


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


def test_disagreement_is_about_margins_and_not_about_levels():
    # Two members, three responses. The second member adds 5 to everything: nothing to disagree on.
    same = torch.tensor([[0.0, 5.0], [1.0, 6.0], [3.0, 8.0]])
    assert reward_math.disagreement(same) == 0
    # Margins of the pairs (1,2), (1,3), (2,3): -1 and +1, -3 and -3, -2 and -4: deviations 1, 0, 1.
    apart = torch.tensor([[0.0, 1.0], [1.0, 0.0], [3.0, 4.0]])
    assert reward_math.disagreement(apart) == pytest.approx(2 / 3)
    assert reward_math.disagreement(apart[:1]) == 0


def test_a_judgment_tells_most_where_each_member_is_sure_of_something_else():
    information = reward_math.information
    sure = torch.tensor([[20.0, -20.0], [0.0, 0.0]])  # one bets on the first, one on the second
    assert information(sure) == pytest.approx(math.log(2), abs=1e-6)
    alike = torch.tensor([[3.0, 3.0], [0.0, 0.0]])
    nobody_knows = torch.tensor([[0.0, 0.0], [0.0, 0.0]])  # a coin that all call a coin
    assert information(alike) == information(nobody_knows) == 0
    assert information(sure + torch.tensor([0.0, 100.0])) == pytest.approx(information(sure))
    # By hand: the first wins with .5 and .75. H(.625) - (H(.5) + H(.75)) / 2.
    by_hand = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])
    entropy = lambda p: -p * math.log(p) - (1 - p) * math.log(1 - p)  # noqa: E731
    expected = entropy(0.625) - (entropy(0.5) + entropy(0.75)) / 2
    assert information(by_hand) == pytest.approx(expected, abs=1e-7)
    assert information(by_hand[:1]) == 0
    # Far apart, but agreed about who wins: deviation is large, and there is little to learn.
    agreed = torch.tensor([[4.0, 12.0], [0.0, 0.0]])
    assert reward_math.disagreement(agreed) > reward_math.disagreement(by_hand)
    assert information(agreed) < information(by_hand)
