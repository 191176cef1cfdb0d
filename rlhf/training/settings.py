"""Settings, the fields of a stage's configuration: help texts, ranges, groups, `config.json`.

A configuration is a frozen dataclass of settings and of groups of settings. A setting's key is its
path: `seed`, or `kl.weight` in a group. `config.json`, TOML presets and a round's frozen settings
store groups as nested tables; `from_dict` also accepts dotted keys and the keys of earlier versions.

Each field is a `setting` (or `required`, or `group`), with the help text of the web forms and
`docs/settings.md`, the allowed range, and the other settings that it requires. A changed setting
whose requirements are not met has no effect and is refused, except in runs and rounds that were
started with it.
"""

import dataclasses
import functools
import math
import os
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from rlhf.training.rundir import CHECKPOINT, log
from rlhf.training.rundir.errors import InputError
from rlhf.training.rundir.files import read_json, write_json

T = TypeVar("T")

MOST = 10**12
"""The default maximum of integers: a larger one could overflow 64-bit counters during a run."""

MOST_SEED = 2**63 - 1
"""The largest random seed that every random number generator accepts."""

FROZEN = "GROUND_CONTROL_FROZEN"
"""Environment variable of a stage that a worker starts: a round froze the settings, maybe in an
earlier version, so that they can't be changed."""


# --- Requirements of settings -----------------------------------------------------------------


@dataclass(frozen=True)
class Requirement:
    """Values of other settings without which a setting has no effect."""

    keys: tuple[str, ...]
    text: str
    """The text after "requires" in messages and on pages."""
    is_met: Callable[[Mapping[str, Any]], bool]
    """From `{key: value}` of the whole configuration."""


def chosen(key: str, *choices: Any) -> Requirement:
    """The other setting has one of these values."""
    text = f"{key} = {' or '.join(map(str, choices))}"
    return Requirement((key,), text, lambda values: values[key] in choices)


def above(key: str, least: float) -> Requirement:
    """The other setting is a larger number."""
    return Requirement((key,), f"{key} > {least:g}", lambda values: values[key] > least)


def given(key: str) -> Requirement:
    """The other setting is not empty."""
    return Requirement((key,), key, lambda values: bool(values[key]))


def several(key: str) -> Requirement:
    """The other setting holds more than one value."""
    return Requirement((key,), f"several {key}", lambda values: len(values[key]) > 1)


def naming(key: str, entry: str) -> Requirement:
    """The other setting has an entry of this name."""
    return Requirement((key,), f"{entry!r} in {key}", lambda values: entry in values[key])


def either(*options: Requirement) -> Requirement:
    """Any one of the requirements is sufficient."""
    return Requirement(
        tuple(key for option in options for key in option.keys),
        " or ".join(option.text for option in options),
        lambda values: any(option.is_met(values) for option in options),
    )


class IdleError(ValueError):
    """Settings without effect. `reasons` is `{key: sentence without its full stop}`."""

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
    requires: Requirement | tuple[Requirement, ...] = (),
) -> T:
    """A field with a default, a help text, its range (inclusive), and all that it requires to have
    an effect."""
    if type(default) is int and maximum is None:
        maximum = MOST
    # Typed as T, like dataclasses.field itself, so that `seed: int = setting(0, …)` checks.
    metadata = {
        "help": help,
        "minimum": minimum,
        "maximum": maximum,
        "choices": choices,
        "requires": (requires,) if isinstance(requires, Requirement) else requires,
    }
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def required(help: str) -> Any:
    """A field that `config.json` must give."""
    return dataclasses.field(metadata={"help": help})


@dataclass(frozen=True, kw_only=True)
class SettingGroup:
    """Settings that belong together. The stage's configuration checks their values."""


G = TypeVar("G", bound=SettingGroup)


def group(kind: type[G], title: str) -> G:
    """A field that holds a group of settings; `title` is its heading."""
    return dataclasses.field(default_factory=kind, metadata={"title": title})


@dataclass(frozen=True)
class Setting:
    """One setting of a stage: what is known of it before it has a value."""

    key: str
    """Its place, such as `seed` or `kl.weight`."""
    group: str
    """The heading of its group; "" outside of groups."""
    hint: Any
    """Its type."""
    default: Any
    """`dataclasses.MISSING` where `config.json` must give a value."""
    help: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[Any, ...] | None = None
    requires: tuple[Requirement, ...] = ()

    @property
    def is_required(self) -> bool:
        """Whether the setting is required in `config.json`."""
        return self.default is dataclasses.MISSING


