"""Truncated sampling: the same distributions as transformers', and log-probabilities of what is drawn."""

import itertools
import math

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from rlhf.training import sampling
from rlhf.training.configs import EvaluateConfig, GenerateConfig, PPOConfig
from rlhf.training.language_models.policy import load_policy
from rlhf.training.truncation import FEW, Truncation
from tests.rlhf.training.tiny import make_policy

CASES = [
    case
    for case in itertools.product((0, 1, 40, 10_000), (1.0, 0.95, 0.5, 0.01), (0.0, 0.05, 1.0))
    if Truncation(*case) != Truncation()
]


def theirs(logits, temperature, truncation):
    """The distribution that transformers samples from."""
    steps = [TemperatureLogitsWarper(temperature)] if temperature != 1 else []
    if truncation.top_k:
        steps.append(TopKLogitsWarper(truncation.top_k))
    if truncation.top_p < 1:
        steps.append(TopPLogitsWarper(truncation.top_p))
    if truncation.min_p:
        steps.append(MinPLogitsWarper(truncation.min_p))
    return LogitsProcessorList(steps)(None, logits).softmax(dim=-1)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_distribution_is_the_one_that_transformers_samples_from(case):
    truncation = Truncation(*case)
    generator = torch.Generator().manual_seed(CASES.index(case))
    # In float64, since sums in float32 depend on their order. The flattest rows need more than
    # FEW tokens, the steepest a single one.
    for spread in (0.1, 1.0, 5.0):
        logits = spread * torch.randn(4, 3 * FEW, generator=generator, dtype=torch.float64)
        for temperature in (1.0, 0.6):
            ours = truncation.apply((logits / temperature).log_softmax(dim=-1)).exp()
            expected = theirs(logits, temperature, truncation)
            assert torch.equal(ours > 0, expected > 0)
            assert torch.allclose(ours, expected, atol=1e-6, rtol=1e-4)


def test_settings_without_effect_are_no_truncation():
    config = GenerateConfig(policy="…")
    assert Truncation.of(config) is None
    assert Truncation.of(EvaluateConfig(policy="…", top_p=0.9)) == Truncation(top_p=0.9)
    assert "top_p" not in PPOConfig.settings()  # its ratios need the whole distribution


def test_drawn_tokens_and_their_log_probabilities_are_those_of_the_truncated_distribution(tmp_path):
    policy = load_policy(str(make_policy(tmp_path)), "policy", device=torch.device("cpu"))
    prompts = [[5, 6, 7], [8, 9]]
    truncation = Truncation(top_k=6, top_p=0.9)
    answers = sampling.sample(
        policy.model,
        prompts,
        k=50,
        max_new_tokens=3,
        temperature=0.8,
        stop_ids=[],
        pad_id=policy.pad_id,
        generator=torch.Generator().manual_seed(0),
        truncation=truncation,
    )
    n_drawn = set()
    for prompt, group in zip(prompts, answers, strict=True):
        for answer in group:
            with torch.no_grad():
                logits = policy.model(torch.tensor([prompt + answer.tokens])).logits[0]
            for token, logprob, row in zip(
                answer.tokens, answer.logprobs, logits[len(prompt) - 1 : -1], strict=True
            ):
                expected = theirs(row[None], 0.8, truncation)[0, token]
                assert float(expected) > 0
                assert math.isclose(logprob, math.log(expected), abs_tol=1e-4)
                n_drawn.add(token)
    assert len(n_drawn) > 6
