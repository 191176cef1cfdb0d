"""GGUF files (llama.cpp's format): model, tokenizer and chat template in one file.

transformers reads them with the package `gguf` and turns quantized weights into float32, so a model
of 98 MB in 4 bits takes 540 MB as float32. What quantization has lost does not come back.
"""

import contextlib
import importlib.util
import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from rlhf.training.rundir.errors import InputError

SUFFIX = ".gguf"
MAGIC = b"GGUF"


def is_gguf(name: str) -> bool:
    """Whether a model is named by a path to a GGUF file."""
    return name.lower().endswith(SUFFIX) and (Path(name).is_file() or Path(name).is_absolute())


def source(name: str) -> tuple[str, dict[str, Any]]:
    """The first argument of transformers' `from_pretrained`, and the other arguments that a GGUF
    file needs."""
    if not is_gguf(name):
        return name, {}
    return str(Path(name).parent), {"gguf_file": Path(name).name}


def check(path: Path, what: str) -> None:
    """`InputError` if the file can't be read as GGUF here."""
    if not path.is_file():
        raise InputError(f"The {what} {str(path)!r} does not exist.")
    with path.open("rb") as file:
        if file.read(4) != MAGIC:
            raise InputError(
                f"The {what} {str(path)!r} is not a GGUF file, although its name says so."
            )
    if importlib.util.find_spec("gguf") is None:
        raise InputError(
            f"The {what} {str(path)!r} is a GGUF file, which needs the package gguf: "
            "pip install 'ground-control[gguf]', or pip install gguf."
        )


def precision(path: Path) -> str:
    """The type that most of the file's numbers are stored in, by llama.cpp's name (Q4_1, F16)."""
    from gguf import GGUFReader

    counts: Counter[str] = Counter()
    for tensor in GGUFReader(path).tensors:
        counts[tensor.tensor_type.name] += int(tensor.n_elements)
    return counts.most_common(1)[0][0] if counts else ""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bar that transformers prints for every tensor that it converts."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield


def own_tokens(tokenizer: Any) -> Any:
    """The tokenizer without tokens that the file does not have. transformers adds GPT-2's
    `<|endoftext|>` to every vocabulary of its kind, with an id behind the last embedding."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    size = tokenizer.backend_tokenizer.get_vocab_size(with_added_tokens=False)
    foreign = {token for token, i in tokenizer.get_added_vocab().items() if i >= size}
    if not foreign:
        return tokenizer
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] not in foreign]
    names = ("bos_token", "eos_token", "pad_token", "unk_token")
    special = {name: getattr(tokenizer, name) for name in names}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        chat_template=tokenizer.chat_template,
        model_max_length=tokenizer.model_max_length,
        name_or_path=tokenizer.name_or_path,
        **{name: token for name, token in special.items() if token and token not in foreign},
    )


@torch.no_grad()
def without_marks(model: Any) -> Any:
    """The same weights in a model that is not marked as quantized: transformers refuses to train or
    to save one that is, although its weights are plain numbers by now."""
    config = model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = type(model)(config).to(dtype=model.dtype)
    plain.load_state_dict(model.state_dict())
    plain.tie_weights()
    plain.generation_config = getattr(model, "generation_config", None)
    return plain.eval()
