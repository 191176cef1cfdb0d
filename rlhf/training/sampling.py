"""Sample responses from a causal language model, in batches, with the key-value cache.

Written out instead of calling `generate`, because reinforcement learning needs three things it
doesn't give cheaply: the log-probability of every sampled token under exactly the distribution it
was drawn from, rows that leave the batch as soon as they have ended, and a random generator of its
own, so that a resumed run continues with the same draws.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampled:
    """One sampled response."""

    tokens: list[int]
    """The sampled token ids; the last one is the stop token if `finished`."""
    logprobs: list[float]
    """log p of each token in nats, at the temperature sampled with."""
    finished: bool
    """Whether a stop token was sampled before the token budget ran out."""


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
) -> list[list[Sampled]]:
    """`k` responses to each prompt (token ids), in the order of `prompts`.

    Prompts are processed in order of length, so that batches hold little padding; each is read
    once for its k responses. `batch_size` counts responses, and bounds the memory together with
    `max_new_tokens`. `generator` must be on the model's device. `on_batch` is told how many
    prompts are done. The model should be in eval mode: dropout would make the log-probabilities
    those of another policy.
    """
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    per_batch = max(1, batch_size // k)
    results: list[list[Sampled]] = [[] for _ in prompts]
    for start in range(0, len(order), per_batch):
        chunk = order[start : start + per_batch]
        rows = _sample_batch(
            model,
            [prompts[i] for i in chunk],
            k=k,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            stop_ids=stop_ids,
            pad_id=pad_id,
            generator=generator,
        )
        for position, i in enumerate(chunk):
            results[i] = rows[position * k : (position + 1) * k]
        if on_batch:
            on_batch(start + len(chunk))
    return results


def left_pad(rows: Sequence[Sequence[int]], pad_id: int, device: Any) -> tuple[Tensor, Tensor]:
    """Token ids padded on the left to one width, and their int attention mask; both (B, T)."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :] = torch.tensor(row, dtype=torch.long)
        mask[i, width - len(row) :] = 1
    return ids.to(device), mask.to(device)


@torch.inference_mode()
def _sample_batch(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    k: int,
    max_new_tokens: int,
    temperature: float,
    stop_ids: Sequence[int],
    pad_id: int,
    generator: torch.Generator,
) -> list[Sampled]:
    from transformers.cache_utils import DynamicCache

    device = generator.device
    ids, mask = left_pad(prompts, pad_id, device)
    positions = mask.cumsum(dim=1).sub_(1).clamp_(min=0)
    n = len(prompts) * k
    stops = torch.tensor(list(stop_ids), dtype=torch.long, device=device)

    # 1. Read the prompts once; every prompt's cache then serves its k rows.
    cache = DynamicCache(config=model.config)
    logits = _last_logits(model, ids, mask, positions, cache)
    if k > 1:
        cache.batch_repeat_interleave(k)
        mask = mask.repeat_interleave(k, dim=0)
        logits = logits.repeat_interleave(k, dim=0)
    position = mask.sum(dim=1)

    # 2. Token by token. `row` says which response each line of the shrinking batch belongs to.
    row = torch.arange(n, device=device)
    tokens = torch.full((n, max_new_tokens), pad_id, dtype=torch.long, device=device)
    logprobs = torch.zeros((n, max_new_tokens), device=device)
    lengths = torch.full((n,), max_new_tokens, dtype=torch.long, device=device)
    alive = torch.ones(n, dtype=torch.bool, device=device)
    finished = torch.zeros(n, dtype=torch.bool, device=device)
    # Asking a GPU whether rows have ended stalls it, so there it is asked less often.
    look_every = 1 if device.type == "cpu" else 8
    for step in range(max_new_tokens):
        scaled = torch.log_softmax(logits.float() / temperature, dim=-1)
        # argmax of p / Exp(1) is a draw from p (the exponential race); unlike multinomial it
        # doesn't make a GPU wait.
        race = torch.empty_like(scaled).exponential_(generator=generator)
        drawn = (scaled - race.log_()).argmax(dim=-1)
        tokens[row, step] = torch.where(alive, drawn, pad_id)
        logprobs[row, step] = scaled.gather(1, drawn[:, None])[:, 0] * alive
        ended = alive & torch.isin(drawn, stops)
        finished[row] |= ended
        lengths[row] = torch.where(ended, step + 1, lengths[row])
        alive = alive & ~ended
        if step == max_new_tokens - 1:
            break
        if step % look_every == 0:
            n_alive = int(alive.sum())
            if n_alive == 0:
                break
            # 3. Ended rows leave once they are a quarter: each departure copies the cache.
            if n_alive <= 0.75 * len(alive):
                kept = alive.nonzero()[:, 0]
                cache.batch_select_indices(kept)
                row, drawn, mask = row[kept], drawn[kept], mask[kept]
                position, alive = position[kept], alive[kept]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        logits = _last_logits(model, drawn[:, None], mask, position[:, None], cache)
        position = position + 1

    ends, done = lengths.tolist(), finished.tolist()
    ids_list, lp_list = tokens.tolist(), logprobs.tolist()
    return [Sampled(ids_list[i][: ends[i]], lp_list[i][: ends[i]], done[i]) for i in range(n)]


def _last_logits(model: Any, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> Tensor:
    out = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return out.logits[:, -1]
