"""The files of a model: their form, size and stored precision, read without loading the model."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from rlhf.training.language_models import adapters, gguf_files, hub_names

DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8",
    "F8_E5M2": "float8",
}
"""The precisions of safetensors' headers by torch's names."""

MOST_HEADER = 100_000_000
"""Bytes of the longest header that safetensors itself accepts."""


def describe(name: str) -> dict[str, Any]:
    """`source` (gguf, adapters, folder or hub), `base` of adapters, `n_files` and `bytes` of the
    weights, and the `precision` that most of them are stored in ("" if unknown)."""
    if gguf_files.is_gguf(name):
        return _described("gguf", [Path(name)], gguf_files.precision(Path(name)))
    folder = Path(name)
    source = "folder" if folder.is_dir() else "hub"
    if adapters.is_adapter_folder(name):
        base = adapters.adapter_base(name, "model")
        files = sorted(folder.glob("*.safetensors"))
        return _described("adapters", files, stored_precision(files), base=base)
    if source == "hub":
        folder = _cached(name)
    files = sorted(folder.glob("*.safetensors"))
    return _described(source, files, stored_precision(files))


def _described(source: str, files: list[Path], precision: str, *, base: str = "") -> dict[str, Any]:
    return {
        "source": source,
        "base": base,
        "n_files": len(files),
        "bytes": sum(file.stat().st_size for file in files),
        "precision": precision,
    }


def _cached(name: str) -> Path:
    """Where the hub's client keeps the model that it has just loaded."""
    if hub_names.PINNED.fullmatch(name):
        return Path(hub_names.local_folder(name, "model"))
    from transformers.utils.hub import cached_file

    path = cached_file(name, "config.json", local_files_only=True)
    return Path(path).parent if path else Path()


def stored_precision(files: list[Path]) -> str:
    """The precision that most numbers of safetensors files are stored in."""
    counts: Counter[str] = Counter()
    for file in files:
        for entry in _header(file).values():
            if isinstance(entry, dict) and "data_offsets" in entry:
                first, last = entry["data_offsets"]
                counts[entry.get("dtype", "")] += last - first
    if not counts:
        return ""
    dtype = counts.most_common(1)[0][0]
    return DTYPES.get(dtype, dtype.lower())


def _header(file: Path) -> dict[str, Any]:
    """The header of a safetensors file: its length in 8 bytes, then JSON."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > MOST_HEADER:
            return {}
        header = json.loads(opened.read(length))
    return header if isinstance(header, dict) else {}
