"""Conversations and responses as the tokens of a reward model's own tokenizer."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlhf.training import architecture, microbatches
from rlhf.training.data import Message
from rlhf.training.language_models import answers, conversations


@dataclass(frozen=True)
class Text:
    """A conversation and one response to it, as the reward model's own tokens."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]


def tokenize(
    tokenizer: Any,
    prompts: Sequence[Sequence[Message]],
    responses: Sequence[str],
    *,
    max_length: int,
    is_t5: bool,
) -> list[Text]:
    """Tokens of conversations and one response to each, the end token included.

    A text that is too long loses the beginning of the conversation and the end of the response; the
    first half of a context of response tokens is enough to judge it. `is_t5`: the trunk is a T5's
    encoder, which reads prompts as the whole T5 does.
    """
    form = answers.form_of(tokenizer, for_encoder=is_t5)
    eos = form.end
    begin, between = [] if is_t5 else conversations.leading_special_tokens(tokenizer), []
    if eos is None:  # an encoder: [CLS] prompt [SEP] response [SEP], as it was trained
        eos = tokenizer.sep_token_id
        begin = begin or [t for t in (tokenizer.cls_token_id,) if t is not None]
        between = [t for t in (eos,) if t is not None]
    end = [] if eos is None else [eos]
    room = max_length - len(begin) - len(between)
    rendered: dict[str, str] = {}
    keys = [json.dumps(messages) for messages in prompts]
    for key, messages in zip(keys, prompts, strict=True):
        if key not in rendered:
            rendered[key] = conversations.render(tokenizer, messages, for_encoder=is_t5)
    distinct = list(rendered)
    special = conversations.takes_special_tokens(tokenizer, for_encoder=is_t5)
    encoded = tokenizer([rendered[key] for key in distinct], add_special_tokens=special)
    prompt_ids = dict(zip(distinct, encoded["input_ids"], strict=True))
    response_ids = form.encode_all(tokenizer, responses)
    texts = []
    for key, ids in zip(keys, response_ids, strict=True):
        response = [*ids[: max_length // 2 - 1], *end] or list(prompt_ids[key][-1:])
        prompt = [*begin, *prompt_ids[key][-(room - len(response)) :], *between]
        texts.append(Text(tuple(prompt), tuple(response)))
    return texts


def pad(
    texts: Sequence[Text], *, pad_id: int, device: torch.device
) -> tuple[Tensor, Tensor, int, Tensor]:
    """One text per row, prompts padded left and responses right.

    Ids and mask (B, T), the column where responses begin, and the lengths of responses (B,).
    """
    left = max(len(t.prompt) for t in texts)
    width = left + max(len(t.response) for t in texts)
    ids = torch.full((len(texts), width), pad_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, t in enumerate(texts):
        begin, end = left - len(t.prompt), left + len(t.response)
        ids[i, begin:end] = torch.tensor(t.prompt + t.response, dtype=torch.long)
        mask[i, begin:end] = 1
    lengths = torch.tensor([len(t.response) for t in texts], device=device)
    return ids.to(device), mask.to(device), left, lengths


def positions(model: Any, mask: Tensor) -> Tensor:
    """The position of every token (B, T) by the mask, counted as the model counts."""
    return (mask.cumsum(dim=1) - 1).clamp(min=0) + architecture.first_position(model)


def by_length(texts: Sequence[Text], batch_size: int, tokens: int = 0) -> list[list[int]]:
    """Indices of the texts in batches of similar length, so that there is little padding, of at most
    `batch_size` texts and `tokens` padded tokens (0: no limit)."""
    order = sorted(range(len(texts)), key=lambda i: (len(texts[i].response), len(texts[i].prompt)))
    return list(
        microbatches.split(
            order,
            size=batch_size,
            tokens=tokens,
            padded=lambda rows: padded_tokens([texts[i] for i in rows]),
        )
    )


def padded_tokens(texts: Sequence[Text]) -> int:
    """The tokens of these texts in one pass, as `pad` lays them out."""
    return len(texts) * (max(len(t.prompt) for t in texts) + max(len(t.response) for t in texts))
