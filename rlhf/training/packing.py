"""Packing: the layout of prompts and responses for one forward pass, with little padding.

Several short sequences share a row of the batch: each has positions from 0, and a mask lets it
attend only to itself. If a model does not support this (`forward_pass.can_share_rows`), every
sequence gets its own row, padded on the right; a causal model needs no mask there.

An encoder-decoder (T5, BART) reads the prompt with its encoder and the response with its decoder,
which begins with a start token; both are padded on the right (`pack_encoder_decoder`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf.training.microbatches import split

MAX_GROUP_TOKENS = 256
"""Responses share their prompt in groups of up to this many tokens, because the cost of attention is
quadratic."""

WIDTH_MULTIPLE = 8
"""The width of shared rows is a multiple of this, the number of float32 values in an AVX register."""

MAX_SHARED_WIDTH = 128
"""The largest width of shared rows in tokens, or twice the longest sequence if that is more."""

ATTENTION_WIDTH = 400
"""The row width at which attention costs as much as everything else (hidden size 128; in larger models
attention's share is smaller)."""


@dataclass(frozen=True)
class Packed:
    """B prompts with their responses in R rows of S tokens; N response tokens in all."""

    inputs: dict[str, Tensor]
    """The model's arguments: `input_ids` (R, S), and if rows are shared `position_ids`
    (R, S) and an additive `attention_mask` (R, 1, S, S). For an encoder-decoder the prompts'
    `input_ids` and `attention_mask`, both (B, P), and `decoder_input_ids` (R, S) with R = B."""
    positions: Tensor
    """(N,) the position *before* each response token in the flattened batch (R * S). The first tokens
    of responses that share their prompt have the same one."""
    tokens: Tensor
    """(N,) the response tokens, one response after another."""
    rows: Tensor
    """(N,) the response that each token belongs to, from 0 to B - 1."""
    columns: Tensor
    """(N,) the token's place in its response, from 0."""
    count: int
    """B."""
    width: int
    """T, the longest response."""

    def unpack(self, values: Tensor) -> Tensor:
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

    If rows are shared, responses to the same prompt also share the prompt: it is computed once, and
    each response attends to the prompt and to itself, but not to the other responses.
    """
    groups = [[i] for i in range(len(prompts))]
    if share_rows and share_prompts:
        groups = _groups(prompts, responses)
    # The model does not read the last response token, because no token follows it.
    sizes = [len(prompts[g[0]]) + sum(len(responses[i]) - 1 for i in g) for g in groups]
    width, places = max(sizes), [(i, 0) for i in range(len(sizes))]
    if share_rows:
        width, places = _cheapest_layout(sizes)
    ids = torch.full((_n_rows(places), width), pad_id, dtype=torch.long)
    position_ids = torch.zeros_like(ids)
    group_of = torch.full_like(ids, -1)  # -1: padding
    branch_of = torch.zeros_like(ids)  # 0: the prompt; from 1: which of the responses to it
    prompt_ends = [0] * len(responses)  # in the flattened batch, the last token of the prompt
    starts = [0] * len(responses)  # and the first token of the response
    for number, (group, (row, start), size) in enumerate(zip(groups, places, sizes, strict=True)):
        prompt = prompts[group[0]]
        tokens, counted, column = [*prompt], list(range(len(prompt))), start + len(prompt)
        for branch, i in enumerate(group, start=1):
            length = len(responses[i]) - 1
            tokens += responses[i][:-1]
            counted += range(len(prompt), len(prompt) + length)
            branch_of[row, column : column + length] = branch
            prompt_ends[i], starts[i] = row * width + start + len(prompt) - 1, row * width + column
            column += length
        ids[row, start : start + size] = torch.tensor(tokens)
        position_ids[row, start : start + size] = torch.tensor(counted)
        group_of[row, start : start + size] = number
    lengths = torch.tensor([len(r) for r in responses])
    rows, columns = _rows_and_columns(lengths)
    positions = torch.where(
        columns == 0, torch.tensor(prompt_ends)[rows], torch.tensor(starts)[rows] + columns - 1
    )
    inputs = {"input_ids": ids.to(device)}
    if share_rows:
        mask = _mask(group_of.to(device), branch_of.to(device))
        inputs |= {"position_ids": position_ids.to(device), "attention_mask": mask}
    return Packed(
        inputs=inputs,
        positions=positions.to(device),
        tokens=torch.tensor([token for r in responses for token in r]).to(device),
        rows=rows.to(device),
        columns=columns.to(device),
        count=len(responses),
        width=int(lengths.max()),
    )


def _rows_and_columns(lengths: Tensor) -> tuple[Tensor, Tensor]:
    """For the N tokens of all responses, concatenated: the index of a token's response, and the
    token's index in it; both (N,)."""
    rows = torch.repeat_interleave(lengths)
    return rows, torch.arange(len(rows)) - (lengths.cumsum(0) - lengths)[rows]


def _mask(group_of: Tensor, branch_of: Tensor) -> Tensor:
    """Additive mask (R, 1, S, S): a token attends to earlier tokens of its group's prompt and of its
    own response."""
    same_group = group_of[:, :, None] == group_of[:, None, :]
    same_branch = branch_of[:, None, :] == branch_of[:, :, None]
    visible = (same_group & ((branch_of[:, None, :] == 0) | same_branch)).tril()
    mask = torch.zeros(visible.shape, device=group_of.device)
    return mask.masked_fill_(~visible, float("-inf"))[:, None]


def _groups(
    prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]
) -> list[list[int]]:
    """Responses that share their prompt, in groups of at most `MAX_GROUP_TOKENS` tokens."""
    groups: list[list[int]] = []
    latest: dict[tuple[int, ...], tuple[list[int], int]] = {}
    for i, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        key, own = tuple(prompt), len(response) - 1
        group, size = latest.get(key, ([], 0))
        if not group or size + own > MAX_GROUP_TOKENS:
            group, size = [], len(prompt)
            groups.append(group)
        group.append(i)
        latest[key] = group, size + own
    return groups


