"""LoRA adapters (Hu et al. 2021, "LoRA: low-rank adaptation of large language models")."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rlhf.training.language_models.pretrained import (
    check_finite,
    check_weights,
    load_language_model,
    load_tokenizer,
    reading_error,
)
from rlhf.training.rundir.errors import InputError
from rlhf.training.rundir.files import read_json


def load_merged_adapters(name: str, what: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """A base model with its adapters merged into it, and its tokenizer."""
    from peft import PeftModel

    settings = read_json(Path(name) / "adapter_config.json")
    base = settings.get("base_model_name_or_path") if isinstance(settings, dict) else None
    if not isinstance(base, str) or not base:
        raise InputError(
            f"adapter_config.json of the {what} {name!r} names no base_model_name_or_path; "
            "give the path of the model that the adapters belong to."
        )
    model = load_language_model(base, f"base of the {what}", dtype=dtype)
    check_weights(Path(name), what)  # peft would unpickle an adapter_model.bin
    try:
        model = PeftModel.from_pretrained(model, name)
    except Exception as error:
        raise reading_error(error, name, what) from error
    check_finite(model, name, what)
    model = model.merge_and_unload().requires_grad_(requires_grad=True)  # peft had frozen the base
    own = (Path(name) / "tokenizer_config.json").is_file()
    return model, load_tokenizer(name if own else base, what)


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
