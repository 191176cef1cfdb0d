"""Reading responses with little waste: which positions count, and nothing computed for the others.

Several short sequences share a row of the batch: each counts its positions from 0 and sees itself
alone, by a mask. Where a model can't do that (`can_share_rows` tries it), every sequence gets a row
of its own, padded on the right; in a causal model nothing looks ahead, so no mask is needed there.
The output head, which for a small model costs as much as all layers together, is applied to the
positions before response tokens only: packed, (N, H).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlhf.training import llama

ROW = 64
"""Tokens of a shared row, if no sequence is longer: attention costs little beside the matrices."""


@dataclass(frozen=True)
class Packed:
    """B prompts with their responses in R rows of S tokens; N response tokens in all."""

    inputs: dict[str, Tensor]
    """What the model is called with: `input_ids` (R, S), and where rows are shared `position_ids`
    (R, S) and an additive `attention_mask` (R, 1, S, S)."""
    positions: Tensor
    """(N,) where in the flattened (R * S) the position *before* each response token is."""
    tokens: Tensor
    """(N,) the response tokens, one response after another."""
    rows: Tensor
    """(N,) the response of each, from 0 to B - 1."""
    columns: Tensor
    """(N,) its place in the response, from 0."""
    count: int
    """B."""
    width: int
    """T, the longest response."""

    def spread(self, values: Tensor) -> Tensor:
        """(N,) values to (B, T), 0 where a response has no token."""
        out = values.new_zeros(self.count * self.width)
        return out.index_put((self.rows * self.width + self.columns,), values).view(-1, self.width)


def pack(
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    *,
    pad_id: int,
    device: torch.device,
    share_rows: bool,
) -> Packed:
    """Lay out prompts and responses. Every prompt has at least one token."""
    # Nothing is read after the last response token, so it needs no place.
    sizes = [len(p) + len(r) - 1 for p, r in zip(prompts, responses, strict=True)]
    width = max(*sizes, ROW) if share_rows else max(sizes)
    places = _fit(sizes, width) if share_rows else [(i, 0) for i in range(len(sizes))]
    width = max(start + size for (_, start), size in zip(places, sizes, strict=True))
    count = 1 + max(row for row, _ in places)
    ids = torch.full((count, width), pad_id, dtype=torch.long)
    position = torch.zeros_like(ids)
    owner = torch.full_like(ids, -1)
    begins = []
    for i, ((row, start), size) in enumerate(zip(places, sizes, strict=True)):
        ids[row, start : start + size] = torch.tensor([*prompts[i], *responses[i][:-1]])
        position[row, start : start + size] = torch.arange(size)
        owner[row, start : start + size] = i
        begins.append(row * width + start + len(prompts[i]))
    lengths = torch.tensor([len(r) for r in responses])
    rows = torch.repeat_interleave(lengths)
    columns = torch.arange(len(rows)) - (lengths.cumsum(0) - lengths)[rows]
    positions = torch.tensor(begins)[rows] + columns - 1
    inputs = {"input_ids": ids.to(device)}
    if share_rows:
        owner = owner.to(device)
        seen = (owner[:, :, None] == owner[:, None, :]).tril()
        mask = torch.zeros(seen.shape, device=device).masked_fill_(~seen, float("-inf"))
        inputs |= {"position_ids": position.to(device), "attention_mask": mask[:, None]}
    return Packed(
        inputs=inputs,
        positions=positions.to(device),
        tokens=torch.tensor([token for r in responses for token in r]).to(device),
        rows=rows.to(device),
        columns=columns.to(device),
        count=len(sizes),
        width=int(lengths.max()),
    )


def _fit(sizes: Sequence[int], width: int) -> list[tuple[int, int]]:
    """Row and start of each sequence: the longest first, each into the fullest row that has room."""
    places = [(0, 0)] * len(sizes)
    used: list[int] = []
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        fitting = [row for row, taken in enumerate(used) if taken + sizes[i] <= width]
        if not fitting:
            used.append(0)
            fitting = [len(used) - 1]
        row = max(fitting, key=lambda row: used[row])
        places[i] = (row, used[row])
        used[row] += sizes[i]
    return places


def parts_by_length(
    lengths: Sequence[int], rows: Sequence[int], *, size: int, tokens: int
) -> Iterator[list[int]]:
    """`rows` in parts of similar length, of at most `size` rows and `tokens` padded tokens.

    `lengths` is indexed by row. A row that alone has more than `tokens` is a part of its own; 0
    sets no limit.
    """
    part: list[int] = []
    for row in sorted(rows, key=lambda i: lengths[i]):  # the longest of a part comes last
        if part and (len(part) == size or (tokens and (len(part) + 1) * lengths[row] > tokens)):
            yield part
            part = []
        part.append(row)
    if part:
        yield part


def inner(model: Any) -> Any:
    """The transformers model inside LoRA's wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def trunk_states(trunk: Any, packed: Packed) -> Tensor:
    """(N, H) last hidden states of a trunk (a model without head) before each response token."""
    if llama.reads(trunk):
        return llama.states(trunk, packed.inputs, packed.positions)
    inputs = dict(packed.inputs)
    if "attention_mask" in inputs:  # additive masks have the precision of what they are added to
        dtype = next(trunk.parameters()).dtype
        if torch.is_autocast_enabled(inputs["input_ids"].device.type):
            dtype = torch.get_autocast_dtype(inputs["input_ids"].device.type)
        inputs["attention_mask"] = inputs["attention_mask"].to(dtype)
    hidden = trunk(**inputs, use_cache=False).last_hidden_state
    return hidden.flatten(0, 1)[packed.positions]


