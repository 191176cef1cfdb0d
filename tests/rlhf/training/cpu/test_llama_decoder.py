"""The decoder of Llamas on a CPU gives what transformers gives."""

import pytest
import torch

from rlhf.training import cpu, decoding
from rlhf.training.architecture import unwrap_model
from rlhf.training.cpu import llama_decoder
from tests.rlhf.training.small_llamas import PROMPTS, llama, lora

MODELS = {
    "plain": lambda: llama(),
    "grouped queries and biases": lambda: llama(
        num_key_value_heads=2, attention_bias=True, mlp_bias=True, head_dim=16
    ),
    "tied, llama3's rope": lambda: llama(
        tie_word_embeddings=True,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 100.0,
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    ),
    "lora": lambda: lora(llama()),
}


TEMPLATE = [33, 34, 35, 36]
BATCHES = {
    "nothing in common": PROMPTS,
    "a template in common": [[*TEMPLATE, *prompt, 37] for prompt in PROMPTS],
    "of one length": [[9, 5], [9, 6], [7, 6], [9, 7]],
    "one the beginning of another": [[9, 5, 6], [9], [9, 5], [9, 5, 6]],
}


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_the_decoder_of_llamas_has_the_logits_of_transformers(name, batch):
    prompts, model = BATCHES[batch], MODELS[name]()
    assert cpu.LlamaDecoder.can_decode(unwrap_model(model))
    generator = torch.Generator().manual_seed(1)
    k, steps = 2, 6
    drawn = torch.randint(1, 61, (len(prompts) * k, steps), generator=generator)
    decoder = decoding.prepare(model, len(drawn))()
    hidden = decoder.read(prompts, k, steps)
    assert isinstance(decoder, cpu.LlamaDecoder)
    alive = torch.arange(len(drawn))
    for step in range(steps):
        logits = decoder.logits(hidden)
        for line, row in enumerate(alive.tolist()):
            ids = prompts[row // k] + drawn[row, :step].tolist()
            expected = model(torch.tensor([ids])).logits[0, -1]
            assert torch.allclose(logits[line], expected, atol=2e-4, rtol=1e-4)
        hidden = decoder.step(drawn[alive, step])
        if step == 2:  # rows leave
            kept = torch.tensor([0, 6, 4, 7])
            decoder.keep(kept)
            alive, hidden = alive[kept], hidden[kept]


def test_what_prompts_begin_with_leaves_each_a_token():
    assert llama_decoder.shared_prefix([[1, 2, 3], [1, 2, 4, 5]]) == [1, 2]
    assert llama_decoder.shared_prefix([[1, 2], [1, 2]]) == [1]
    assert llama_decoder.shared_prefix([[1], [1, 2]]) == []
    assert llama_decoder.shared_prefix([[1, 2, 3]]) == []
