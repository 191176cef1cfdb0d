"""Properties of a transformers model: its parts inside LoRA's wrapper, positions, sizes, windows."""

import re
from typing import Any

T5_TYPES = ("t5", "mt5", "umt5")
"""Encoder-decoders whose encoder transformers loads alone, so that it can be a reward model."""


def unwrap_model(model: Any) -> Any:
    """The transformers model inside LoRA's wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def trunk_of(model: Any) -> Any:
    """A causal language model without its output head, inside LoRA's wrapper if there is one."""
    model = unwrap_model(model)
    trunk = model.base_model
    # Llama 4's text model names a prefix that is not the name of its trunk.
    return model.model if trunk is model and hasattr(model, "model") else trunk


def is_encoder_decoder(model: Any) -> bool:
    """Whether an encoder reads the prompt and a decoder the response, as in T5."""
    return bool(getattr(unwrap_model(model).config, "is_encoder_decoder", False))


def first_position(model: Any) -> int:
    """The position of a model's first token: usually 0. In RoBERTa and similar models (XLM-R, MPNet,
    CamemBERT, Longformer) it is `padding_idx` + 1, because `padding_idx` is reserved for padding."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2] == "position_embeddings":
            padding_idx = getattr(module, "padding_idx", None)
            return 0 if padding_idx is None else padding_idx + 1
    return 0


def hidden_size(trunk: Any) -> int:
    """H, the width of a trunk's last hidden states. OPT-350m projects its own to the width of its
    embeddings."""
    config = unwrap_model(trunk).config
    return int(getattr(config, "word_embed_proj_dim", None) or config.hidden_size)


def longest_window(model: Any) -> int:
    """The largest window of the layers, in tokens, from the configuration: a sliding window, chunked
    attention, or a state-space layer's chunk. 0 if no window is shorter than the context length. The
    configuration may name a window that the model does not use."""
    config = unwrap_model(model).config
    values = config.get_text_config().to_dict() if hasattr(config, "get_text_config") else {}
    context = values.get("max_position_embeddings") or values.get("n_positions") or 2**31
    windows = [
        size
        for name, size in values.items()
        if re.search(r"window|chunk_size|local_attention|context_length", name)
        and isinstance(size, int)
        and not isinstance(size, bool)
        and 0 < size < context
    ]
    return max(windows, default=0)


UNSUPPORTED = (
    AttributeError,
    AssertionError,
    IndexError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""The exceptions that transformers raises if an architecture does not support an argument."""
