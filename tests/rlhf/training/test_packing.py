"""Prompts and responses are laid out with little waste."""

import pytest
import torch

from rlhf.training import forward_pass, packing
from tests.rlhf.training.small_llamas import CPU, PROMPTS, llama, lora


@pytest.mark.parametrize("share_rows", [True, False])
@pytest.mark.parametrize("kind", [llama, lambda: lora(llama(num_key_value_heads=2))])
@torch.no_grad()
def test_sequences_in_one_row_are_read_as_if_each_were_alone(kind, share_rows):
    model = kind()
    generator = torch.Generator().manual_seed(0)
    lengths = [9, 3, 30, 4, 4, 8, 40, 1, 33, 25]
    answers = [torch.randint(1, 61, (n,), generator=generator).tolist() for n in lengths]
    prompts = [PROMPTS[i % 4] for i in range(len(answers))]
    packed = packing.pack(prompts, answers, pad_id=0, device=CPU, share_rows=share_rows)
    shape = packed.inputs["input_ids"].shape
    # 166 tokens where the four prompts are read once: two rows; ten padded ones hold 410 and more.
    assert shape[0] == (2 if share_rows else 10)
    assert shape.numel() <= 256 if share_rows else shape.numel() > 410
    logits = forward_pass.logits(model, forward_pass.hidden_states(model, packed))
    for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        alone = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        assert torch.allclose(logits[packed.rows == i], alone, atol=2e-4, rtol=1e-4)
        assert packed.tokens[packed.rows == i].tolist() == answer
        line = packed.unpack(packed.tokens.float())[i].tolist()
        assert line == answer + [0] * (packed.width - len(answer))


def test_rows_of_long_sequences_are_no_longer_than_the_longest_needs():
    answers = [[1] * n for n in (200, 200, 100)]  # one row of 512 would hold them in fewer tokens
    prompts = [[2, i] for i in range(3)]
    packed = packing.pack(prompts, answers, pad_id=0, device=CPU, share_rows=True)
    assert tuple(packed.inputs["input_ids"].shape) == (3, 208)


def test_microbatches_hold_every_row_once_within_both_limits():
    lengths = [9, 3, 30, 4, 4, 8, 2, 100]
    parts = list(packing.microbatches_by_length(lengths, range(8), size=3, tokens=32))
    assert sorted(row for part in parts for row in part) == list(range(8))
    for part in parts:
        assert len(part) <= 3
        assert len(part) == 1 or len(part) * max(lengths[i] for i in part) <= 32
    assert len(list(packing.microbatches_by_length(lengths, range(8), size=8, tokens=0))) == 1
