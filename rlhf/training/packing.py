"""Reading responses with little waste: which positions count, and nothing computed for the others.

Several short sequences share a row of the batch: each counts its positions from 0 and sees itself
alone, by a mask. Where a model can't do that (`can_share_rows` tries it), every sequence gets a row
of its own, padded on the right; in a causal model nothing looks ahead, so no mask is needed there.
The output head, which for a small model costs as much as all layers together, is applied to the
positions before response tokens only: packed, (N, H).

An encoder-decoder (T5, BART) reads the prompt with its encoder and the response with its decoder,
which begins with a start token of its own; both are padded on the right (`pack_apart`).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlhf.training import llama, products

GROUP = 256
"""Tokens up to which responses to the same prompt share it: attention grows with their square."""

STEP = 64
"""Where few shapes are wanted, the width of shared rows is a multiple of this."""

FINE = 8
"""Elsewhere of this: what vectors of a processor hold."""

MOST = 128
"""Shared rows have up to so many tokens, or twice as many as the longest sequence."""

ATTENTION = 400
"""Width of a row at which attention costs as much as all else does (hidden size 128; larger models
have less of it)."""


@dataclass(frozen=True)
class Packed:
    """B prompts with their responses in R rows of S tokens; N response tokens in all."""

    inputs: dict[str, Tensor]
    """What the model is called with: `input_ids` (R, S), and where rows are shared `position_ids`
    (R, S) and an additive `attention_mask` (R, 1, S, S). For an encoder-decoder the prompts'
    `input_ids` and `attention_mask`, both (B, P), and `decoder_input_ids` (R, S) with R = B."""
    positions: Tensor
    """(N,) where in the flattened (R * S) the position *before* each response token is; before the
    first tokens of responses that share their prompt it is the same."""
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
    share_prompts: bool = True,
) -> Packed:
    """Lay out prompts and responses. Every prompt has at least one token.

    Where rows are shared, responses to the same prompt share that too: it is read once, and each of
    them sees it and itself, but not its siblings.
    """
    if share_rows and share_prompts:
        groups = _groups(prompts, responses)
    else:
        groups = [[i] for i in range(len(prompts))]
    # Nothing is read after the last response token, so it needs no place.
    sizes = [len(prompts[g[0]]) + sum(len(responses[i]) - 1 for i in g) for g in groups]
    # Few shapes, where oneDNN makes a kernel for each.
    multiple = products.rows_multiple()
    few_shapes = share_rows and device.type == "cpu" and multiple > 1
    if share_rows:
        width, places = _cheapest(sizes, STEP if few_shapes else FINE)
    else:
        width, places = max(sizes), [(i, 0) for i in range(len(sizes))]
    count = _rows(places)
    if few_shapes:
        count += -count % (multiple // math.gcd(width, multiple))
    ids = torch.full((count, width), pad_id, dtype=torch.long)
    position = torch.zeros_like(ids)
    owner = torch.full_like(ids, -1)
    branch = torch.zeros_like(ids)
    asked = [0] * len(responses)  # where the last token of each one's prompt is,
    begins = [0] * len(responses)  # and where its own first token is
    for number, (group, (row, start), size) in enumerate(zip(groups, places, sizes, strict=True)):
        prompt = prompts[group[0]]
        tokens, counted, at = [*prompt], list(range(len(prompt))), start + len(prompt)
        for sibling, i in enumerate(group, start=1):
            own = len(responses[i]) - 1
            tokens += responses[i][:-1]
            counted += range(len(prompt), len(prompt) + own)
            branch[row, at : at + own] = sibling
            asked[i], begins[i] = row * width + start + len(prompt) - 1, row * width + at
            at += own
        ids[row, start : start + size] = torch.tensor(tokens)
        position[row, start : start + size] = torch.tensor(counted)
        owner[row, start : start + size] = number
    lengths = torch.tensor([len(r) for r in responses])
    rows = torch.repeat_interleave(lengths)
    columns = torch.arange(len(rows)) - (lengths.cumsum(0) - lengths)[rows]
    positions = torch.where(
        columns == 0, torch.tensor(asked)[rows], torch.tensor(begins)[rows] + columns - 1
    )
    inputs = {"input_ids": ids.to(device)}
    if share_rows:
        owner, branch = owner.to(device), branch.to(device)
        same = (branch[:, None, :] == 0) | (branch[:, None, :] == branch[:, :, None])
        seen = ((owner[:, :, None] == owner[:, None, :]) & same).tril()
        mask = torch.zeros(seen.shape, device=device).masked_fill_(~seen, float("-inf"))
        inputs |= {"position_ids": position.to(device), "attention_mask": mask[:, None]}
    return Packed(
        inputs=inputs,
        positions=positions.to(device),
        tokens=torch.tensor([token for r in responses for token in r]).to(device),
        rows=rows.to(device),
        columns=columns.to(device),
        count=len(responses),
        width=int(lengths.max()),
    )


def _groups(
    prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]
) -> list[list[int]]:
    """Responses that read their prompt together: of the same prompt, in at most `GROUP` tokens."""
    groups: list[list[int]] = []
    latest: dict[tuple[int, ...], tuple[list[int], int]] = {}
    for i, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        key, own = tuple(prompt), len(response) - 1
        group, size = latest.get(key, ([], 0))
        if not group or size + own > GROUP:
            group, size = [], len(prompt)
            groups.append(group)
        group.append(i)
        latest[key] = group, size + own
    return groups


def pack_apart(
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    *,
    pad_id: int,
    start_id: int,
    device: torch.device,
) -> Packed:
    """Lay out prompts for an encoder and responses for its decoder, a row each.

    The decoder begins with `start_id`, so its state at place i is the one before response token i.
    """
    ids, mask = right_pad(prompts, pad_id, device)
    lengths = torch.tensor([len(r) for r in responses])
    shifted, _ = right_pad([[start_id, *r[:-1]] for r in responses], pad_id, device)
    rows = torch.repeat_interleave(lengths)
    columns = torch.arange(len(rows)) - (lengths.cumsum(0) - lengths)[rows]
    return Packed(
        inputs={"input_ids": ids, "attention_mask": mask, "decoder_input_ids": shifted},
        positions=(rows * shifted.shape[1] + columns).to(device),
        tokens=torch.tensor([token for r in responses for token in r]).to(device),
        rows=rows.to(device),
        columns=columns.to(device),
        count=len(responses),
        width=int(lengths.max()),
    )


def right_pad(
    rows: Sequence[Sequence[int]], pad_id: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Token ids padded on the right to one width, and their int attention mask; both (B, T)."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[i, : len(row)] = 1
    return ids.to(device), mask.to(device)


def _cheapest(sizes: Sequence[int], step: int) -> tuple[int, list[tuple[int, int]]]:
    """The width whose rows cost least, of multiples of `step`, and where each sequence goes.

    A place costs as much in narrow rows as in wide ones, but for attention, which looks along the
    whole row.
    """
    least = -(-max(sizes) // step) * step
    widths = range(least, max(least, min(max(2 * least, MOST), GROUP)) + 1, step)
    found = [(width, _fit(sizes, width)) for width in widths]
    return min(found, key=lambda one: _rows(one[1]) * one[0] * (ATTENTION + one[0]))


def _rows(places: Sequence[tuple[int, int]]) -> int:
    return 1 + max(row for row, _ in places)


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


def is_encoder_decoder(model: Any) -> bool:
    """Whether an encoder reads the prompt and a decoder the response, as in T5."""
    return bool(getattr(inner(model).config, "is_encoder_decoder", False))


def first_position(model: Any) -> int:
    """The position that a model gives its first token: 0, but for RoBERTa and its like (XLM-R,
    MPNet, CamemBERT, Longformer) the one after `padding_idx`, whose place in their table of
    positions is kept for padding."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2] == "position_embeddings":
            kept = getattr(module, "padding_idx", None)
            return 0 if kept is None else kept + 1
    return 0


