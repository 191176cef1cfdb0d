"""The arithmetic of PPO, against numbers that can be checked on paper."""

import math

import pytest
import torch

from rlhf.training import ppo_math


def rows(*values):
    return torch.tensor(values, dtype=torch.float32)


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual, torch.tensor(expected), atol=tolerance, rtol=0)


def test_a_mask_comes_from_lengths_and_keeps_a_pad_token_that_was_sampled():
    mask = ppo_math.length_mask(torch.tensor([2, 0, 3]), 3)
    assert mask.tolist() == [[True, True, False], [False] * 3, [True] * 3]


def test_advantages_of_three_tokens_by_hand():
    # gamma 1/2, lambda 1/2. From the end: delta3 = 4 - 1 = 3; delta2 = 0 + 1/2*1 - 2 = -1.5;
    # delta1 = 1 + 1/2*2 - 3 = -1.  A3 = 3; A2 = -1.5 + 1/4*3 = -0.75; A1 = -1 + 1/4*-0.75.
    rewards, values = rows([1.0, 0.0, 4.0]), rows([3.0, 2.0, 1.0])
    mask = torch.ones(1, 3, dtype=torch.bool)
    advantages, returns = ppo_math.advantages_and_returns(rewards, values, mask, gamma=0.5, lam=0.5)
    close(advantages, [[-1.1875, -0.75, 3.0]])
    close(returns, [[1.8125, 1.25, 4.0]])


def test_with_gamma_and_lambda_1_an_advantage_is_what_follows_minus_the_value():
    rewards, values = rows([0.0, -0.5, 2.0]), rows([1.0, 1.0, 1.0])
    mask = torch.ones(1, 3, dtype=torch.bool)
    advantages, returns = ppo_math.advantages_and_returns(rewards, values, mask, gamma=1, lam=1)
    close(advantages, [[0.5, 0.5, 1.0]])
    close(returns, [[1.5, 1.5, 2.0]])


def test_what_lies_behind_the_end_of_a_response_changes_no_advantage():
    rewards, values = rows([1.0, 2.0, 99.0]), rows([0.5, 0.5, -99.0])
    mask = torch.tensor([[True, True, False]])
    advantages, returns = ppo_math.advantages_and_returns(rewards, values, mask, gamma=1.0, lam=0.9)
    # A2 = 2 - 0.5 = 1.5; A1 = 1 + 0.5 - 0.5 + 0.9 * 1.5 = 2.35.
    close(advantages, [[2.35, 1.5, 0.0]])
    close(returns, [[2.85, 2.0, 0.0]])


def test_the_score_lands_on_the_last_real_token_and_the_kl_on_every_one():
    kl = rows([1.0, 2.0, 9.0], [1.0, 1.0, 1.0])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    rewards = ppo_math.token_rewards(rows(3.0, -1.0).flatten(), kl, mask, kl_weight=0.1)
    close(rewards, [[-0.1, 2.8, 0.0], [-0.1, -0.1, -1.1]])


def test_whitening_looks_at_real_tokens_only():
    values = rows([1.0, 3.0, 100.0])
    mask = torch.tensor([[True, True, False]])
    # Mean 2, unbiased variance 2: the values are -1 and 1 over the root of 2.
    close(ppo_math.whiten(values, mask), [[-(0.5**0.5), 0.5**0.5, 0.0]])
    close(ppo_math.whiten(values, mask, shift_mean=False), [[2 - 0.5**0.5, 2 + 0.5**0.5, 0.0]])


def test_whitening_a_single_value_does_not_divide_by_zero():
    assert ppo_math.whiten(rows([4.0]), torch.tensor([[True]])).tolist() == [[0.0]]


def test_k1_and_k3_of_a_token_twice_as_likely_as_before():
    policy, reference = rows(math.log(0.5)), rows(math.log(0.25))
    close(ppo_math.kl_k1(policy, reference), [math.log(2)])
    # r = q/p = 1/2, so k3 = 1/2 - 1 + log 2.
    close(ppo_math.kl_k3(policy, reference), [math.log(2) - 0.5])


def test_both_kl_estimates_average_to_the_true_kl_and_k3_is_never_negative():
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.3, 0.3, 0.4])
    true = (p * (p / q).log()).sum()
    for estimate in (ppo_math.kl_k1, ppo_math.kl_k3):
        assert (p * estimate(p.log(), q.log())).sum() == pytest.approx(float(true), abs=1e-6)
    assert (ppo_math.kl_k3(p.log(), q.log()) >= 0).all()


def test_the_policy_loss_clips_a_gain_but_not_a_loss():
    # Ratios 1.5 and 0.5 with clip 0.2. A gain (advantage 1): -min(1.5, 1.2) = -1.2 and -0.5.
    logprobs, old = rows([math.log(1.5), math.log(0.5)]), rows([0.0, 0.0])
    mask = torch.ones(1, 2, dtype=torch.bool)
    loss, clipped = ppo_math.policy_loss(logprobs, old, rows([1.0, 1.0]), mask, clip=0.2)
    close(loss, -(1.2 + 0.5) / 2)
    close(clipped, 0.5)
    # With advantage -1 the loss is max(1.5, 1.2) = 1.5 and max(0.5, 0.8) = 0.8.
    loss, clipped = ppo_math.policy_loss(logprobs, old, rows([-1.0, -1.0]), mask, clip=0.2)
    close(loss, (1.5 + 0.8) / 2)


def test_a_clipped_token_gets_no_gradient():
    logprobs = rows([math.log(1.5)]).requires_grad_()
    mask = torch.ones(1, 1, dtype=torch.bool)
    loss, _ = ppo_math.policy_loss(logprobs, rows([0.0]), rows([1.0]), mask, clip=0.2)
    loss.backward()
    assert logprobs.grad.tolist() == [[0.0]]