def _settings(kind: type, prefix: str = "", title: str = "") -> dict[str, Setting]:
    """The settings of a configuration or group class by key: its own, inherited ones, groups."""
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    inherited = {
        field.name
        for base in kind.__mro__[1:]
        if dataclasses.is_dataclass(base)
        for field in dataclasses.fields(base)
    }
    groups = {name for name, field in fields.items() if "title" in field.metadata}
    specs: dict[str, Setting] = {}
    for name in sorted(fields, key=lambda name: (name in groups, name in inherited)):
        field = fields[name]
        if name in groups:
            specs |= _settings(hints[name], f"{name}.", field.metadata["title"])
            continue
        factory = field.default_factory
        default = field.default if factory is dataclasses.MISSING else factory()
        key = prefix + name
        specs[key] = Setting(key, title, hints[name], default, **field.metadata)
    return specs


# --- A stage's configuration ------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """The base class of every stage's configuration. The constructor checks the values.

    `stored`: the values come from a run folder or a round, and may have settings without effect.
    """

    OLD_KEYS: ClassVar[Mapping[str, str]] = {}
    """Keys of earlier versions in run folders and rounds, with their current key."""

    stored: dataclasses.InitVar[bool] = False

    def __post_init__(self, stored: bool) -> None:
        for key, spec in self.settings().items():
            *path, name = key.split(".")
            owner = functools.reduce(getattr, path, self)
            value = getattr(owner, name)
            if not _fits(value, spec.hint):
                raise ValueError(f"{key} must be {_type_name(spec.hint)}, got {_number(value)}")
            if spec.hint is float and type(value) is int:
                object.__setattr__(owner, name, float(value))
            _check_limits(spec, value)
        self.check()
        if not stored and (reasons := self.idle(self.flat())):
            raise IdleError(reasons)

    def check(self) -> None:
        """Rules that concern more than one setting: raise ValueError with one sentence."""

    @classmethod
    @functools.cache
    def settings(cls) -> dict[str, Setting]:
        """`{key: setting}` of all settings, groups last."""
        return _settings(cls)

    @classmethod
    def groups(cls) -> dict[str, type[SettingGroup]]:
        """The classes of the groups by the name of their field."""
        hints = typing.get_type_hints(cls)
        return {f.name: hints[f.name] for f in dataclasses.fields(cls) if "title" in f.metadata}

    @classmethod
    def split_known(cls, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """`{key: value}` of the settings in `values`, and of what is not a setting.

        `values` may hold nested tables, dotted keys and keys of earlier versions. ValueError where
        a setting is given twice.
        """
        groups = cls.groups()
        known: dict[str, Any] = {}
        unknown: dict[str, Any] = {}
        for name, value in values.items():
            # An earlier version's key may be the name of a group today, but never holds a table.
            in_group = name in groups and isinstance(value, Mapping)
            for key, content in (
                {f"{name}.{inner}": v for inner, v in value.items()} if in_group else {name: value}
            ).items():
                key = cls.OLD_KEYS.get(key, key)
                if key not in cls.settings():
                    unknown[key] = content
                elif key in known:
                    raise ValueError(f"{key} is given twice")
                else:
                    known[key] = content
        return known, unknown

    @classmethod
    def flattened(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """`{key: value}` of the settings in `values`; ValueError names an unknown one."""
        known, unknown = cls.split_known(values)
        if unknown:
            raise ValueError(f"{next(iter(unknown))!r} is not a setting of {cls.__name__}")
        return known

    @classmethod
    def merged(cls, values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
        """`values` with `changes`, as nested tables, whichever way their keys are written."""
        return nested(cls.flattened(values) | cls.flattened(changes))

    @classmethod
    def with_defaults(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """`{key: value}` of every setting; what `values` lacks is at its default."""
        defaults = {key: spec.default for key, spec in cls.settings().items()}
        return defaults | cls.flattened(values)

    @classmethod
    def unmet(cls, values: Mapping[str, Any]) -> dict[str, Requirement]:
        """The settings that have no effect with `values`, each with the requirement that is not
        met.

        What `values` lacks is at its default; a required setting counts as given.
        """
        everything = cls.with_defaults(values)
        unmet = {}
        for key, spec in cls.settings().items():
            missing = [r for r in spec.requires if not r.is_met(everything)]
            if missing:
                unmet[key] = missing[0]
        return unmet

    @classmethod
    def idle(cls, values: Mapping[str, Any]) -> dict[str, str]:
        """The settings in `values` that are changed and have no effect: `{key: sentence}`."""
        specs = cls.settings()
        everything = cls.with_defaults(values)
        switches = {key for s in specs.values() for r in s.requires for key in r.keys}
        reasons = {}
        for key, requirement in cls.unmet(values).items():
            # Switching off a setting that is off already is not an error.
            is_off = key in switches and not everything[key]
            if not is_off and _plain(everything[key]) != _plain(specs[key].default):
                others = dict.fromkeys(requirement.keys)
                state = " and ".join(f"{other} is {_shown(everything[other])}" for other in others)
                back = _shown(specs[key].default)
                reasons[key] = (
                    f"{key} requires {requirement.text}, and {state}; leave it "
                    f"{back if back == 'empty' else f'at {back}'} or change {' or '.join(others)}"
                )
        return reasons

    @classmethod
    def without_idle(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """`values` as nested tables, with settings without effect at their defaults."""
        specs = cls.settings()
        kept = cls.flattened(values)
        for _ in specs:  # a setting that goes back to its default may switch off others
            kept |= {key: specs[key].default for key in cls.idle(kept)}
        return nested(kept)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, stored: bool = False) -> Self:
        """Build from a mapping. ValueError names a setting that is unknown, missing, out of range
        or, unless `stored`, without effect."""
        flat = cls.flattened(values)
        for key, spec in cls.settings().items():
            if spec.is_required and key not in flat:
                raise ValueError(f"{cls.__name__} needs {key!r}: {spec.help}")
        groups = cls.groups()
        arguments = {
            name: groups[name](**value) if name in groups else value
            for name, value in nested(flat).items()
        }
        return cls(**arguments, stored=stored)

    def to_dict(self) -> dict[str, Any]:
        """The settings as `config.json` has them, groups as nested tables."""
        return dataclasses.asdict(self)

    def flat(self) -> dict[str, Any]:
        """`{key: value}` of every setting."""
        return {key: functools.reduce(getattr, key.split("."), self) for key in self.settings()}


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """`{"kl.weight": 0.2}` as `{"kl": {"weight": 0.2}}`."""
    tables: dict[str, Any] = {}
    for key, value in flat.items():
        name, _, inner = key.partition(".")
        if inner:
            tables.setdefault(name, {})[inner] = value
        else:
            tables[name] = value
    return tables


# --- config.json ------------------------------------------------------------------------------

C = TypeVar("C", bound=StageConfig)


def load(config_class: type[C], path: Path, *, stored: bool = False) -> C:
    """Read a `config.json`; `InputError` says in one sentence what is wrong with it.

    A stage refuses settings without effect, unless its run was started (it has a checkpoint) or
    frozen with them: then it prints a warning. `stored`: the caller only reads what was run.
    """
    values = read_json(path)
    if not isinstance(values, dict):
        raise InputError(f"{path.name} must hold a JSON object.")
    started = FROZEN in os.environ or (path.parent / CHECKPOINT).exists()
    try:
        config = config_class.from_dict(values, stored=stored or started)
    except ValueError as error:
        raise InputError(f"{path.name}: {error}.") from None
    for reason in [] if stored else config.idle(values).values():
        log.warning(f"This has no effect here: {reason}.")
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


def _check_limits(spec: Setting, value: Any) -> None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        if spec.minimum is not None and value < spec.minimum:
            raise ValueError(
                f"{spec.key} must be {_number(spec.minimum)} or more, got {_number(value)}"
            )
        if spec.maximum is not None and value > spec.maximum:
            raise ValueError(
                f"{spec.key} must be {_number(spec.maximum)} or less, got {_number(value)}"
            )
    if spec.choices is not None and value not in spec.choices:
        raise ValueError(
            f"{spec.key} must be one of {', '.join(map(str, spec.choices))}, got {value!r}"
        )


def _number(value: Any) -> str:
    """A number as text for a message; very long integers are shortened."""
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
