"""Reading prompts and decoding token by token with the key-value cache; `sampling` draws the tokens.

`CachedDecoder` works for every causal model of transformers, `CrossDecoder` for every
encoder-decoder. A small Llama on a CPU has a faster decoder with the same methods (`cpu`).
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from rlhf.training import cpu
from rlhf.training.architecture import is_encoder_decoder, unwrap_model
from rlhf.training.packing import right_pad


class Decoder(Protocol):
    """A batch of sequences that grow by one token at a time. Hidden states are the last layer's,
    (rows, H)."""

    def step(self, tokens: Tensor) -> Tensor:
        """Append (rows,) tokens; returns the hidden states at them."""

    def keep(self, rows: Tensor) -> None:
        """Drop all other rows."""


def begin(
    model: Any, prompts: Sequence[Sequence[int]], *, k: int, room: int, pad_id: int, device: Any
) -> tuple[Decoder, Tensor]:
    """Read the prompts once each, for `k` rows that can grow by `room` tokens.

    Returns the decoder and the hidden states (len(prompts) * k, H) at the prompts' last tokens, or
    at the decoder's start token where an encoder reads the prompts.
    """
    model = unwrap_model(model)
    if is_encoder_decoder(model):
        cross_decoder = CrossDecoder(model)
        return cross_decoder, cross_decoder.read(*right_pad(prompts, pad_id, device), k)
    ids, mask = left_pad(prompts, pad_id, device)
    decoder: Any = CachedDecoder(model)
    if cpu.LlamaDecoder.can_decode(model):
        decoder = cpu.LlamaDecoder(model, room)
    return decoder, decoder.read(ids, mask, k)


def left_pad(rows: Sequence[Sequence[int]], pad_id: int, device: Any) -> tuple[Tensor, Tensor]:
    """Token ids padded on the left to one width, and their int attention mask; both (B, T)."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :] = torch.tensor(row, dtype=torch.long)
        mask[i, width - len(row) :] = 1
    return ids.to(device), mask.to(device)


class CachedDecoder:
    """Any causal language model of transformers."""

    def __init__(self, model: Any) -> None:
        from transformers.cache_utils import DynamicCache

        self.trunk = model.base_model
        self.cache = DynamicCache(config=model.config)

    def read(self, ids: Tensor, mask: Tensor, k: int) -> Tensor:
        """Read left-padded prompts (B, T) for k rows each."""
        positions = mask.cumsum(dim=1).sub_(1).clamp_(min=0)
        hidden = self._pass(ids, mask, positions)
        self.mask, self.position = mask, mask.sum(dim=1)
        if k > 1:
            self.cache.batch_repeat_interleave(k)
            self.mask = mask.repeat_interleave(k, dim=0)
            self.position = self.position.repeat_interleave(k)
            hidden = hidden.repeat_interleave(k, dim=0)
        return hidden

    def step(self, tokens: Tensor) -> Tensor:
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
        hidden = self._pass(tokens[:, None], self.mask, self.position[:, None])
        self.position = self.position + 1
        return hidden

    def keep(self, rows: Tensor) -> None:
        self.cache.batch_select_indices(rows)
        self.mask, self.position = self.mask[rows], self.position[rows]

    def _pass(self, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        return self.trunk(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state[:, -1]


class CrossDecoder:
    """Any encoder-decoder of transformers. All rows are equally long: each begins with the start
    token."""

    def __init__(self, model: Any) -> None:
        self.encoder, self.decoder = model.get_encoder(), model.get_decoder()
        self.start_id = model.config.decoder_start_token_id
        self.cache: Any = None

    def read(self, ids: Tensor, mask: Tensor, k: int) -> Tensor:
        """Read right-padded prompts (B, P) for k rows each."""
        self.mask = mask
        self.encoded = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        hidden = self.step(ids.new_full((len(ids),), self.start_id))
        if k > 1:
            self.cache.batch_repeat_interleave(k)
            self.mask = mask.repeat_interleave(k, dim=0)
            self.encoded = self.encoded.repeat_interleave(k, dim=0)
            hidden = hidden.repeat_interleave(k, dim=0)
        return hidden

    def step(self, tokens: Tensor) -> Tensor:
        out = self.decoder(
            input_ids=tokens[:, None],
            encoder_hidden_states=self.encoded,
            encoder_attention_mask=self.mask,
            past_key_values=self.cache,
            use_cache=True,
        )
        self.cache = out.past_key_values
        return out.last_hidden_state[:, -1]

    def keep(self, rows: Tensor) -> None:
        self.cache.batch_select_indices(rows)
        self.mask, self.encoded = self.mask[rows], self.encoded[rows]
