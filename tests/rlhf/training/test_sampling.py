"""Sampling: the log-probabilities must be those of the tokens drawn, whatever shares the batch."""

import pytest
import torch

from rlhf.training import forward_pass, packing, sampling
from rlhf.training.language_models.policy import load_policy
from tests.rlhf.training import small_llamas
from tests.rlhf.training.tiny import make_policy


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    folder = make_policy(tmp_path_factory.mktemp("policy"))
    return load_policy(str(folder), "policy", device=torch.device("cpu"))


PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14], [15, 16]]


def draw(policy, *, seed=0, **options):
    settings = {
        "k": 2,
        "max_new_tokens": 12,
        "temperature": 0.7,
        "stop_ids": policy.stop_ids,
        "pad_id": policy.pad_id,
        "generator": torch.Generator().manual_seed(seed),
    }
    return sampling.sample(policy.model, PROMPTS, **settings | options)


def test_kept_log_probabilities_are_those_of_a_plain_forward_pass(policy):
    # A third of the vocabulary ends the response, so rows leave the batch at different times.
    stops = list(range(1, policy.model.config.vocab_size, 3))
    answers = draw(policy, stop_ids=stops, k=4)
    ended = {len(a.tokens) for group in answers for a in group if a.finished}
    assert len(ended) > 1
    for prompt, group in zip(PROMPTS, answers, strict=True):
        for answer in group:
            with torch.no_grad():
                logits = policy.model(torch.tensor([prompt + answer.tokens])).logits[0]
            scaled = torch.log_softmax(logits[len(prompt) - 1 : -1] / 0.7, dim=-1)
            expected = scaled.gather(1, torch.tensor(answer.tokens)[:, None])[:, 0]
            assert torch.allclose(torch.tensor(answer.logprobs), expected, atol=1e-4)
            assert answer.finished == (answer.tokens[-1] in stops)
            assert not any(token in stops for token in answer.tokens[:-1])


def test_reading_a_padded_batch_gives_what_each_row_gives_alone(policy):
    answers = [group[0].tokens for group in draw(policy)]
    packed, hidden = policy.read(PROMPTS, answers)
    assert hidden.shape == (sum(map(len, answers)), policy.hidden_size)
    logits = policy.logits(hidden)
    for i, (prompt, answer) in enumerate(zip(PROMPTS, answers, strict=True)):
        alone = policy.model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        assert torch.allclose(logits[packed.rows == i], alone, atol=1e-4)
        assert packed.tokens[packed.rows == i].tolist() == answer
        spread = packed.unpack(packed.tokens.float())
        assert spread[i].tolist() == answer + [0] * (packed.width - len(answer))


def test_the_same_seed_gives_the_same_responses_and_another_one_others(policy):
    assert draw(policy, seed=3) == draw(policy, seed=3)
    assert draw(policy, seed=3) != draw(policy, seed=4)


def test_responses_come_back_in_the_order_of_the_prompts_whatever_the_batch_size(policy):
    # At a temperature near 0 there is one answer to each prompt, so batches can be compared.
    whole = draw(policy, temperature=0.01, k=1, batch_size=100)
    single = draw(policy, temperature=0.01, k=1, batch_size=1)
    assert [g[0].tokens for g in whole] == [g[0].tokens for g in single]


def test_tokens_are_drawn_as_often_as_the_policy_says(policy):
    answers = sampling.sample(
        policy.model,
        [[5, 6, 7]],
        k=4000,
        max_new_tokens=1,
        temperature=0.5,
        stop_ids=policy.stop_ids,
        pad_id=policy.pad_id,
        generator=torch.Generator().manual_seed(0),
        batch_size=4000,
    )[0]
    with torch.no_grad():
        logits = policy.model(torch.tensor([[5, 6, 7]])).logits[0, -1]
    expected = torch.softmax(logits / 0.5, dim=-1)
    counts = torch.bincount(torch.tensor([a.tokens[0] for a in answers]), minlength=len(expected))
    # Chi-squared with some 280 degrees of freedom: 400 is far beyond chance.
    chi = (((counts - 4000 * expected) ** 2) / (4000 * expected)).sum()
    assert chi < 400


def test_a_response_that_runs_out_of_tokens_is_not_finished(policy):
    answers = draw(policy, stop_ids=[policy.model.config.vocab_size - 1], max_new_tokens=3)
    assert all(len(a.tokens) == 3 for group in answers for a in group if not a.finished)
    assert not all(a.finished for group in answers for a in group)


