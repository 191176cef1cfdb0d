"""What a stage's configuration is made of: fields that explain themselves, limits, `config.json`.

`config.json` in a run folder holds exactly the fields of the stage's class; `load` refuses an
unknown key, a missing required one and a value out of range, each in one sentence. Each field is a
`setting` (or `required`), which carries the sentence that the web forms and `docs/settings.md` show
beside it, the range that is checked, and under which other settings it does anything at all.

A setting that is changed and does nothing beside the others is refused: whoever changed it expects
something of it. Only what was begun or frozen before goes on with it, since nothing comes of it.
"""

import dataclasses
import math
import os
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from rlhf.training.rundir import CHECKPOINT
from rlhf.training.rundir.errors import InputError
from rlhf.training.rundir.files import read_json, write_json

T = TypeVar("T")

MOST = 10**12
"""No whole number is larger, unless its setting says otherwise: beyond, what counts in 64 bits fails
in the middle of a run."""

MOST_SEED = 2**63 - 1
"""What every generator takes."""

FROZEN = "GROUND_CONTROL_FROZEN"
"""Set in the environment of a stage that a worker starts: a round froze its settings, perhaps under
an earlier version, and nobody can mend them any more."""


# --- Under which other settings a setting does anything ---------------------------------------


@dataclass(frozen=True)
class Switch:
    """Values of other settings without which a setting does nothing."""

    names: tuple[str, ...]
    says: str
    """What to read behind "only under"."""
    is_on: Callable[[Mapping[str, Any]], bool]


def chosen(name: str, *values: Any) -> Switch:
    """The other setting has one of these values."""
    says = f"{name} {' or '.join(map(repr, values))}"
    return Switch((name,), says, lambda settings: settings[name] in values)


def above(name: str, least: float) -> Switch:
    """The other setting is a larger number."""
    return Switch((name,), f"{name} above {least:g}", lambda settings: settings[name] > least)


def given(name: str) -> Switch:
    """The other setting is not empty."""
    return Switch((name,), f"a {name}", lambda settings: bool(settings[name]))


def several(name: str) -> Switch:
    """The other setting holds more than one value."""
    return Switch((name,), f"several {name}", lambda settings: len(settings[name]) > 1)


def naming(name: str, word: str) -> Switch:
    """The other setting has an entry of this name."""
    return Switch((name,), f"{name} with {word!r}", lambda settings: word in settings[name])


def either(*switches: Switch) -> Switch:
    """One of them is enough."""
    return Switch(
        tuple(name for switch in switches for name in switch.names),
        " or ".join(switch.says for switch in switches),
        lambda settings: any(switch.is_on(settings) for switch in switches),
    )


