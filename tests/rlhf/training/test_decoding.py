"""Decoding token by token gives what the whole model gives."""

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from rlhf.training import cpu, decoding, forward_pass
from tests.rlhf.training.small_llamas import PROMPTS


@torch.no_grad()
def test_a_model_that_is_no_llama_takes_the_general_decoder():
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=61, n_embd=32, n_layer=2, n_head=4)).eval()
    assert not cpu.LlamaDecoder.can_decode(model)
    assert forward_pass.has_known_head(model)
    decoder = decoding.prepare(model, len(PROMPTS))()
    hidden = decoder.read(PROMPTS, 1, 2)
    hidden = decoder.step(torch.tensor([3, 4, 5, 6]))
    for row, prompt in enumerate(PROMPTS):
        expected = model(torch.tensor([[*prompt, 3 + row]])).logits[0, -1]
        assert torch.allclose(forward_pass.logits(model, hidden)[row], expected, atol=1e-4)
