"""What a transformers model is: inside LoRA's wrapper, by its configuration, by its modules."""

from typing import Any

T5_TYPES = ("t5", "mt5", "umt5")
"""Encoder-decoders whose encoder transformers loads alone, so that it can be a reward model."""


def unwrap_model(model: Any) -> Any:
    """The transformers model inside LoRA's wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def is_encoder_decoder(model: Any) -> bool:
    """Whether an encoder reads the prompt and a decoder the response, as in T5."""
    return bool(getattr(unwrap_model(model).config, "is_encoder_decoder", False))


def first_position(model: Any) -> int:
    """The position of a model's first token: 0, but in RoBERTa and its relatives (XLM-R, MPNet,
    CamemBERT, Longformer) the one after `padding_idx`, which their table of positions reserves for
    padding."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2] == "position_embeddings":
            kept = getattr(module, "padding_idx", None)
            return 0 if kept is None else kept + 1
    return 0


def hidden_size(trunk: Any) -> int:
    """H, the width of a trunk's last hidden states. OPT-350m projects its own to the width of its
    embeddings."""
    config = unwrap_model(trunk).config
    return int(getattr(config, "word_embed_proj_dim", None) or config.hidden_size)
