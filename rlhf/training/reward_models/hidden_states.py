"""The hidden states of responses: for each response the state at its end, and the mean of all states.

With a causal trunk, responses to the same prompt share it: the prompt is computed once, and every
response attends to its cached keys and values.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rlhf.training import architecture, forward_pass, packing, ppo_math
from rlhf.training.cpu import has_fast_layers
from rlhf.training.language_models import devices
from rlhf.training.reward_models.texts import Text, pad, positions

MAX_PROMPTS_PER_TEXT = 0.75
"""Prompts are shared up to this ratio of distinct prompts to texts: above it, the second pass costs
more than the shared tokens save."""


def response_states(
    trunk: Any, texts: Sequence[Text], *, pad_id: int, device: torch.device, share_prompts: bool
) -> tuple[Tensor, Tensor]:
    """(B, H) hidden states of each response: at its end, and their mean."""
    if all(t.prompt for t in texts) and has_fast_layers(trunk):
        return _packed_states(trunk, texts, pad_id, device, share_prompts=share_prompts)
    rows = torch.arange(len(texts), device=device)
    prompts = list(dict.fromkeys(t.prompt for t in texts))
    if share_prompts and 0 < len(prompts) <= MAX_PROMPTS_PER_TEXT * len(texts) and all(prompts):
        hidden, lengths = _states_with_shared_prompts(trunk, texts, prompts, pad_id, device)
    else:
        ids, mask, left, lengths = pad(texts, pad_id=pad_id, device=device)
        hidden = trunk(
            input_ids=ids, attention_mask=mask, position_ids=positions(trunk, mask)
        ).last_hidden_state[:, left:]
    real = ppo_math.length_mask(lengths, hidden.shape[1])[..., None]
    mean = (hidden.float() * real).sum(dim=1) / lengths[:, None]
    return hidden[rows, lengths - 1], mean


def _packed_states(
    trunk: Any, texts: Sequence[Text], pad_id: int, device: torch.device, *, share_prompts: bool
) -> tuple[Tensor, Tensor]:
    """`response_states` of a small Llama on a CPU, with several texts packed into each row."""
    packed = packing.pack(
        [t.prompt for t in texts],
        # `pack` gives the state before each token; a dummy token at the end adds the last state.
        [(*t.response, 0) for t in texts],
        pad_id=pad_id,
        device=device,
        share_rows=True,
        share_prompts=share_prompts or not torch.is_grad_enabled(),
    )
    hidden = forward_pass.trunk_hidden_states(trunk, packed)
    inside = packed.columns > 0
    rows, columns, hidden = packed.rows[inside], packed.columns[inside], hidden[inside]
    lengths = torch.tensor([len(t.response) for t in texts])
    total = hidden.new_zeros(len(texts), hidden.shape[1]).index_add_(0, rows, hidden)
    return hidden[columns == lengths[rows]], total / lengths[:, None]


def _states_with_shared_prompts(
    trunk: Any,
    texts: Sequence[Text],
    prompts: Sequence[tuple[int, ...]],
    pad_id: int,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Hidden states (B, T, H) of the responses, and their lengths; each prompt is computed once."""
    index = {prompt: i for i, prompt in enumerate(prompts)}
    prompt_of = torch.tensor([index[t.prompt] for t in texts], device=device)
    ids, mask, _, _ = pad([Text(prompt, ()) for prompt in prompts], pad_id=pad_id, device=device)
    cache = trunk(
        input_ids=ids, attention_mask=mask, position_ids=positions(trunk, mask), use_cache=True
    ).past_key_values
    # A function for beam search: row i of the cache becomes that of prompt prompt_of[i].
    cache.reorder_cache(prompt_of)
    first_positions = mask.sum(dim=1) + architecture.first_position(trunk)
    ids, response_mask, _, lengths = pad(
        [Text((), t.response) for t in texts], pad_id=pad_id, device=device
    )
    # Clamped, because padding may exceed the trunk's largest position.
    offsets = torch.arange(ids.shape[1], device=device).minimum(lengths[:, None] - 1)
    hidden = trunk(
        input_ids=ids,
        attention_mask=torch.cat([mask[prompt_of], response_mask], dim=1),
        position_ids=first_positions[prompt_of][:, None] + offsets,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    return hidden, lengths


@torch.no_grad()
def can_share_prompts(
    trunk: Any,
    *,
    max_length: int,
    pad_id: int,
    device: torch.device,
    dtype: torch.dtype,
) -> bool:
    """True if sharing prompts between responses does not change this trunk's hidden states.

    This holds for causal attention, but not for an encoder, where prompt tokens attend to the
    response. It is tested on an example, because no field of a configuration is reliable.
    """
    n = min(16, max_length // 3)
    vocabulary = trunk.config.vocab_size
    tokens = [(7 * i * i + 3 * i) % vocabulary for i in range(3 * n)]
    texts = [Text(tuple(tokens[:n]), tuple(tokens[n + i : 2 * n])) for i in range(3)]
    texts += [Text(tuple(tokens[:4]), tuple(tokens[n + i : n + 3])) for i in range(2)]

    def states(*, share_prompts: bool) -> Tensor:
        both = response_states(
            trunk, texts, pad_id=pad_id, device=device, share_prompts=share_prompts
        )
        return torch.cat(both).float()

    with devices.autocast(device, dtype):
        separate = states(share_prompts=False)
        try:
            shared = states(share_prompts=True)
        except Exception:  # noqa: BLE001 - a trunk without a cache may raise anything
            return False
    error = float((separate - shared).abs().max() / separate.abs().max().clamp(min=1e-9))
    return error < (1e-3 if dtype == torch.float32 else 3e-2)