def pack_encoder_decoder(
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    *,
    pad_id: int,
    start_id: int,
    device: torch.device,
) -> Packed:
    """Lay out prompts for an encoder and responses for its decoder, one row each.

    The decoder begins with `start_id`, so its state at position i predicts response token i.
    """
    ids, mask = right_pad(prompts, pad_id, device)
    lengths = torch.tensor([len(r) for r in responses])
    shifted, _ = right_pad([[start_id, *r[:-1]] for r in responses], pad_id, device)
    rows, columns = _rows_and_columns(lengths)
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


def _cheapest_layout(sizes: Sequence[int]) -> tuple[int, list[tuple[int, int]]]:
    """The width with the lowest total cost, and the row and start of each sequence.

    The cost per position is constant, except for attention, whose cost grows with the width.
    """
    least = -(-max(sizes) // WIDTH_MULTIPLE) * WIDTH_MULTIPLE
    most = max(least, min(max(2 * least, MAX_SHARED_WIDTH), MAX_GROUP_TOKENS))
    layouts = [(width, _fit(sizes, width)) for width in range(least, most + 1, WIDTH_MULTIPLE)]
    return min(
        layouts,
        key=lambda layout: _n_rows(layout[1]) * layout[0] * (ATTENTION_WIDTH + layout[0]),
    )


def _n_rows(places: Sequence[tuple[int, int]]) -> int:
    return 1 + max(row for row, _ in places)


def _fit(sizes: Sequence[int], width: int) -> list[tuple[int, int]]:
    """Row and start of each sequence by best-fit decreasing: the longest first, each into the fullest
    row with enough room."""
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


def microbatches_by_length(
    lengths: Sequence[int], rows: Sequence[int], *, size: int, tokens: int
) -> Iterator[list[int]]:
    """`rows` in microbatches of similar length, of at most `size` rows and `tokens` padded tokens.

    `lengths` is indexed by row. A row longer than `tokens` is a microbatch by itself; `tokens` 0: no
    limit.
    """
    return split(
        sorted(rows, key=lambda i: lengths[i]),  # the longest of a microbatch comes last
        size=size,
        tokens=tokens,
        padded=lambda batch: len(batch) * lengths[batch[-1]],
    )