def states(model: Any, packed: Packed) -> Tensor:
    """(N, H) last hidden states of a causal language model before each response token."""
    return trunk_states(inner(model).base_model, packed)


@torch.no_grad()
def can_share_rows(trunk: Any) -> bool:
    """Whether sequences that share a row are read as if each were alone, as attention with an
    explicit mask does and recurrent layers don't; and whether nothing looks ahead."""
    device = next(trunk.parameters()).device
    size = trunk.config.vocab_size
    ids = [[(7 * i + 3 * j) % size for j in range(3 + i)] for i in range(3)]
    try:
        packed = pack([r[:1] for r in ids], [r[1:] for r in ids], pad_id=0, device=device,
                      share_rows=True)  # fmt: skip
        together = trunk_states(trunk, packed).float()
        alone = [
            trunk(input_ids=torch.tensor([row[:-1]], device=device), use_cache=False)
            .last_hidden_state[0]
            .float()
            for row in ids
        ]
    except (TypeError, ValueError, RuntimeError, IndexError):
        return False
    near = 1e-3 if next(trunk.parameters()).dtype == torch.float32 else 0.1
    return bool(torch.allclose(together, torch.cat(alone), atol=near, rtol=near))


def logits(model: Any, hidden: Tensor) -> Tensor:
    """Hidden states (..., H) to logits (..., V), as the model's own forward pass would."""
    model = inner(model)
    config = model.config
    out = model.get_output_embeddings()(hidden)
    if scale := getattr(config, "logit_scale", None):  # Cohere
        out = out * scale
    if scale := getattr(config, "logits_scaling", None):  # Granite
        out = out / scale
    if cap := getattr(config, "final_logit_softcapping", None):  # Gemma
        out = torch.tanh(out / cap) * cap
    return out


@torch.no_grad()
def has_known_head(model: Any) -> bool:
    """Whether `logits` agrees with the model: an architecture may do more than is known here."""
    inside = inner(model)
    if not hasattr(inside, "base_model") or inside.get_output_embeddings() is None:
        return False
    device = next(inside.parameters()).device
    ids = torch.tensor([[1, 2, 3]], device=device) % inside.get_input_embeddings().num_embeddings
    expected = inside(input_ids=ids, use_cache=False).logits.float()
    hidden = inside.base_model(input_ids=ids, use_cache=False).last_hidden_state
    got = logits(inside, hidden).float()
    return bool(torch.allclose(got, expected, atol=1e-2, rtol=1e-2))
