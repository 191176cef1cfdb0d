"""How many tokens a forward pass takes, so that its activations fit into memory.

Every stage that reads texts cuts them into passes of at most `tokens_per_pass` tokens, padding
included. The gradient of a batch is the sum over its passes, so only the rounding depends on them.
A pass always has at least one text, however long.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from rlhf.training.architecture import unwrap_model

CPU_BYTES = 2**30
"""The most that the activations of a pass may take on a CPU. Larger passes are no faster there:
hundreds of tokens keep its cores busy (docs/log/reward_models.md)."""

MEMORY_SHARE = {"cpu": 8, "cuda": 4}
"""A pass takes at most one part in so many of the device's memory; the weights, their gradients and
the optimizer take more."""

KEPT_PER_WIDTH = 1.5
"""Numbers that a training pass keeps per token, for each number that goes into and comes out of a
layer's matrices: those themselves, and half as many of norms, attention and activation functions."""

TRAINED_LOGITS, READ_LOGITS = 4, 3
"""Copies of the logits: as they are, as log-probabilities, their gradients; and one in between."""

READ_WIDTHS = 8
"""Numbers per token that exist at once where nothing is kept for a backward pass, in multiples of the
widest matrix."""


def split(
    rows: Sequence[int], *, size: int, tokens: int, padded: Callable[[Sequence[int]], int]
) -> Iterator[list[int]]:
    """`rows`, in their order, in passes of at most `size` rows and `tokens` tokens; 0: no limit.

    `padded` gives the tokens of some rows in one pass. A row of more than `tokens` is alone.
    """
    batch: list[int] = []
    for row in rows:
        if batch and (len(batch) == size or (tokens and padded([*batch, row]) > tokens)):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def default_tokens(*models: Any, device: torch.device, trains: bool) -> int:
    """Tokens of a pass over `models` whose activations fit into memory together: on a CPU into an
    eighth of the machine's, at most `CPU_BYTES`; on a GPU into a quarter of its own. `trains`: they
    are kept for a backward pass."""
    per_token = sum(bytes_per_token(model, trains=trains) for model in models)
    return max(1, memory_for_a_pass(device) // per_token)


def memory_for_a_pass(device: torch.device) -> int:
    """Bytes for the activations of a pass on this device: the same on every run, whatever else runs."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        return int(total) // MEMORY_SHARE["cuda"]
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows has none
        return CPU_BYTES
    return min(CPU_BYTES, total // MEMORY_SHARE["cpu"])


def bytes_per_token(model: Any, *, trains: bool) -> int:
    """Bytes of activations per token in float32, estimated from the shapes of the model's matrices.

    It holds within a factor of two for decoders, encoders and encoder-decoders
    (tests/rlhf/training/test_microbatches.py); attention with an explicit mask needs more on long
    texts.
    """
    inside = unwrap_model(model)
    head = inside.get_output_embeddings() if hasattr(inside, "get_output_embeddings") else None
    widths = [
        tuple(parameter.shape[-2:])
        for module in inside.modules()
        if not isinstance(module, nn.Embedding) and module is not head
        for parameter in module.parameters(recurse=False)
        if parameter.dim() >= 2
    ]
    kept = KEPT_PER_WIDTH * sum(map(sum, widths))
    read = READ_WIDTHS * max((max(width) for width in widths), default=1)
    vocabulary = 0 if head is None else head.weight.shape[0]
    logits = vocabulary * (TRAINED_LOGITS if trains else READ_LOGITS)
    return 4 * int((kept if trains else read) + logits)
