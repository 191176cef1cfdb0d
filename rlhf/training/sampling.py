"""Sample responses from a language model, in batches, with the key-value cache.

Written out instead of calling transformers' `generate`, because reinforcement learning needs three
things: the log-probability of every sampled token under exactly the distribution that it was drawn
from, rows that leave the batch as soon as they have ended, and a random generator of its own, so
that a resumed run continues with the same draws.

Every response has its own row of random numbers, drawn before anything else. So a sample does not
depend on which other responses share its batch or its machine.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlhf.training import decoding
from rlhf.training.truncation import Truncation

DRAW_BLOCK = 256
"""Tokens of a block in `draw`: near the square root of a large vocabulary."""

BELOW_ONE = 1 - 2.0**-52
"""A share of a sum that float64 keeps below the sum."""


@dataclass(frozen=True)
class Sampled:
    """One sampled response."""

    tokens: list[int]
    """The sampled token ids; the last one is the stop token if `finished`."""
    logprobs: list[float]
    """log p of each token in nats, under the distribution that it was drawn from."""
    finished: bool
    """Whether a stop token was sampled before the token budget ran out."""
    values: list[float] | None = None
    """The value before each token by `value_of`; None without it."""


def sample(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    k: int = 1,
    max_new_tokens: int,
    temperature: float,
    stop_ids: Sequence[int],
    pad_id: int,
    generator: torch.Generator,
    batch_size: int = 256,
    on_batch: Callable[[int], None] | None = None,
    on_token: Callable[[float], None] | None = None,
    value_of: Callable[[Tensor], Tensor] | None = None,
    share: slice | None = None,
    truncation: Truncation | None = None,
) -> list[list[Sampled]]:
    """`k` responses to each prompt (token ids), in the order of `prompts`.

    Prompts are processed in order of length, so that there is little padding; each is computed once
    for its k responses. `batch_size` counts responses, and bounds the memory together with
    `max_new_tokens`. `generator` must be on the model's device. `on_batch` is called with the
    number of finished prompts, `on_token` after each token, with the share of a batch's budget that
    is used added to it. The model should be in eval mode: dropout would make the
    log-probabilities those of another policy. `value_of` maps hidden states (rows, H) to values
    (rows,), which saves another pass over the responses. `share` selects the prompts to answer (the
    other lists stay empty): each of several processes takes its own, and draws what a single
    process would. `truncation` leaves unlikely tokens out; None draws from the whole vocabulary.
    """
    numbers = torch.rand(
        (len(prompts), k, max_new_tokens),
        generator=generator,
        device=generator.device,
        dtype=torch.float64,
    )
    order = sorted(range(len(prompts))[share or slice(None)], key=lambda i: len(prompts[i]))
    per_batch = max(1, batch_size // k)
    with torch.inference_mode():
        new_decoder = decoding.prepare(model, min(len(order), per_batch) * k)
    results: list[list[Sampled]] = [[] for _ in prompts]
    for start in range(0, len(order), per_batch):
        chunk = order[start : start + per_batch]
        rows = _sample_batch(
            new_decoder(),
            [prompts[i] for i in chunk],
            k=k,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            stop_ids=stop_ids,
            pad_id=pad_id,
            numbers=numbers[chunk].flatten(0, 1),
            value_of=value_of,
            truncation=truncation,
            on_share=on_token and functools.partial(_on_share, on_token, start, len(chunk)),
        )
        for position, i in enumerate(chunk):
            results[i] = rows[position * k : (position + 1) * k]
        if on_batch:
            on_batch(start + len(chunk))
    return results


def _on_share(on_token: Callable[[float], None], before: int, n: int, share: float) -> None:
    """Report a batch of `n` prompts, after `before` others, of whose tokens a share is sampled."""
    on_token(before + n * share)


@torch.inference_mode()
def _sample_batch(
    decoder: decoding.Decoder,
    prompts: Sequence[Sequence[int]],
    *,
    k: int,
    max_new_tokens: int,
    temperature: float,
    stop_ids: Sequence[int],
    pad_id: int,
    numbers: Tensor,
    value_of: Callable[[Tensor], Tensor] | None,
    truncation: Truncation | None,
    on_share: Callable[[float], None] | None = None,
) -> list[Sampled]:
    device = numbers.device
    n = len(prompts) * k
    stops = torch.tensor(list(stop_ids), dtype=torch.long, device=device)

    # 1. Read the prompts once; every prompt's cache then serves its k rows.
    hidden = decoder.read(prompts, k, max_new_tokens)

    # 2. Token by token. `row` says which response each line of the shrinking batch belongs to.
    row = torch.arange(n, device=device)
    tokens = torch.full((n, max_new_tokens), pad_id, dtype=torch.long, device=device)
    logprobs = torch.zeros((n, max_new_tokens), device=device)
    values = torch.zeros((n, max_new_tokens), device=device)
    lengths = torch.full((n,), max_new_tokens, dtype=torch.long, device=device)
    alive = torch.ones(n, dtype=torch.bool, device=device)
    finished = torch.zeros(n, dtype=torch.bool, device=device)
    # Reading a flag from a GPU synchronizes with it, so there it is read less often.
    check_every = 1 if device.type == "cpu" else 8
    for step in range(max_new_tokens):
        scores = decoder.logits(hidden).float().div_(temperature)
        if truncation is not None:
            scores = truncation.apply(torch.log_softmax(scores, dim=-1))
        drawn, drawn_logprobs = draw(scores, numbers[row, step])
        tokens[row, step] = torch.where(alive, drawn, pad_id)
        logprobs[row, step] = drawn_logprobs * alive
        if value_of is not None:
            values[row, step] = value_of(hidden) * alive
        ended = alive & torch.isin(drawn, stops)
        finished[row] |= ended
        lengths[row] = torch.where(ended, step + 1, lengths[row])
        alive = alive & ~ended
        if on_share:
            on_share((step + 1) / max_new_tokens)
        if step == max_new_tokens - 1:
            break
        if step % check_every == 0:
            n_alive = int(alive.sum())
            if n_alive == 0:
                break
            # 3. Ended rows leave once that is worth what it copies.
            if n_alive < len(alive) and n_alive <= decoder.drop_at * len(alive):
                kept = compact(alive)
                decoder.keep(kept)
                row, drawn, alive = row[kept], drawn[kept], alive[kept]
        hidden = decoder.step(drawn)

    ends, done = lengths.tolist(), finished.tolist()
    ids_list, lp_list, value_list = tokens.tolist(), logprobs.tolist(), values.tolist()
    return [
        Sampled(
            ids_list[i][: ends[i]],
            lp_list[i][: ends[i]],
            done[i],
            None if value_of is None else value_list[i][: ends[i]],
        )
        for i in range(n)
    ]


def compact(alive: Tensor) -> Tensor:
    """The places (n,) of the rows that are `alive`, a mask over all rows: rows stay where they are,
    except that the last ones fill the gaps before them."""
    places = alive.nonzero()[:, 0]
    order = torch.arange(len(places), device=alive.device)
    gaps = ~alive[: len(places)]
    order[gaps] = places[places >= len(places)]
    return order


def draw(scores: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """A token (rows,) from the softmax of each row's scores (rows, V), float32, by its number in
    [0, 1), and its log-probability (rows,): the first token at which the cumulative probability
    exceeds the number. A score of -inf is never drawn.

    Summed in float64 on two levels, blocks first and then tokens within the block that was reached:
    a running sum of float64 over a vocabulary of 50,000 takes longer than a small model's layers.
    """
    top = scores.amax(dim=-1, keepdim=True)
    weights = (scores - top).exp_()
    size = scores.shape[1]
    whole = size // DRAW_BLOCK * DRAW_BLOCK
    blocks = weights[:, :whole].unflatten(1, (whole // DRAW_BLOCK, DRAW_BLOCK))
    sums = blocks.sum(dim=-1, dtype=torch.float64)
    if whole < size:
        rest = weights[:, whole:].sum(dim=-1, keepdim=True, dtype=torch.float64)
        sums = torch.cat([sums, rest], dim=1)
    summed = sums.cumsum(dim=-1)
    total = summed[:, -1:]
    reached = torch.minimum(numbers[:, None] * total, total * BELOW_ONE)
    # Scores that are not finite reach nothing: clamped, so that their log-probability says so.
    block = torch.searchsorted(summed, reached, right=True).clamp_(max=summed.shape[1] - 1)

    columns = block * DRAW_BLOCK + torch.arange(DRAW_BLOCK, device=scores.device)
    inside = weights.gather(1, columns.clamp(max=size - 1)).double() * (columns < size)
    inside = inside.cumsum(dim=-1)
    reached = reached - summed.gather(1, (block - 1).clamp(min=0)) * (block > 0)
    # The two sums round differently; a number in the gap belongs to the block's last likely token.
    reached = torch.minimum(reached, inside[:, -1:] * BELOW_ONE)
    drawn = block * DRAW_BLOCK + torch.searchsorted(inside, reached, right=True)
    drawn.clamp_(max=size - 1)
    logprobs = scores.gather(1, drawn) - top - total.log().float()
    return drawn[:, 0], logprobs[:, 0]
