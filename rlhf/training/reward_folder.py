"""A reward model's folder: the names of its files, and reading what must be whole and fit together.

The form on disk: the trunk's Hugging Face folder, `prior/` (another), `adapters/` (of an ensemble of
these), `heads.safetensors` and `reward_model.json` (docs/formats.md). Folders come from elsewhere, so
everything is looked at before a model is made of it.
"""

import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from rlhf.training.rundir import InputError, read_json

HEADS = "heads.safetensors"

SETTINGS = "reward_model.json"

PRIOR = "prior"

ADAPTERS = "adapters"

PRIOR_FEATURES = 3
"""What the heads see of a prior, beside the trunk's states."""


def read_settings(path: Path) -> dict[str, Any]:
    """What `save` wrote into reward_model.json, whole and of the right kinds, or `InputError`."""
    try:
        settings = read_json(path)
    except InputError as error:
        raise InputError(
            f"The reward model in {str(path.parent)!r} can't be read: {error}"
        ) from None
    if not isinstance(settings, dict):
        raise InputError(f"{path} must hold a JSON object, as the reward_model stage writes it.")
    older: dict[str, Any] = {"heads": 1, "members": [], "adapters": []}
    settings = older | settings
    for name in ("axes", "prior", "max_length", "mean", "scale", "reference"):
        if name not in settings:
            raise InputError(
                f"{path} has no {name!r}; copy the reward model again from where it was trained."
            )
    wanted = {
        "axes": ("a list of different names", _are_names(settings["axes"]) and settings["axes"]),
        "prior": ("true or false", isinstance(settings["prior"], bool)),
        "max_length": ("a whole number of 8 or more", _is_count(settings["max_length"], 8)),
        "heads": ("a whole number of 1 or more", _is_count(settings["heads"], 1)),
        "members": ("a list of folders within", _are_folders(settings["members"])),
        "adapters": (
            "a list of folders within, one for each of the heads, or empty",
            _are_folders(settings["adapters"])
            and len(settings["adapters"]) in (0, settings["heads"]),
        ),
        "mean": ("a number for each axis", _are_numbers(settings["mean"])),
        "scale": (
            "a number above 0 for each axis",
            _are_numbers(settings["scale"]) and all(s > 0 for s in settings["scale"].values()),
        ),
        "reference": (
            "mean, std and n for each axis and risk",
            isinstance(settings["reference"], dict)
            and all(
                isinstance(risks, dict)
                and all(_are_numbers(r) and {"mean", "std", "n"} <= set(r) for r in risks.values())
                for risks in settings["reference"].values()
            ),
        ),
    }
    for name, (kind, right) in wanted.items():
        if not right:
            raise InputError(
                f"{path}: {name} must be {kind}, got {settings[name]!r}; copy the reward model "
                "again from where it was trained."
            )
    return settings


def read_heads(path: Path, settings: dict[str, Any], hidden: int) -> dict[str, Tensor]:
    """The tensors beside a trunk of `hidden` units, whole, finite and of the right shapes."""
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} can't be read: {error}") from None
    outputs = settings["heads"] * len(settings["axes"])
    features = PRIOR_FEATURES if settings["prior"] else 0
    shapes = {
        "weight": (outputs, 2 * hidden + features),
        "bias": (outputs,),
        "log_nu": (len(settings["axes"]),),
    }
    if {"feature_mean", "feature_scale"} & set(tensors):
        shapes |= {"feature_mean": (PRIOR_FEATURES,), "feature_scale": (PRIOR_FEATURES,)}
    for name, shape in shapes.items():
        if name not in tensors:
            raise InputError(
                f"{path} has no {name!r}; copy the reward model again from where it was trained."
            )
        if tensors[name].shape != shape:
            raise InputError(
                f"{path} does not fit the trunk and {SETTINGS} beside it: {name} is "
                f"{tuple(tensors[name].shape)} and should be {shape}; copy the whole folder again."
            )
    if not all(torch.isfinite(t).all() for t in tensors.values()):
        raise InputError(f"{path} holds NaN or infinity; train the model again.")
    return tensors


def _are_names(value: Any) -> bool:
    """Whether it is a list of different texts."""
    return (
        isinstance(value, list)
        and all(isinstance(name, str) for name in value)
        and len(set(value)) == len(value)
    )


def _are_folders(value: Any) -> bool:
    """Whether it is a list of different names, none of which leads out of a folder."""
    return _are_names(value) and all(name and Path(name).name == name for name in value)


def _is_count(value: Any, least: int) -> bool:
    return type(value) is int and value >= least


def _are_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(
        type(number) in (int, float) and math.isfinite(number) for number in value.values()
    )
