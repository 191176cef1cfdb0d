"""One forward pass of a language model over packed prompts and responses: hidden states and logits.

The output head, which for a small model costs as much as all layers together, is applied only to
the positions before response tokens, (N, H): a model's trunk and its head are called separately.
When a model is loaded, the result is compared with that of the whole model (`has_known_head`,
`can_share_rows`).
"""

from typing import Any

import torch
from torch import Tensor

from rlhf.training import cpu
from rlhf.training.architecture import (
    UNSUPPORTED,
    is_encoder_decoder,
    longest_window,
    trunk_of,
    unwrap_model,
)
from rlhf.training.packing import Packed, pack
from rlhf.training.rounding import relative_error, rounding_error


def hidden_states(model: Any, packed: Packed) -> Tensor:
    """(N, H) last hidden states of a language model before each response token."""
    return trunk_hidden_states(trunk_of(model), packed)


def trunk_hidden_states(trunk: Any, packed: Packed) -> Tensor:
    """(N, H) last hidden states of a trunk (a model without its head) before each response token."""
    if cpu.has_fast_layers(trunk):
        return cpu.hidden_states(trunk, packed.inputs, packed.positions)
    if is_encoder_decoder(trunk):
        hidden = _decoder_states(trunk, packed.inputs)
    else:
        inputs = _with_mask_in_precision(trunk, packed.inputs)
        hidden = trunk(**inputs, use_cache=False).last_hidden_state
    return hidden.flatten(0, 1)[packed.positions]


def _with_mask_in_precision(trunk: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """An additive mask in the precision of the scores that it is added to."""
    if "attention_mask" not in inputs:
        return inputs
    dtype = next(trunk.parameters()).dtype
    if torch.is_autocast_enabled(inputs["input_ids"].device.type):
        dtype = torch.get_autocast_dtype(inputs["input_ids"].device.type)
    return inputs | {"attention_mask": inputs["attention_mask"].to(dtype)}


def _decoder_states(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """(B, S, H) last hidden states of the decoder, with the encoder's reading of the prompts."""
    mask = inputs["attention_mask"]
    encoded = model.get_encoder()(input_ids=inputs["input_ids"], attention_mask=mask)
    return model.get_decoder()(
        input_ids=inputs["decoder_input_ids"],
        encoder_hidden_states=encoded.last_hidden_state,
        encoder_attention_mask=mask,
        use_cache=False,
    ).last_hidden_state


def logits(model: Any, hidden: Tensor) -> Tensor:
    """Hidden states (..., H) to logits (..., V), as the model's own forward pass would."""
    model = unwrap_model(model)
    config = model.config
    if getattr(config, "scale_decoder_outputs", False):  # T5 with tied embeddings
        hidden = hidden * config.d_model**-0.5
    out = model.get_output_embeddings()(hidden)
    if scale := getattr(config, "logit_scale", None):  # Cohere
        out = out * scale
    if scale := getattr(config, "logits_scaling", None):  # Granite
        out = out / scale
    if cap := getattr(config, "final_logit_softcapping", None):  # Gemma
        out = torch.tanh(out / cap) * cap
    return out


# --- Tests of a model's properties when it is loaded ------------------------------------------------


@torch.no_grad()
def looks_ahead(trunk: Any) -> bool:
    """Whether a token's hidden state depends on later tokens, as in an encoder."""
    size = trunk.config.vocab_size
    ids = torch.tensor([[3, 5, 7, 9], [3, 5, 7, 11]], device=next(trunk.parameters()).device) % size
    hidden = trunk(input_ids=ids).last_hidden_state[:, :3].float()
    return not torch.allclose(hidden[0], hidden[1], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def can_share_rows(trunk: Any) -> bool:
    """Whether sequences in a shared row have the same hidden states as in separate rows: true for
    attention with an explicit mask, false for recurrent layers. False also for bidirectional
    attention, and if the mask replaces a sliding window (one test sequence is longer than the
    window)."""
    if is_encoder_decoder(trunk):
        return False
    device = next(trunk.parameters()).device
    size = trunk.config.vocab_size
    lengths = [4, 5, 6, longest_window(trunk) + 7]
    ids = [[(7 * (i // 2) + 3) % size, *((5 * i + 3 * j + j // 7) % size for j in range(length - 1))]
           for i, length in enumerate(lengths)]  # fmt: skip
    try:
        packed = pack([r[:1] for r in ids], [r[1:] for r in ids], pad_id=0, device=device,
                      share_rows=True)  # fmt: skip
        together = trunk_hidden_states(trunk, packed)
        alone = [
            trunk(
                input_ids=torch.tensor([row[:-1]], device=device), use_cache=False
            ).last_hidden_state[0]
            for row in ids
        ]
    except UNSUPPORTED:
        return False
    return relative_error(together, torch.cat(alone)) < rounding_error(trunk)


@torch.no_grad()
def has_known_head(model: Any) -> bool:
    """Whether `logits` agrees with the model's own forward pass: the architecture's head may have
    operations that `logits` lacks."""
    inside = unwrap_model(model)
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
        hidden = trunk_of(inside)(input_ids=ids, use_cache=False).last_hidden_state
    got = logits(inside, hidden).float()
    return bool(torch.allclose(got, expected, atol=1e-2, rtol=1e-2))
