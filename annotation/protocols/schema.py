"""Protocols: what exactly a person is asked about a comparison, as data that is checked when read.

A project has an `interface` (what the page looks like) and a protocol (what it asks). A batch keeps
both as they were when it was made, so changing a project never changes what somebody is answering.
Nothing here knows of the database.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

RANK, PAIR, DIALOGUE, DEMONSTRATE, REWRITE, RATE = INTERFACES = (
    "rank",
    "pair",
    "dialogue",
    "demonstrate",
    "rewrite",
    "rate",
)
# How many responses a comparison has under each: (fewest, most).
RESPONSES: dict[str, tuple[int, int]] = {
    RANK: (2, 9),
    PAIR: (2, 2),
    DIALOGUE: (2, 2),
    DEMONSTRATE: (0, 9),
    REWRITE: (1, 9),
    RATE: (1, 9),
}
# The rank of what a top-k ranking left out: behind every rank that can be given, in no order.
BELOW = 10
# Interfaces whose answer orders the responses, and those whose answer is a text.
COMPARING = (RANK, PAIR, DIALOGUE)
WRITING = (DEMONSTRATE, REWRITE)

# The measure "safe or unsafe" of each response, next to axes and attributes in statistics and gold: no axis and no attribute has a colon or a slash in its key.
SAFE_OR_NOT = "safe/unsafe"


def mark_on(attribute: str) -> str:
    """The name of a rated attribute as something to agree on: HelpSteer has an axis of the same key."""
    return f"mark:{attribute}"


def is_mark(measure: str) -> bool:
    """Whether this names something said of each response by itself, and not an axis."""
    return measure == SAFE_OR_NOT or measure.startswith("mark:")


def called(measure: str) -> str:
    """An axis or a mark as it is called where its key is shown."""
    if measure == SAFE_OR_NOT:
        return "safe or unsafe"
    return measure.removeprefix("mark:") + " (mark)" if is_mark(measure) else measure


# An axis with one of these keys asks about harm; every other axis asks how good a response is.
SAFETY_AXES = frozenset({"safety", "harmlessness"})

Reason = Literal["none", "optional", "required"]
Rewrite = Literal["none", "optional"]
Unranked = Literal["refused", "unknown", "below"]


class ProtocolError(ValueError):
    """A protocol that can't be used, in one sentence for the person who wrote it."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """One step of a strength scale: how much better the better one is."""

    label: str
    margin: float = 0.0
    """What training may add to the difference that it asks for (TRL: `margin`)."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How strongly one of two is preferred: levels from the weakest to the strongest."""

    levels: tuple[Level, ...] = (Level(label="better"),)
    tie: str = ""
    """What the middle is called; empty: one of the two must be chosen."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.levels) <= 4:
            raise ProtocolError(f"A scale has 1 to 4 levels, this one has {len(self.levels)}.")


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """One thing that each response is rated on, from `low` to `high`; 0 to 1 is a yes or no."""

    key: str
    name: str
    question: str = ""
    low: int = 1
    high: int = 5
    low_label: str = ""
    high_label: str = ""
    is_required: bool = True

    def __post_init__(self) -> None:
        if not self.key.replace("_", "").isalnum() or not self.key.isascii():
            raise ProtocolError(f"An attribute's key is a plain word, not “{self.key[:40]}”.")
        if not 0 <= self.low < self.high <= 9:
            raise ProtocolError(f"{self.name}: a rating goes from 0 or more to 9 or less.")

    @property
    def is_yes_no(self) -> bool:
        return (self.low, self.high) == (0, 1)

    @property
    def values(self) -> range:
        return range(self.low, self.high + 1)

    @property
    def tolerance(self) -> int:
        """How far a mark may be from a known one: a quarter of the scale, rounded down."""
        return (self.high - self.low) // 4


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What is asked in addition to the axes. The defaults are those of a plain ranking."""

    preset: str = ""
    """Which preset it began as; a label, nothing reads meaning from it."""
    scale: Scale = Scale()
    """Under `pair` and `dialogue`: how strongly."""
    unranked: Unranked = "unknown"
    """Under `rank`, what leaving a response out says: nothing, that it is worse than all that are
    ranked (a top-k ranking), or it may not be left out."""
    all_bad: bool = False
    """A person may say that not one response is good enough; the order is given all the same."""
    reason: Reason = "optional"
    reason_min: int = 0
    """Fewest characters of a required reason, and of an optional one that is given."""
    rewrite: Rewrite = "optional"
    """Under interfaces that compare or rate: whether a better answer may be written."""
    text_min: int = 1
    """Under `demonstrate` and `rewrite`: fewest characters of the answer."""
    attributes: tuple[Attribute, ...] = ()
    safety: bool = False
    """Each response is voted safe or not, apart from how good it is."""
    harms: Mapping[str, str] = field(default_factory=dict)
    """Kinds of harm, key to name, of which an unsafe response has one or more."""
    flags: bool = True
    """Responses may be flagged as unsafe, wrong, off-topic, rude."""

    def __post_init__(self) -> None:
        for name, allowed in (("reason", Reason), ("unranked", Unranked), ("rewrite", Rewrite)):
            if getattr(self, name) not in get_args(allowed):
                raise ProtocolError(
                    f"{name} is one of {', '.join(get_args(allowed))}, "
                    f"not “{str(getattr(self, name))[:40]}”."
                )
        if not 0 <= self.reason_min <= 2000 or not 1 <= self.text_min <= 2000:
            raise ProtocolError("A fewest number of characters is 2,000 or less.")
        keys = [attribute.key for attribute in self.attributes]
        if len(set(keys)) < len(keys):
            raise ProtocolError("Two attributes have the same key.")
        if self.harms and not self.safety:
            raise ProtocolError("Kinds of harm belong to a vote on safety; ask for that too.")

    @property
    def asks_per_response(self) -> bool:
        return bool(self.attributes) or self.safety

    def as_json(self) -> dict[str, Any]:
        """As it is kept in a project's or a batch's `protocol`."""
        kept = asdict(self)
        kept["harms"] = dict(self.harms)
        return kept

    @classmethod
    def from_json(cls, data: Any) -> "Protocol":
        """The protocol that `data` describes; ProtocolError for an unknown or senseless part."""
        known = _known(cls, data, "A protocol")
        if "scale" in known:
            scale = _known(Scale, known["scale"], "A scale")
            if "levels" in scale:
                scale["levels"] = _several(Level, scale["levels"], "A level")
            known["scale"] = _made(Scale, scale, "A scale")
        if "attributes" in known:
            known["attributes"] = _several(Attribute, known["attributes"], "An attribute")
        made: Protocol = _made(cls, known, "A protocol")
        return made


