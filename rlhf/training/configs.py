"""The configuration of each training stage: frozen dataclasses, standard library only.

`config.json` in a run folder holds exactly the fields of the stage's class; `load` refuses an
unknown key, a missing required one and a value out of range, each in one sentence. Each field is a
`setting` (or `required`), which carries the sentence that the web forms and `docs/settings.md` show
beside it and the range that is checked.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from rlhf.training.rundir import InputError, read_json, write_json

T = TypeVar("T")


def setting(
    default: T,
    help: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[Any, ...] | None = None,
) -> T:
    """A field with a default, a sentence that explains it, and the values it may take (inclusive)."""
    limits = {"minimum": minimum, "maximum": maximum, "choices": choices}
    # Typed as T, like dataclasses.field itself, so that `seed: int = setting(0, …)` checks.
    return dataclasses.field(default=default, metadata={"help": help, **limits})


def required(help: str) -> Any:
    """A field that `config.json` must give."""
    return dataclasses.field(metadata={"help": help})


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """What every stage's configuration can do. Values are checked when it is made."""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not _fits(value, hints[field.name]):
                expected = _type_name(hints[field.name])
                raise ValueError(f"{field.name} must be {expected}, got {value!r}")
            if hints[field.name] is float and type(value) is int:
                object.__setattr__(self, field.name, float(value))
            _check_limits(field.name, value, field.metadata)
        self.check()

    def check(self) -> None:
        """Rules that concern more than one field: raise ValueError with one sentence."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from a mapping; ValueError names an unknown, missing or impossible setting."""
        fields = {field.name: field for field in dataclasses.fields(cls)}
        for name in values:
            if name not in fields:
                raise ValueError(f"{name!r} is not a setting of {cls.__name__}")
        for name, field in fields.items():
            if name not in values and field.default is dataclasses.MISSING:
                raise ValueError(f"{cls.__name__} needs {name!r}: {field.metadata['help']}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """The fields as `config.json` has them."""
        return dataclasses.asdict(self)


C = TypeVar("C", bound=StageConfig)


def load(config_class: type[C], path: Path) -> C:
    """Read a `config.json`; `InputError` says in one sentence what is wrong with it."""
    values = read_json(path)
    if not isinstance(values, dict):
        raise InputError(f"{path.name} must hold a JSON object.")
    try:
        return config_class.from_dict(values)
    except ValueError as error:
        raise InputError(f"{path.name}: {error}.") from None


def save(config: StageConfig, path: Path) -> None:
    """Write a `config.json` that `load` reads back as the same configuration."""
    write_json(path, config.to_dict())


def _fits(value: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, option) for option in typing.get_args(hint))
    if origin is dict:
        key, item = typing.get_args(hint)
        return isinstance(value, dict) and all(
            _fits(k, key) and _fits(v, item) for k, v in value.items()
        )
    if origin in (list, tuple):
        item = typing.get_args(hint)[0]
        return isinstance(value, (list, tuple)) and all(_fits(v, item) for v in value)
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    if hint is type(None):
        return value is None
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    if hint is int:
        return type(value) is int  # JSON's true is not a number of steps
    return hint is Any or isinstance(value, hint)


def _type_name(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return " or ".join(_type_name(option) for option in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(hint)))
    return "null" if hint is type(None) else names.get(hint, str(hint))


def _check_limits(name: str, value: Any, limits: Mapping[str, Any]) -> None:
    minimum, maximum = limits.get("minimum"), limits.get("maximum")
    if isinstance(value, int | float) and not isinstance(value, bool):
        if minimum is not None and value < minimum:
            raise ValueError(f"{name} must be {minimum:g} or more, got {value:g}")
        if maximum is not None and value > maximum:
            raise ValueError(f"{name} must be {maximum:g} or less, got {value:g}")
    choices = limits.get("choices")
    if choices is not None and value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class BaseConfig(StageConfig):
    """Build the base policy: a tiny Llama, trained from nothing on `data/corpus.jsonl`."""

    seed: int = setting(
        0, "Seed of the initial weights and of the order of the batches.", minimum=0
    )
    threads: int = setting(
        2, "CPU threads. The same seed and threads give the same bytes.", minimum=1, maximum=256
    )
    layers: int = setting(4, "Transformer layers.", minimum=1, maximum=64)
    hidden_size: int = setting(128, "Width of the residual stream.", minimum=8, maximum=8192)
    intermediate_size: int = setting(384, "Width of the MLP.", minimum=8, maximum=65536)
    heads: int = setting(4, "Attention heads; must divide the hidden size.", minimum=1)
    max_positions: int = setting(512, "The longest prompt plus response, in tokens.", minimum=16)
    clean_steps: int = setting(
        650, "Optimiser steps on the clean phase, where names are learnt.", minimum=0
    )
    mix_steps: int = setting(
        450, "Optimiser steps on the mix of styles, which people then rank.", minimum=0
    )
    batch_size: int = setting(32, "Examples per optimiser step.", minimum=1)
    learning_rate: float = setting(
        3e-3, "Peak of AdamW's step size; falls to a tenth linearly.", minimum=0.0, maximum=1.0
    )
    warmup_steps: int = setting(20, "Steps over which the step size rises.", minimum=0)
    weight_decay: float = setting(0.01, "AdamW's weight decay.", minimum=0.0)
    max_grad_norm: float = setting(1.0, "Gradients are clipped to this norm.", minimum=0.0)
    checkpoint_seconds: float = setting(20.0, "Write a checkpoint about this often.", minimum=0.0)

    def check(self) -> None:
        if self.hidden_size % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide hidden_size ({self.hidden_size})")
        if self.clean_steps + self.mix_steps < 1:
            raise ValueError("clean_steps and mix_steps must not both be 0")
