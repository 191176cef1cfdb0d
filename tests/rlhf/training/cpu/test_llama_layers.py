"""The layers of Llamas on a CPU give what transformers gives, forward and backward."""

import pytest
import torch

from rlhf.training import cpu, forward_pass, packing, ppo_math
from rlhf.training.cpu import llama_layers
from tests.rlhf.training.small_llamas import CPU, PROMPTS, llama


@pytest.mark.parametrize("short", [256, 16], ids=["short rows", "long rows"])
@pytest.mark.parametrize("share_rows", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_fast_layers_have_the_values_and_gradients_of_transformers(
    tied, share_rows, short, monkeypatch
):
    monkeypatch.setattr(llama_layers, "MAX_KEPT_WIDTH", short)
    model = llama(tie_word_embeddings=tied)
    generator = torch.Generator().manual_seed(0)
    lengths = (9, 30, 4, 40, 33, 21, 17, 38)
    answers = [torch.randint(1, 61, (n,), generator=generator).tolist() for n in lengths]
    prompts = [*PROMPTS, *PROMPTS]
    packed = packing.pack(prompts, answers, pad_id=0, device=CPU, share_rows=share_rows)
    weights = torch.randn(len(packed.tokens), 32, generator=generator)
    results = []
    for fast in (True, False):
        if not fast:
            monkeypatch.setattr(cpu, "has_fast_layers", lambda trunk: False)
        assert cpu.has_fast_layers(model.base_model) == fast
        model.zero_grad()
        hidden = forward_pass.hidden_states(model, packed)
        loss = (hidden * weights).sum() + ppo_math.logprobs_and_entropy(
            forward_pass.logits(model, hidden), packed.tokens
        )[0].sum()
        loss.backward()
        results.append((hidden.detach(), {n: p.grad.clone() for n, p in model.named_parameters()}))
    assert torch.allclose(results[0][0], results[1][0], atol=1e-4, rtol=1e-4)
    for name, gradient in results[0][1].items():
        expected = results[1][1][name]
        assert float((gradient - expected).norm()) < 1e-4 * float(expected.norm()), name