class IdleError(ValueError):
    """Settings that would do nothing. `reasons` has a sentence (without its full stop) for each."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        super().__init__(next(iter(reasons.values())))
        self.reasons = dict(reasons)


# --- Fields -----------------------------------------------------------------------------------


def setting(
    default: T,
    help: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[Any, ...] | None = None,
    under: Switch | tuple[Switch, ...] = (),
) -> T:
    """A field with a default, a sentence that explains it, the values it may take (inclusive), and
    the switches that must all be on for it to do anything."""
    if type(default) is int and maximum is None:
        maximum = MOST
    # Typed as T, like dataclasses.field itself, so that `seed: int = setting(0, …)` checks.
    metadata = {
        "help": help,
        "minimum": minimum,
        "maximum": maximum,
        "choices": choices,
        "under": (under,) if isinstance(under, Switch) else under,
    }
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def required(help: str) -> Any:
    """A field that `config.json` must give."""
    return dataclasses.field(metadata={"help": help})


def default_of(field: "dataclasses.Field[Any]") -> Any:
    """A field's default; MISSING for a required one."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """What every stage's configuration can do. Values are checked when it is made.

    `stored`: it is not made now but read again, and may hold what does nothing.
    """

    stored: dataclasses.InitVar[bool] = False

    def __post_init__(self, stored: bool) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not _fits(value, hints[field.name]):
                expected = _type_name(hints[field.name])
                raise ValueError(f"{field.name} must be {expected}, got {_number(value)}")
            if hints[field.name] is float and type(value) is int:
                object.__setattr__(self, field.name, float(value))
            _check_limits(field.name, value, field.metadata)
        self.check()
        if not stored and (reasons := self.idle(vars(self))):
            raise IdleError(reasons)

    def check(self) -> None:
        """Rules that concern more than one field: raise ValueError with one sentence."""

    @classmethod
    def switched_off(cls, values: Mapping[str, Any]) -> dict[str, Switch]:
        """The settings that do nothing beside `values`, each with the switch that is off.

        What `values` lacks is at its default; a required setting counts as given.
        """
        everything = {f.name: default_of(f) for f in dataclasses.fields(cls)} | dict(values)
        found = {}
        for field in dataclasses.fields(cls):
            off = [s for s in field.metadata.get("under", ()) if not s.is_on(everything)]
            if off:
                found[field.name] = off[0]
        return found

    @classmethod
    def idle(cls, values: Mapping[str, Any]) -> dict[str, str]:
        """What in `values` is changed and does nothing beside the rest: for each a sentence."""
        fields = {field.name: field for field in dataclasses.fields(cls)}
        defaults = {name: default_of(field) for name, field in fields.items()}
        everything = defaults | dict(values)
        switches = {
            n for f in fields.values() for s in f.metadata.get("under", ()) for n in s.names
        }
        found = {}
        for name, switch in cls.switched_off(values).items():
            # Who switches off what is off already expects nothing of it.
            off = name in switches and not everything[name]
            if not off and _plain(everything[name]) != _plain(defaults[name]):
                others = dict.fromkeys(switch.names)
                state = " and ".join(f"{other} is {_shown(everything[other])}" for other in others)
                back = _shown(defaults[name])
                found[name] = (
                    f"{name} belongs to {switch.says}, and {state}; leave it "
                    f"{back if back == 'empty' else f'at {back}'} or change {' or '.join(others)}"
                )
        return found

    @classmethod
    def without_idle(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """`values` with what does nothing put back to its default."""
        fields = {field.name: field for field in dataclasses.fields(cls)}
        kept = dict(values)
        for _ in fields:  # what is put back may switch others off
            kept |= {name: default_of(fields[name]) for name in cls.idle(kept)}
        return kept

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, stored: bool = False) -> Self:
        """Build from a mapping; ValueError names an unknown, missing, impossible or, unless it was
        `stored`, idle setting."""
        fields = {field.name: field for field in dataclasses.fields(cls)}
        for name in values:
            if name not in fields:
                raise ValueError(f"{name!r} is not a setting of {cls.__name__}")
        for name, field in fields.items():
            if name not in values and default_of(field) is dataclasses.MISSING:
                raise ValueError(f"{cls.__name__} needs {name!r}: {field.metadata['help']}")
        return cls(**values, stored=stored)

    def to_dict(self) -> dict[str, Any]:
        """The fields as `config.json` has them."""
        return dataclasses.asdict(self)


# --- config.json ------------------------------------------------------------------------------

C = TypeVar("C", bound=StageConfig)


def load(config_class: type[C], path: Path, *, stored: bool = False) -> C:
    """Read a `config.json`; `InputError` says in one sentence what is wrong with it.

    A stage refuses what does nothing, unless its run was begun (it has a checkpoint) or frozen with
    it: then it says so and goes on. `stored`: whoever reads it only wants to know what was run.
    """
    values = read_json(path)
    if not isinstance(values, dict):
        raise InputError(f"{path.name} must hold a JSON object.")
    begun = FROZEN in os.environ or (path.parent / CHECKPOINT).exists()
    try:
        config = config_class.from_dict(values, stored=stored or begun)
    except ValueError as error:
        raise InputError(f"{path.name}: {error}.") from None
    for reason in [] if stored else config.idle(values).values():
        print(f"This does nothing here: {reason}.")
    return config


def save(config: StageConfig, path: Path) -> None:
    """Write a `config.json` that `load` reads back as the same configuration."""
    write_json(path, config.to_dict())


# --- Values -----------------------------------------------------------------------------------


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
        if type(value) is int:
            return abs(value) <= sys.float_info.max
        return type(value) is float and math.isfinite(value)
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
            raise ValueError(f"{name} must be {_number(minimum)} or more, got {_number(value)}")
        if maximum is not None and value > maximum:
            raise ValueError(f"{name} must be {_number(maximum)} or less, got {_number(value)}")
    choices = limits.get("choices")
    if choices is not None and value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, got {value!r}")


def _number(value: Any) -> str:
    """A value for a sentence; whole numbers may have more digits than anybody reads."""
    if type(value) is float and math.isfinite(value):
        return f"{value:g}"
    if type(value) is int and abs(value) >= 10**20:
        return f"{value:g}" if abs(value) <= sys.float_info.max else "one of hundreds of digits"
    return repr(value)


def _plain(value: Any) -> Any:
    """JSON has lists where a default is a tuple."""
    return tuple(value) if isinstance(value, list) else value


def _shown(value: Any) -> str:
    return repr(_plain(value)) if value or isinstance(value, bool | int | float) else "empty"
