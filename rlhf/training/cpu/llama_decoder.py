"""Token-by-token decoding for Llamas on a CPU, with few operations and without padding.

In a small model Python's overhead dominates; this decoder has a third of transformers' operations,
and a cache that is allocated once and written in place. In a larger one the matrices do: prompts
are read without padding, what all of them begin with (the template's head, a system turn) is read
once for the batch, and each matrix takes the product that is fastest for few rows
(`LlamaWeights`).
"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rlhf.training.cpu.llama_weights import Layer, LlamaWeights


class LlamaDecoder:
    """`decoding.Decoder` for a Llama.

    All rows write to the same column of the cache: first come the shared tokens, then each prompt's
    own tokens with padding on their left, then the response.
    """

    drop_at = 1.0

    def __init__(self, weights: LlamaWeights) -> None:
        self.weights = weights
        self.heads, self.kv_heads, self.size = weights.heads, weights.kv_heads, weights.head_size

    @staticmethod
    def can_decode(model: Any) -> bool:
        """Whether the model (without LoRA's wrapper) is a plain Llama in float32 on a CPU."""
        config = getattr(model, "config", None)
        rope = getattr(config, "rope_parameters", None) or {}
        return bool(
            getattr(config, "model_type", "") == "llama"
            and getattr(config, "hidden_act", "") == "silu"
            and rope.get("rope_type", "default") in ("default", "linear", "llama3")
            and not torch.is_autocast_enabled("cpu")
            and all(p.dtype == torch.float32 and p.device.type == "cpu" for p in model.parameters())
        )

    def read(self, prompts: Sequence[Sequence[int]], k: int, room: int) -> Tensor:
        """Read prompts for k rows each that can grow by `room` tokens; returns the hidden states
        (len(prompts) * k, H) at the prompts' last tokens."""
        shared = shared_prefix(prompts)
        start, own = len(shared), [prompt[len(shared) :] for prompt in prompts]
        width = max(map(len, own))
        self.column, columns = start + width, start + width + room
        self.cos, self.sin = self.weights.rotation(columns)
        # Prompts of one length are neighbors: their attention is one operation.
        order = sorted(range(len(own)), key=lambda i: len(own[i]))
        groups = _groups_of_a_length(own, order)
        tokens = torch.tensor([*shared, *(token for i in order for token in own[i])])
        positions = [*range(start), *(start + j for i in order for j in range(len(own[i])))]
        turn = torch.tensor(positions)
        cos, sin = self.cos[turn][:, None], self.sin[turn][:, None]
        causal = torch.full((start + width, start + width), float("-inf")).triu_(1)

        x = self.weights.embeddings[tokens]
        ends = start - 1 + torch.tensor([len(own[i]) for i in order]).cumsum(0)
        self.cache = []
        for number, layer in enumerate(self.weights.layers):
            q, key, value = self._project(layer, x, cos, sin)
            shape = (len(prompts) * k, self.kv_heads, columns, self.size)
            keys, values = torch.zeros(shape), torch.zeros(shape)
            self.cache.append((keys, values))
            keys[:, :, :start] = key[:start].transpose(0, 1)
            values[:, :, :start] = value[:start].transpose(0, 1)
            attended = torch.empty(len(x), self.heads * self.size)
            if start:
                queries, own_keys, own_values = _batched((q, key, value), slice(start), 1)
                attended[:start] = self._attend(
                    queries, own_keys, own_values, causal[:start, :start]
                )
            for begin, length, members in groups:
                count = len(members)
                part = slice(start + begin, start + begin + count * length)
                queries, own_keys, own_values = _batched((q, key, value), part, count)
                lines = (torch.tensor(members)[:, None] * k + torch.arange(k)).flatten()
                places = slice(start + width - length, start + width)
                keys[lines, :, places] = own_keys.repeat_interleave(k, dim=0)
                values[lines, :, places] = own_values.repeat_interleave(k, dim=0)
                before = keys[:count, :, :start], values[:count, :, :start]
                attended[part] = self._attend(
                    queries,
                    torch.cat([before[0], own_keys], dim=2),
                    torch.cat([before[1], own_values], dim=2),
                    causal[start : start + length, : start + length],
                )
            if (
                number == len(self.weights.layers) - 1
            ):  # the rest of the last layer: only what is read
                x, attended = x[ends], attended[ends]
            x = self._finish(layer, x, attended)
        lengths = torch.tensor([len(row) for row in own])
        self.position = (start + lengths).repeat_interleave(k)
        self.blocked = self._padding(start, width - lengths.repeat_interleave(k), columns)
        hidden = torch.empty_like(x)
        hidden[torch.tensor(order)] = self._norm(x) * self.weights.final_norm
        return hidden.repeat_interleave(k, dim=0)

    def step(self, tokens: Tensor) -> Tensor:
        """Append (rows,) tokens; returns the hidden states at them."""
        x = self.weights.embeddings[tokens]
        cos, sin = self.cos[self.position][:, None], self.sin[self.position][:, None]
        column, group = self.column, self.heads // self.kv_heads
        blocked = None
        if self.blocked is not None:
            blocked = self.blocked[:, None, None, : column + 1].expand(-1, -1, group, -1)
        for layer, (keys, values) in zip(self.weights.layers, self.cache, strict=True):
            q, key, value = self._project(layer, x, cos, sin)
            keys[:, :, column], values[:, :, column] = key, value
            # The heads that share a key are rows of one product.
            attended = functional.scaled_dot_product_attention(
                q.reshape(len(q), self.kv_heads, group, self.size),
                keys[:, :, : column + 1],
                values[:, :, : column + 1],
                attn_mask=blocked,
            )
            x = self._finish(layer, x, attended.reshape(len(x), -1))
        self.column += 1
        self.position = self.position + 1
        return self._norm(x) * self.weights.final_norm

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows, in this order. Only those that change their place are copied."""
        count, column = len(rows), self.column
        places = (rows != torch.arange(count)).nonzero()[:, 0]
        moved = rows[places]
        for keys, values in self.cache if len(places) else []:
            keys[places, :, :column] = keys[moved, :, :column]
            values[places, :, :column] = values[moved, :, :column]
        self.cache = [(keys[:count], values[:count]) for keys, values in self.cache]
        self.position = self.position[rows]
        if self.blocked is not None:
            self.blocked = self.blocked[rows]

    def logits(self, hidden: Tensor) -> Tensor:
        """(rows, H) hidden states to logits (rows, V)."""
        return self.weights.head(hidden)

    def _padding(self, start: int, left: Tensor, columns: int) -> Tensor | None:
        """Additive mask (rows, columns) of `left` (rows,) empty columns after the shared ones; None
        where no row has any."""
        if not bool(left.any()):
            return None
        place = torch.arange(columns)
        empty = (place >= start) & (place < start + left[:, None])
        return torch.zeros(empty.shape).masked_fill_(empty, float("-inf"))

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Attention of (rows, heads, S, D) over (rows, key heads, columns, D): (rows * S, H')."""
        attended = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, enable_gqa=self.heads != self.kv_heads
        )
        return attended.transpose(1, 2).reshape(-1, self.heads * self.size)

    def _norm(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.weights.eps)

    def _project(
        self, layer: Layer, x: Tensor, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries and keys, and values; each (M, heads, D)."""
        both = layer.qkv(self._norm(x)).view(len(x), -1, self.size)
        turned = both[:, : self.heads + self.kv_heads]
        half = self.size // 2
        swapped = torch.cat([turned[..., half:], turned[..., :half]], dim=-1)
        turned = torch.addcmul(turned * cos, swapped, sin)
        return (
            turned[:, : self.heads],
            turned[:, self.heads :],
            both[:, self.heads + self.kv_heads :],
        )

    def _finish(self, layer: Layer, x: Tensor, attended: Tensor) -> Tensor:
        x = x + layer.out(attended)
        gate, up = layer.gate_up(self._norm(x)).chunk(2, -1)
        return x + layer.down(functional.silu(gate).mul_(up))


def shared_prefix(prompts: Sequence[Sequence[int]]) -> list[int]:
    """The tokens that all prompts begin with, but at most all but one of the shortest; none for a
    single prompt."""
    if len(prompts) < 2:
        return []
    rows = [list(prompt) for prompt in prompts]
    first, last = min(rows), max(rows)  # in the order of a dictionary: they differ most
    most = min(map(len, rows)) - 1
    length = next((i for i in range(most) if first[i] != last[i]), most)
    return first[:length]


def _groups_of_a_length(
    rows: Sequence[Sequence[int]], order: Sequence[int]
) -> list[tuple[int, int, list[int]]]:
    """Rows of equal length, which follow one another in `order`: the first token's place in the
    concatenation, the length, and the rows."""
    groups, place = [], 0
    for length, members in itertools.groupby(order, key=lambda i: len(rows[i])):
        group = list(members)
        groups.append((place, length, group))
        place += length * len(group)
    return groups


def _batched(parts: Sequence[Tensor], tokens: slice, count: int) -> list[Tensor]:
    """The tokens (a slice) of (M, heads, D) as `count` rows: (count, heads, S, D) each."""
    return [part[tokens].unflatten(0, (count, -1)).transpose(1, 2) for part in parts]
