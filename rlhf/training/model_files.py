"""What a model folder's files tell without loading the model: sizes, shape, context, template.

Standard library only: the web server reads folders too, and never loads torch.
"""

import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOST_HEADER_BYTES = 100 * 2**20
"""safetensors allows no longer header."""

VOLATILE = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache")
"""Keys of config.json that differ between a model and what was trained from it, without effect on
time or memory."""

LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
HIDDEN = ("hidden_size", "n_embd", "d_model")
CONTEXT = ("max_position_embeddings", "n_positions", "max_sequence_length")
HEADS = ("num_attention_heads", "n_head", "num_heads")


@dataclass(frozen=True)
class ModelShape:
    """The numbers that time and memory depend on; 0 for what the folder does not tell."""

    n_parameters: int
    n_bytes: int
    """Of the weights on disk."""
    layers: int
    hidden: int
    vocabulary: int
    context: int
    cache_width: int
    """Keys and values of a token in one layer: 2 × heads × their size."""
    has_template: bool


def read_shape(folder: str | Path) -> ModelShape | None:
    """The shape of a model folder; None if it is not a folder here with a readable config.json.

    A folder of adapters has the shape of its base model if that is a folder here.
    """
    folder = Path(folder)
    adapter = _read_json(folder / "adapter_config.json")
    if isinstance(base := adapter.get("base_model_name_or_path"), str) and base:
        folder = Path(base)
    config = _read_json(folder / "config.json")
    if not config:
        return None
    files = sorted(folder.glob("*.safetensors"))
    return shape_of(
        config,
        n_parameters=sum(map(count_parameters, files)),
        n_bytes=sum(file.stat().st_size for file in files),
        has_template=(folder / "chat_template.jinja").is_file()
        or bool(_read_json(folder / "tokenizer_config.json").get("chat_template")),
    )


def shape_of(
    config: dict[str, Any], *, n_parameters: int, n_bytes: int, has_template: bool
) -> ModelShape:
    """The shape that a model's configuration (the content of config.json) names."""
    text = config.get("text_config")
    config = {**config, **text} if isinstance(text, dict) else config
    heads, hidden = _number(config, *HEADS), _number(config, *HIDDEN)
    cached_heads = _number(config, "num_key_value_heads") or heads
    head_size = _number(config, "head_dim", "d_kv") or (hidden // heads if heads else 0)
    return ModelShape(
        n_parameters=n_parameters,
        n_bytes=n_bytes,
        layers=_number(config, *LAYERS) + _number(config, "num_decoder_layers"),
        hidden=hidden,
        vocabulary=_number(config, "vocab_size"),
        context=_number(config, *CONTEXT),
        cache_width=2 * cached_heads * head_size,
        has_template=has_template,
    )


def count_parameters(file: Path) -> int:
    """The number of values in a safetensors file, from its header; 0 if it can't be read."""
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            if length > MOST_HEADER_BYTES:
                return 0
            header = json.loads(opened.read(length))
        total = 0
        for name, tensor in header.items():
            if name != "__metadata__":
                size = 1
                for dimension in tensor["shape"]:
                    size *= int(dimension)
                total += size
        return total
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error):
        return 0


def model_key(name: str) -> str:
    """What measurements of a model are kept under: a hash of its configuration, so that a policy has
    the measurements of the model that it was trained from. A name on a hub stands for itself."""
    folder = Path(name)
    config = _read_json(folder / "config.json")
    if not config:
        adapter = _read_json(folder / "adapter_config.json").get("base_model_name_or_path")
        if isinstance(adapter, str) and adapter and adapter != name:
            return model_key(adapter)
        return hashlib.sha256(f"name:{name}".encode()).hexdigest()
    kept = {key: value for key, value in config.items() if key not in VOLATILE}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _number(config: dict[str, Any], *keys: str) -> int:
    for key in keys:
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return 0


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
