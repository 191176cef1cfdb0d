"""On a GPU in bfloat16: what the stages rely on. `GROUND_CONTROL_TEST_DEVICE=cpu` runs the same on
a CPU, which shows that the tests themselves work."""

import os

import pytest
import torch

from rlhf.training import forward_pass, packing, ppo_math, sampling
from rlhf.training.language_models.policy import load_policy
from tests.rlhf.training.small_llamas import PROMPTS
from tests.rlhf.training.tiny import make_policy

DEVICE = torch.device(os.environ.get("GROUND_CONTROL_TEST_DEVICE", "cuda"))

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        DEVICE.type == "cuda" and not torch.cuda.is_available(), reason="there is no GPU"
    ),
]


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    folder = make_policy(tmp_path_factory.mktemp("policy"), hidden=64)
    return load_policy(str(folder), "policy", device=DEVICE, dtype=torch.bfloat16)


def sampled(policy, seed=0):
    return sampling.sample(
        policy.model,
        PROMPTS,
        k=4,
        max_new_tokens=12,
        temperature=1.0,
        stop_ids=policy.stop_ids,
        pad_id=policy.pad_id,
        generator=torch.Generator(device=DEVICE).manual_seed(seed),
    )


def test_sampled_log_probabilities_are_those_of_packed_rows_within_bfloat16(policy):
    answers = [answer for group in sampled(policy) for answer in group]
    prompts = [prompt for prompt in PROMPTS for _ in range(4)]
    packed = packing.pack(
        prompts,
        [answer.tokens for answer in answers],
        pad_id=policy.pad_id,
        device=DEVICE,
        share_rows=policy.share_rows,
    )
    with torch.no_grad():
        logits = forward_pass.logits(
            policy.model, forward_pass.hidden_states(policy.model, packed)
        ).float()
    read = torch.log_softmax(logits, dim=-1).gather(1, packed.tokens[:, None])[:, 0].cpu()
    kept = torch.tensor([p for answer in answers for p in answer.logprobs])
    assert float((read - kept).abs().mean()) < 0.05


def test_the_same_seed_draws_the_same_tokens(policy):
    first, second = (
        [[answer.tokens for answer in group] for group in sampled(policy, 3)] for _ in range(2)
    )
    assert first == second


def test_a_draw_on_the_device_is_that_of_the_cpu():
    generator = torch.Generator().manual_seed(0)
    scores = 3 * torch.randn(32, 49_152, generator=generator)
    numbers = torch.rand(32, generator=generator, dtype=torch.float64)
    there, logprobs = sampling.draw(scores.to(DEVICE), numbers.to(DEVICE))
    here, expected = sampling.draw(scores, numbers)
    assert (there.cpu() == here).float().mean() > 0.9  # exp rounds differently
    same = there.cpu() == here
    assert torch.allclose(logprobs.cpu()[same], expected[same], atol=1e-4)


def test_gradients_in_bfloat16_point_where_those_in_float32_do(tmp_path):
    folder = make_policy(tmp_path, hidden=64)
    answers = [[3, 4, 5, 6], [7, 8], [9, 10, 11], [12, 13]]
    grads = []
    for half in (False, True):
        policy = load_policy(str(folder), "policy", device=DEVICE, dtype=torch.float32)
        with torch.autocast(DEVICE.type, dtype=torch.bfloat16, enabled=half):
            packed, hidden = policy.read(PROMPTS, answers)
            logprobs, _ = ppo_math.logprobs_and_entropy(policy.logits(hidden), packed.tokens)
        logprobs.float().sum().backward()
        grads.append(torch.cat([p.grad.flatten().float() for p in policy.model.parameters()]))
    assert float(torch.cosine_similarity(grads[0], grads[1], dim=0)) > 0.99
