"""LoRA adapters (Hu et al. 2021, "LoRA: low-rank adaptation of large language models")."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rlhf.training import architecture
from rlhf.training.language_models import pretrained
from rlhf.training.language_models.pretrained import (
    check_finite,
    check_weights,
    load_language_model,
    load_tokenizer,
    reading_error,
)
from rlhf.training.rounding import relative_error, rounding_error
from rlhf.training.rundir.errors import InputError
from rlhf.training.rundir.files import read_json

ADAPTER = "adapter_config.json"

LANGUAGE_TASKS = ("CAUSAL_LM", "SEQ_2_SEQ_LM", "FEATURE_EXTRACTION", None)
"""The task types of adapters that change a language model and nothing else."""


def is_adapter_folder(name: str) -> bool:
    """Whether a model is named by a folder of adapters."""
    return (Path(name) / ADAPTER).is_file()


def load_merged(name: str, what: str, *, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """A whole language model and its tokenizer. Adapters are merged into their base model."""
    if is_adapter_folder(name):
        return _load_merged_adapters(name, what, dtype)
    return load_language_model(name, what, dtype=dtype), load_tokenizer(name, what)


def load_trunk(name: str, what: str, *, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """A model without its head, to add another head, and its tokenizer. Adapters are merged."""
    if not is_adapter_folder(name):
        return pretrained.load_trunk(name, what, dtype=dtype), load_tokenizer(name, what)
    model, tokenizer = _load_merged_adapters(name, what, dtype)
    if architecture.is_encoder_decoder(model):
        raise InputError(
            f"The {what} {name!r} is a folder of adapters for an encoder-decoder; merge them into "
            "their base model, save it, and name that folder."
        )
    return architecture.trunk_of(model), tokenizer


def adapter_base(name: str, what: str) -> str:
    """The model that a folder of adapters belongs to; `InputError` if it names none, or if the
    adapters are no language model's."""
    settings = read_json(Path(name) / ADAPTER)
    base = settings.get("base_model_name_or_path") if isinstance(settings, dict) else None
    if not isinstance(base, str) or not base:
        raise InputError(
            f"{ADAPTER} of the {what} {name!r} names no base_model_name_or_path; "
            "give the path of the model that the adapters belong to."
        )
    task = settings.get("task_type")
    if task not in LANGUAGE_TASKS:
        raise InputError(
            f"The adapters of the {what} {name!r} were trained for {task}, not for a language model."
        )
    return base


def _load_merged_adapters(name: str, what: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """A base model with its adapters merged into it, and its tokenizer."""
    from peft import PeftModel

    base = adapter_base(name, what)
    model = load_language_model(base, f"base of the {what}", dtype=dtype)
    check_weights(Path(name), what)  # peft would unpickle an adapter_model.bin
    try:
        model = PeftModel.from_pretrained(model, name).eval()
    except Exception as error:
        raise reading_error(error, name, what) from error
    check_finite(model, name, what)
    before = _logits(model)
    model = model.merge_and_unload().requires_grad_(requires_grad=True)  # peft had frozen the base
    if relative_error(_logits(model), before) > max(1e-3, rounding_error(model)):
        # An adapter on the embeddings or on the head alone, where both are one matrix.
        raise InputError(
            f"The adapters of the {what} {name!r} can't be merged into {base!r}: the merged model "
            "computes something else. Train adapters on the linear layers (target_modules "
            "'all-linear')."
        )
    own = (Path(name) / "tokenizer_config.json").is_file()
    return model, load_tokenizer(name if own else base, what)


@torch.no_grad()
def _logits(model: Any) -> Any:
    """Logits (1, 4, V) of a few tokens."""
    inside = architecture.unwrap_model(model)
    device = next(model.parameters()).device
    size = inside.get_input_embeddings().weight.shape[0]
    ids = torch.tensor([[2, 3, 5, 7]], device=device) % size
    inputs = {"input_ids": ids}
    if architecture.is_encoder_decoder(model):
        inputs["decoder_input_ids"] = ids
    return model.eval()(**inputs).logits.float()


def add_adapters(trunk: Any, names: Sequence[str], *, rank: int) -> Any:
    """A trunk with several LoRA adapters on every linear layer, of which one is active at a time;
    only they are trained."""
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="FEATURE_EXTRACTION",
    )
    model: Any = get_peft_model(trunk, settings, adapter_name=names[0])
    for name in names[1:]:
        model.add_adapter(name, settings)
    train_adapters(model)
    return model


def load_adapters(trunk: Any, folder: Path, names: Sequence[str]) -> Any:
    """A trunk with the adapters that `save_pretrained` wrote into folders of these names."""
    from peft import PeftModel

    model: Any = None
    for name in names:
        if Path(name).name != name:
            raise InputError(f"{folder} has no adapters {name!r}.")
        check_weights(folder / name, "reward model's adapters")  # peft would unpickle a .bin
        try:
            if model is None:
                model = PeftModel.from_pretrained(trunk, str(folder / name), adapter_name=name)
            else:
                model.load_adapter(str(folder / name), name)
        except Exception as error:
            raise reading_error(error, str(folder / name), "reward model's adapters") from error
    check_finite(model, str(folder), "reward model's adapters")
    return model


def train_adapters(model: Any) -> None:
    """Make all adapters trainable, active or not, and freeze everything else."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad = "lora_" in name