def state_size(trunk: Any) -> int:
    """H, the width of a trunk's last hidden states: OPT-350m's are projected to that of its
    embeddings."""
    config = inner(trunk).config
    return int(getattr(config, "word_embed_proj_dim", None) or config.hidden_size)


@torch.no_grad()
def looks_ahead(trunk: Any) -> bool:
    """Whether what a token is read as depends on those after it, as in an encoder."""
    size = trunk.config.vocab_size
    ids = torch.tensor([[3, 5, 7, 9], [3, 5, 7, 11]], device=next(trunk.parameters()).device) % size
    hidden = trunk(input_ids=ids).last_hidden_state[:, :3].float()
    return not torch.allclose(hidden[0], hidden[1], atol=1e-4, rtol=1e-4)


def trunk_states(trunk: Any, packed: Packed) -> Tensor:
    """(N, H) last hidden states of a trunk (a model without head) before each response token."""
    if is_encoder_decoder(trunk):
        hidden = _decoder_states(trunk, packed.inputs)
        return hidden.flatten(0, 1)[packed.positions]
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


def _decoder_states(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """(B, S, H) last hidden states of the decoder, after the encoder has read its part."""
    mask = inputs["attention_mask"]
    encoded = model.get_encoder()(input_ids=inputs["input_ids"], attention_mask=mask)
    return model.get_decoder()(
        input_ids=inputs["decoder_input_ids"],
        encoder_hidden_states=encoded.last_hidden_state,
        encoder_attention_mask=mask,
        use_cache=False,
    ).last_hidden_state


def states(model: Any, packed: Packed) -> Tensor:
    """(N, H) last hidden states of a language model before each response token."""
    return trunk_states(inner(model).base_model, packed)


@torch.no_grad()
def can_share_rows(trunk: Any) -> bool:
    """Whether sequences that share a row are read as if each were alone, as attention with an
    explicit mask does and recurrent layers don't; and whether nothing looks ahead."""
    if is_encoder_decoder(trunk):
        return False
    device = next(trunk.parameters()).device
    size = trunk.config.vocab_size
    ids = [[(7 * (i // 2) + 3) % size, *((5 * i + 3 * j) % size for j in range(3 + i))]
           for i in range(4)]  # fmt: skip
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
    if getattr(config, "scale_decoder_outputs", False):  # T5 with tied embeddings
        hidden = hidden * config.d_model**-0.5
    head = model.get_output_embeddings()
    if hidden.ndim == 2 and len(hidden) > products.ROWS and products.computes(head):
        out = products.linear(hidden, head.weight)
    else:
        out = head(hidden)
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
    if is_encoder_decoder(inside):
        inputs = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "decoder_input_ids": ids,
        }
        expected = inside(**inputs, use_cache=False).logits.float()
        try:
            hidden = _decoder_states(inside, inputs)
        except (AttributeError, TypeError):  # parts that were put together, with heads of their own
            return False
    else:
        expected = inside(input_ids=ids, use_cache=False).logits.float()
        hidden = inside.base_model(input_ids=ids, use_cache=False).last_hidden_state
    got = logits(inside, hidden).float()
    return bool(torch.allclose(got, expected, atol=1e-2, rtol=1e-2))