def test_decoded_text_has_no_stop_token(policy):
    word = policy.tokenizer.encode("lamp")[0]
    assert policy.decode([word, policy.stop_ids[0]]) == "lamp"
    assert policy.decode([word]) == "lamp"
    assert policy.decode([]) == ""


def test_what_is_drawn_does_not_depend_on_who_shares_the_batch():
    model = small_llamas.llama()

    def draw(**options):
        groups = sampling.sample(
            model,
            small_llamas.PROMPTS,
            k=3,
            max_new_tokens=9,
            temperature=0.9,
            stop_ids=[1, 2, 3, 4, 5],
            pad_id=0,
            generator=torch.Generator().manual_seed(5),
            **options,
        )
        return [[answer.tokens for answer in group] for group in groups]

    whole = draw()
    assert draw(batch_size=3) == whole
    shares = [draw(share=slice(rank, None, 2)) for rank in range(2)]
    assert [shares[i % 2][i] for i in range(4)] == whole
    assert shares[0][1] == []


def test_sampling_returns_values_too():
    model = small_llamas.llama()
    weights = torch.randn(32, generator=torch.Generator().manual_seed(0))
    answers = sampling.sample(
        model,
        small_llamas.PROMPTS,
        max_new_tokens=5,
        temperature=1.0,
        stop_ids=[1],
        pad_id=0,
        generator=torch.Generator().manual_seed(5),
        value_of=lambda hidden: hidden @ weights,
    )
    packed = packing.pack(
        small_llamas.PROMPTS,
        [a[0].tokens for a in answers],
        pad_id=0,
        device=small_llamas.CPU,
        share_rows=True,
    )
    with torch.no_grad():
        values = forward_pass.hidden_states(model, packed) @ weights
    sampled_values = torch.tensor([v for a in answers for v in a[0].values])
    assert torch.allclose(sampled_values, values, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("size", [5, 256, 1000, 49_152])
def test_a_draw_over_blocks_is_the_draw_of_one_running_sum(size):
    generator = torch.Generator().manual_seed(size)
    scores = 4 * torch.randn(64, size, generator=generator)
    scores[:, ::3] = float("-inf")
    numbers = torch.rand(64, generator=generator, dtype=torch.float64)
    numbers[:2] = torch.tensor([0.0, 1 - 2.0**-53], dtype=torch.float64)
    drawn, logprobs = sampling.draw(scores, numbers)
    summed = (scores - scores.amax(dim=1, keepdim=True)).exp().double().cumsum(dim=1)
    reached = numbers[:, None] * summed[:, -1:] * (1 - 2.0**-52)
    assert torch.equal(drawn, torch.searchsorted(summed, reached, right=True)[:, 0])
    expected = torch.log_softmax(scores, dim=1).gather(1, drawn[:, None])[:, 0]
    assert torch.allclose(logprobs, expected, atol=1e-5)
    assert logprobs.isfinite().all()


def test_draws_over_several_blocks_follow_the_distribution():
    count = 40_000
    scores = 2 * torch.randn(1000, generator=torch.Generator().manual_seed(0))
    numbers = torch.rand(count, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    drawn, _ = sampling.draw(scores.expand(count, -1), numbers)
    expected = count * torch.softmax(scores, dim=0)
    often = expected > 5  # rarer tokens are one group, as the test needs
    counts = torch.bincount(drawn, minlength=1000)
    pairs = [(counts[often], expected[often]), (counts[~often].sum(), expected[~often].sum())]
    chi = sum(((n - mean) ** 2 / mean).sum() for n, mean in pairs)
    degrees = int(often.sum())
    assert float(chi) < degrees + 4 * (2 * degrees) ** 0.5


def test_scores_that_are_not_numbers_give_a_log_probability_that_is_none():
    drawn, logprobs = sampling.draw(
        torch.full((1, 600), float("nan")), torch.tensor([0.5]).double()
    )
    assert 0 <= int(drawn) < 600
    assert not logprobs.isfinite().any()


def test_rows_that_go_on_fill_the_gaps_of_those_that_ended():
    alive = torch.tensor([True, False, True, False, True, True])
    assert sampling.compact(alive).tolist() == [0, 4, 2, 5]
    assert sampling.compact(torch.tensor([True, False])).tolist() == [0]