def _known(kind: Any, data: Any, what: str) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise ProtocolError(f"{what} is an object with named parts.")
    names = {part.name for part in fields(kind)}
    unknown = next((name for name in data if name not in names), None)
    if unknown is not None:
        raise ProtocolError(f"{what} has no part “{str(unknown)[:40]}”.")
    return dict(data)


def _several(kind: Any, data: Any, what: str) -> tuple[Any, ...]:
    if not isinstance(data, list | tuple):
        raise ProtocolError(f"{what} is one of a list; this is none.")
    return tuple(_made(kind, item, what) for item in data)


def _made(kind: Any, data: Any, what: str) -> Any:
    known = _known(kind, data, what)
    for name, annotation in get_type_hints(kind).items():
        if name not in known:
            continue
        value = known[name]
        if not _fits(value, annotation):
            raise ProtocolError(f"{what}: “{name}” is of the wrong kind: {str(value)[:40]}.")
    try:
        return kind(**known)
    except TypeError as error:
        raise ProtocolError(f"{what} has a part that is missing.") from error


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a value of JSON is what a field is annotated with."""
    if annotation is float:
        return type(value) in (int, float) and math.isfinite(value)
    if get_origin(annotation) is Literal:  # Which of them: __post_init__ says so.
        return type(value) is str
    if get_origin(annotation) is tuple:
        return isinstance(value, tuple)
    if get_origin(annotation) is Mapping:
        return isinstance(value, Mapping) and all(
            type(part) is str for pair in value.items() for part in pair
        )
    return type(value) is annotation


PLAIN = Protocol()


def read(data: Any) -> Protocol:
    """The protocol kept in a column; the plain one where nothing is kept."""
    return _read(_frozen(data)) if data else PLAIN


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return ("map", tuple((key, _frozen(part)) for key, part in value.items()))
    if isinstance(value, list | tuple):
        return ("list", tuple(_frozen(part) for part in value))
    return value


def _thawed(value: Any) -> Any:
    if isinstance(value, tuple):
        kind, items = value
        if kind == "map":
            return {key: _thawed(part) for key, part in items}
        return [_thawed(part) for part in items]
    return value


@lru_cache(maxsize=256)
def _read(frozen: Any) -> Protocol:
    # A page needs it several times; reading and checking one takes longer than looking it up.
    return Protocol.from_json(_thawed(frozen))