def test_dual_clip_bounds_the_loss_of_a_token_that_became_far_too_likely():
    logprobs, old = rows([math.log(10.0)]), rows([0.0])
    mask = torch.ones(1, 1, dtype=torch.bool)
    loss, _ = ppo_math.policy_loss(logprobs, old, rows([-1.0]), mask, clip=0.2, dual_clip=3.0)
    close(loss, 3.0)


def test_a_mean_over_sequences_gives_short_responses_the_same_say():
    mask = torch.tensor([[True, False, False], [True, True, True]])
    zeros = torch.zeros(2, 3)
    advantages = rows([4.0, 0.0, 0.0], [0.0, 0.0, 0.0])
    by_token, _ = ppo_math.policy_loss(zeros, zeros, advantages, mask, clip=0.2)
    by_row, _ = ppo_math.policy_loss(zeros, zeros, advantages, mask, clip=0.2, per_sequence=True)
    close(by_token, -1.0)
    close(by_row, -2.0)


def test_the_value_loss_takes_the_worse_of_the_clipped_and_the_plain_error():
    mask = torch.ones(1, 2, dtype=torch.bool)
    values, old, returns = rows([2.0, 0.1]), rows([0.0, 0.0]), rows([2.0, 1.0])
    # First: plain error 0, clipped to 0.2: 1.8 squared = 3.24. Second: 0.81 both ways.
    close(ppo_math.value_loss(values, old, returns, mask, clip=0.2), 0.5 * (3.24 + 0.81) / 2)
    close(ppo_math.value_loss(values, old, returns, mask, clip=0.0), 0.5 * 0.81 / 2)


def test_selected_logprobs_are_those_of_the_whole_softmax():
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    tokens = torch.tensor([[0, 1, 2], [4, 3, 2]])
    expected = torch.log_softmax(logits, -1).gather(-1, tokens[..., None])[..., 0]
    torch.testing.assert_close(ppo_math.selected_logprobs(logits, tokens), expected)


def test_entropy_of_a_fair_choice_among_four():
    _, entropy = ppo_math.logprobs_and_entropy(torch.zeros(1, 4), torch.tensor([2]))
    close(entropy, [math.log(4)])


def test_the_adaptive_weight_rises_above_its_target_and_by_a_fifth_at_most():
    controller = ppo_math.AdaptiveKL(weight=0.1, target=6.0, horizon=1000.0)
    controller.update(kl=6.6, n=100)  # error 0.1, factor 1 + 0.1 * 100 / 1000
    assert controller.weight == pytest.approx(0.101)
    controller.update(kl=600.0, n=100)  # error clipped at 0.2
    assert controller.weight == pytest.approx(0.101 * 1.02)
    controller.update(kl=0.0, n=100)
    assert controller.weight == pytest.approx(0.101 * 1.02 * 0.98)


def test_a_kl_that_is_not_a_number_leaves_the_weight_alone():
    controller = ppo_math.AdaptiveKL(weight=0.1, target=6.0, horizon=1000.0)
    controller.update(kl=math.nan, n=100)
    assert controller.weight == 0.1


def test_the_upper_clip_may_be_wider_than_the_lower():
    # Ratios 1.5 and 0.5 with advantages +1 and -1, clipped at 1.28 and 0.8.
    logprobs = torch.tensor([[math.log(1.5), math.log(0.5)]])
    old, mask = torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool)
    advantages = torch.tensor([[1.0, -1.0]])
    loss, clipped = ppo_math.policy_loss(logprobs, old, advantages, mask, clip=0.2, clip_high=0.28)
    assert loss.item() == pytest.approx((-1.28 + 0.8) / 2)
    assert clipped.item() == 1
    even, _ = ppo_math.policy_loss(logprobs, old, advantages, mask, clip=0.2)
    assert even.item() == pytest.approx((-1.2 + 0.8) / 2)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("train_entropy", [True, False])
def test_reading_logits_has_the_gradient_of_plain_operations(temperature, train_entropy):
    torch.manual_seed(0)
    tokens = torch.tensor([3, 0, 6, 6, 2])
    weights = torch.randn(2, 5, dtype=torch.float64).float()

    def loss(read, logits):
        picked, entropy = read(logits)
        return (weights[0] * picked).sum() + (weights[1] * entropy).sum() * train_entropy

    def plain(logits):
        scaled = logits / temperature
        logprobs = torch.log_softmax(scaled, dim=-1)
        entropy = -(logprobs.exp() * logprobs).sum(dim=-1)
        return ppo_math.selected_logprobs(scaled, tokens), entropy

    def ours(logits):
        return ppo_math.logprobs_and_entropy(
            logits, tokens, temperature=temperature, train_entropy=train_entropy
        )

    first = torch.randn(5, 7, requires_grad=True)
    second = first.detach().clone().requires_grad_()
    one, two = loss(plain, first), loss(ours, second)
    assert float(one.detach()) == pytest.approx(float(two.detach()), rel=1e-5)
    one.backward()
    two.backward()
    assert torch.allclose(first.grad, second.grad, atol=1e-6)


def test_where_all_returns_are_alike_a_critic_explains_nothing():
    mask = torch.ones(2, 2, dtype=torch.bool)
    returns = torch.tensor([[1.0, 2.0], [3.0, 2.0]])
    assert ppo_math.explained_variance(returns, returns - 1.0, mask) == 1.0
    assert ppo_math.explained_variance(returns, torch.zeros(2, 2), mask) == 0.0
    alike = torch.full((2, 2), -2.0)
    assert ppo_math.explained_variance(alike, torch.tensor([[0.0, 0.1], [0.2, 0.0]]), mask) == 0.0
    assert ppo_math.explained_variance(alike, alike, mask) == 0.0
