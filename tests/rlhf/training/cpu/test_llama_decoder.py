"""The decoder of Llamas on a CPU gives what transformers gives."""

import pytest
import torch

from rlhf.training import cpu, decoding, forward_pass
from rlhf.training.architecture import unwrap_model
from tests.rlhf.training.small_llamas import CPU, PROMPTS, llama, lora

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


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_the_decoder_of_llamas_has_the_logits_of_transformers(name):
    model = MODELS[name]()
    assert cpu.LlamaDecoder.can_decode(unwrap_model(model))
    generator = torch.Generator().manual_seed(1)
    k, steps = 2, 6
    drawn = torch.randint(1, 61, (len(PROMPTS) * k, steps), generator=generator)
    decoder, hidden = decoding.begin(model, PROMPTS, k=k, room=steps, pad_id=0, device=CPU)
    assert isinstance(decoder, cpu.LlamaDecoder)
    alive = torch.arange(len(drawn))
    for step in range(steps):
        logits = forward_pass.logits(model, hidden)
        for line, row in enumerate(alive.tolist()):
            ids = PROMPTS[row // k] + drawn[row, :step].tolist()
            expected = model(torch.tensor([ids])).logits[0, -1]
            assert torch.allclose(logits[line], expected, atol=2e-4, rtol=1e-4)
        hidden = decoder.step(drawn[alive, step])
        if step == 2:  # rows leave
            kept = torch.tensor([0, 3, 4, 7])
            decoder.keep(kept)
            alive, hidden = alive[kept], hidden[kept]
