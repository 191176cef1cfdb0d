"""A reward model's folder: loading, saving, and checking that its parts are complete and
consistent.

On disk: the trunk's Hugging Face folder, `prior/` (another), `adapters/` (of an ensemble of these),
`heads.safetensors` and `reward_model.json` (docs/formats.md). Folders may come from other machines,
so everything is checked before a model is built.
"""

import copy
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rlhf.training import architecture
from rlhf.training.language_models import adapters, pretrained
from rlhf.training.reward_models.model import RewardModel
from rlhf.training.reward_models.prior import PRIOR_FEATURES, FeatureScale
from rlhf.training.reward_models.scale import ScoreScale
from rlhf.training.rundir.errors import InputError
from rlhf.training.rundir.files import read_json, write_json

HEADS = "heads.safetensors"

SETTINGS = "reward_model.json"

PRIOR = "prior"

ADAPTERS = "adapters"


def save_reward_model(model: RewardModel, folder: Path, *, with_prior: bool = True) -> None:
    """Write a reward model, `reward_model.json` last.

    Its `others` go to folders within; their prior is this one's and is written once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    members = [f"member-{number}" for number in range(1, len(model.others) + 1)]
    for name, member in zip(members, model.others, strict=True):
        save_reward_model(member, folder / name, with_prior=False)
    if model.adapters:
        model.trunk.save_pretrained(folder / ADAPTERS)
        copy.deepcopy(model.trunk).unload().save_pretrained(folder)
    else:
        model.trunk.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    if model.prior is not None and with_prior:
        model.prior.save_pretrained(folder / PRIOR)
    tensors = {"weight": model.heads.weight, "bias": model.heads.bias, "log_nu": model.log_nu}
    if model.features.mean is not None and model.features.deviation is not None:
        tensors |= {
            "feature_mean": model.features.mean,
            "feature_scale": model.features.deviation,
        }
    save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, folder / HEADS)
    write_json(
        folder / SETTINGS,
        {
            "axes": list(model.axes),
            "heads": model.n_heads,
            "members": members,
            "adapters": list(model.adapters),
            "prior": model.prior is not None,
            "max_length": model.max_length,
            "mean": model.scale.mean,
            "scale": model.scale.deviation,
            "reference": model.scale.reference,
        },
    )


def load_reward_model(
    path: str | Path,
    *,
    device: Any = "cpu",
    prior: Any = None,
    dtype: torch.dtype = torch.float32,
    tokens_per_pass: int = 0,
) -> RewardModel:
    """Load a folder of `save_reward_model`, ready to score; `InputError` names what is wrong.

    `prior` is one that is loaded already and shared with other models (the members of an ensemble,
    the test-RM); a model without a prior ignores it. Nothing of the model is to be trained, so trunk
    and prior are held in `dtype`.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"The reward model folder {str(path)!r} does not exist.")
    if not (folder / SETTINGS).is_file():
        raise InputError(
            f"{str(path)!r} has no {SETTINGS}; give the train/ or test/ folder that the "
            "reward_model stage wrote."
        )
    settings = read_settings(folder / SETTINGS)
    trunk = pretrained.load_trunk(str(path), "reward model", dtype=dtype)
    tokenizer = pretrained.load_tokenizer(str(path), "reward model")
    pretrained.check_vocabulary(trunk, tokenizer, str(path), "reward model")
    tensors = read_heads(folder / HEADS, settings, architecture.hidden_size(trunk))
    names = tuple(settings["adapters"])
    if names:
        trunk = adapters.load_adapters(trunk, folder / ADAPTERS, names)
    if not settings["prior"]:
        prior = None
    elif prior is None:
        prior = pretrained.load_language_model(
            str(folder / PRIOR), "reward model's prior", dtype=dtype
        )
        prior = prior.to(device).eval().requires_grad_(requires_grad=False)
    heads = nn.Linear(tensors["weight"].shape[1], tensors["weight"].shape[0])
    heads.load_state_dict({"weight": tensors["weight"], "bias": tensors["bias"]})
    trunk = trunk.to(device).eval().requires_grad_(requires_grad=False)
    mean, deviation = tensors.get("feature_mean"), tensors.get("feature_scale")
    return RewardModel(
        axes=tuple(settings["axes"]),
        n_heads=settings["heads"],
        adapters=names,
        others=[
            load_reward_model(
                folder / name,
                device=device,
                prior=prior,
                dtype=dtype,
                tokens_per_pass=tokens_per_pass,
            )
            for name in settings["members"]
        ],
        trunk=trunk,
        tokenizer=tokenizer,
        heads=heads.to(device).requires_grad_(requires_grad=False),
        log_nu=nn.Parameter(tensors["log_nu"].to(device), requires_grad=False),
        prior=prior,
        features=FeatureScale(
            None if mean is None else mean.to(device),
            None if deviation is None else deviation.to(device),
        ),
        scale=ScoreScale(settings["mean"], settings["scale"], settings["reference"]),
        max_length=min(settings["max_length"], pretrained.context_length(trunk)),
        dtype=dtype,
        tokens_per_pass=tokens_per_pass,
    )


def read_settings(path: Path) -> dict[str, Any]:
    """The content of reward_model.json; `InputError` if a field is missing or has the wrong
    type."""
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
    """The tensors of the heads on a trunk of `hidden` units; `InputError` if they are incomplete,
    not finite, or of the wrong shapes."""
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
                f"{path} does not fit the trunk and {SETTINGS} next to it: {name} is "
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
