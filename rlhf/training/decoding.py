"""Reading prompts and decoding token by token with the key-value cache; `sampling` draws the tokens.

`CachedDecoder` works for most causal models of transformers, `CrossDecoder` for every
encoder-decoder. A Llama on a CPU has a faster decoder with the same methods (`cpu`). Some
architectures ignore the cache, need another kind of cache, or have a wrong window in their
configuration. Before a model's first batch each decoder is therefore compared with the model's own
forward pass, and the first that agrees is used. `RereadingDecoder`, which needs no cache, is the
last and slowest of them.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from rlhf.training import cpu, forward_pass
from rlhf.training.architecture import (
    UNSUPPORTED,
    is_encoder_decoder,
    longest_window,
    trunk_of,
    unwrap_model,
)
from rlhf.training.packing import right_pad
from rlhf.training.rounding import relative_error, rounding_error
from rlhf.training.rundir import log


class Decoder(Protocol):
    """A batch of sequences that grow by one token at a time. Hidden states are the last layer's,
    (rows, H)."""

    @property
    def drop_at(self) -> float:
        """The share of rows still growing at which the others are worth dropping."""

    def read(self, prompts: Sequence[Sequence[int]], k: int, room: int) -> Tensor:
        """Read the prompts once each, for `k` rows that can grow by `room` tokens.

        Returns the hidden states (len(prompts) * k, H) at the prompts' last tokens, or at the
        decoder's start token where an encoder reads the prompts.
        """

    def step(self, tokens: Tensor) -> Tensor:
        """Append (rows,) tokens; returns the hidden states at them."""

    def keep(self, rows: Tensor) -> None:
        """Drop all other rows; these go on in the order given."""

    def logits(self, hidden: Tensor) -> Tensor:
        """(rows, H) hidden states to logits (rows, V)."""


def prepare(model: Any, rows: int) -> Callable[[], Decoder]:
    """What makes a decoder for each batch of about `rows` sequences, as long as the model's weights
    stay the same."""
    model = unwrap_model(model)
    if is_encoder_decoder(model):
        return functools.partial(CrossDecoder, model)
    make = agreeing_decoder(model)
    if make is CAUSAL_DECODERS["llama"]:
        return functools.partial(cpu.LlamaDecoder, cpu.LlamaWeights(model, rows))
    return functools.partial(make, model)


_AGREES: "WeakKeyDictionary[Any, dict[str, bool]]" = WeakKeyDictionary()


def agreeing_decoder(model: Any) -> Callable[[Any], Decoder]:
    """The first of `CAUSAL_DECODERS` whose hidden states and logits equal those of the model's own
    forward pass, tested once per model. `RereadingDecoder` if there is none."""
    known = _AGREES.setdefault(model, {})
    for name, make in CAUSAL_DECODERS.items():
        # Asked each time: under autocast it is no longer a model in float32.
        if name == "llama" and not cpu.LlamaDecoder.can_decode(model):
            continue
        if name not in known:
            known[name] = make is RereadingDecoder or agrees(make, model)
            if make is RereadingDecoder:
                log.warning(
                    f"{type(model).__name__} gives other log-probabilities with a key-value cache "
                    "than without, so each token reads its whole sequence: slow for long responses."
                )
        if known[name]:
            return make
    raise AssertionError("The last decoder always agrees.")


@torch.no_grad()
def agrees(make: Callable[[Any], Decoder], model: Any) -> bool:
    """Whether a decoder gives the hidden states and logits of the model's own forward pass, for two
    prompts of different lengths that begin alike, with two rows each, one of which leaves; the rows
    outgrow the model's window."""
    device = next(model.parameters()).device
    size = model.get_input_embeddings().num_embeddings
    lengths = (longest_window(model) + 5, 4)
    prompts = [[9 % size, 4 % size, *((3 * i + 5 * j + j // 7) % size for j in range(n))]
               for i, n in enumerate(lengths)]  # fmt: skip
    rows = [[*prompts[row // 2]] for row in range(4)]
    alive, kept = [0, 1, 2, 3], torch.tensor([0, 3, 1], device=device)
    decoded: list[list[tuple[Tensor, Tensor]]] = [[] for _ in rows]
    try:
        decoder = make(model)
        hidden = decoder.read(prompts, 2, 4)
        for step in range(4):
            for row, state, scores in zip(alive, hidden, decoder.logits(hidden), strict=True):
                decoded[row].append((state, scores))
            if step == 1:
                decoder.keep(kept)
                alive = [alive[row] for row in kept.tolist()]
            if step < 3:
                tokens = [(7 * step + 3 * row + 1) % size for row in alive]
                for row, token in zip(alive, tokens, strict=True):
                    rows[row].append(token)
                hidden = decoder.step(torch.tensor(tokens, device=device))
    except UNSUPPORTED:
        return False
    for read, states in zip(rows, decoded, strict=True):
        # A state depends on nothing that follows: one pass gives those of all steps.
        ids = torch.tensor([read], device=device)
        own = trunk_of(model)(input_ids=ids, use_cache=False).last_hidden_state[0, -len(states) :]
        pairs = (
            (torch.stack([state for state, _ in states]), own),
            (torch.stack([scores for _, scores in states]), forward_pass.logits(model, own)),
        )
        if any(relative_error(got, want) > rounding_error(model) for got, want in pairs):
            return False
    return True


def left_pad(rows: Sequence[Sequence[int]], pad_id: int, device: Any) -> tuple[Tensor, Tensor]:
    """Token ids padded on the left to one width, and their int attention mask; both (B, T)."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :] = torch.tensor(row, dtype=torch.long)
        mask[i, width - len(row) :] = 1
    return ids.to(device), mask.to(device)


PAD_ID = 0
"""The token in places that nothing attends to."""


class CachedDecoder:
    """A causal language model of transformers with its key-value cache, whose layers keep what the
    configuration says (all tokens, or those of a window)."""

    drop_at = 0.75  # each time the whole cache is copied

    def __init__(self, model: Any, *, keep_all: bool = False) -> None:
        from transformers.cache_utils import DynamicCache

        self.model, self.trunk = model, trunk_of(model)
        self.cache = DynamicCache() if keep_all else DynamicCache(config=model.config)

    def read(self, prompts: Sequence[Sequence[int]], k: int, room: int) -> Tensor:
        """Prompts are padded on the left."""
        ids, mask = left_pad(prompts, PAD_ID, next(self.trunk.parameters()).device)
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

    def logits(self, hidden: Tensor) -> Tensor:
        return forward_pass.logits(self.model, hidden)

    def _pass(self, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        return self.trunk(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state[:, -1]


class RereadingDecoder:
    """A causal language model without a cache: each step reads every sequence from its first token.

    Sequences are padded on the right, where no token of a causal model can see the padding.
    """

    drop_at = 1.0

    def __init__(self, model: Any) -> None:
        self.model, self.trunk = model, trunk_of(model)
        self.device = next(self.trunk.parameters()).device

    def read(self, prompts: Sequence[Sequence[int]], k: int, room: int) -> Tensor:
        self.rows = [[*prompt] for prompt in prompts for _ in range(k)]
        return self._last_states(prompts).repeat_interleave(k, dim=0)

    def step(self, tokens: Tensor) -> Tensor:
        for row, token in zip(self.rows, tokens.tolist(), strict=True):
            row.append(token)
        return self._last_states(self.rows)

    def keep(self, rows: Tensor) -> None:
        self.rows = [self.rows[row] for row in rows.tolist()]

    def logits(self, hidden: Tensor) -> Tensor:
        return forward_pass.logits(self.model, hidden)

    def _last_states(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """(rows, H) the states at each row's last token."""
        ids, mask = right_pad(rows, PAD_ID, self.device)
        hidden = self.trunk(input_ids=ids, use_cache=False).last_hidden_state
        return hidden[torch.arange(len(ids), device=self.device), mask.sum(dim=1) - 1]


def _llama(model: Any) -> cpu.LlamaDecoder:
    return cpu.LlamaDecoder(cpu.LlamaWeights(model, rows=4))


CAUSAL_DECODERS: dict[str, Callable[[Any], Decoder]] = {
    "llama": _llama,
    "cache": CachedDecoder,
    "cache of all tokens": functools.partial(CachedDecoder, keep_all=True),
    "no cache": RereadingDecoder,
}
"""Fastest first."""


class CrossDecoder:
    """Any encoder-decoder of transformers. All rows are equally long: each begins with the start
    token."""

    drop_at = 0.75  # each time the whole cache is copied

    def __init__(self, model: Any) -> None:
        self.model = model
        self.encoder, self.decoder = model.get_encoder(), model.get_decoder()
        self.start_id = model.config.decoder_start_token_id
        self.cache: Any = None

    def read(self, prompts: Sequence[Sequence[int]], k: int, room: int) -> Tensor:
        """Prompts are padded on the right."""
        ids, mask = right_pad(prompts, PAD_ID, next(self.model.parameters()).device)
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

    def logits(self, hidden: Tensor) -> Tensor:
        return forward_pass.logits(self.model, hidden)
