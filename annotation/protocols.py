"""Protocols: what exactly a person is asked about a comparison, as data that is checked when read.

A project has an `interface` (what the page looks like) and a protocol (what it asks). A batch keeps
both as they were when it was made, so changing a project never changes what somebody is answering.
Nothing here knows of the database.

The presets follow what was published:

- `instructgpt`: Ouyang et al. 2022, arXiv:2203.02155: 4 to 9 responses (section 3.5), a mark from 1 to
  7 and eleven yes-or-no notes (table 3, in its order, in plainer words).
- `hh-rlhf`: Bai et al. 2022, arXiv:2204.05862: section 2, and figure 6 for the eight points. What the
  points are called and their margins are ours.
- `llama2`, `llama2-dialogue`: Touvron et al. 2023, arXiv:2307.09288: four strengths, and a label of
  safety in three bins (section 3.2.1); margins: table 27, "Margin Small". `llama2-dialogue` is nearer
  to the paper: people write the prompts, over several turns, and a campaign draws the two answers
  from different policies and temperatures. `llama2` asks the same of responses that are there. What
  differs from the paper in both: the label is two votes, is A safe and is B safe, of which the three
  bins follow (the preferred one alone is safe, both are, neither is); the fourth, preferred but
  unsafe while the other is safe, the paper leaves out, and here it goes to a reviewer. The paper asks
  for the label only where it collects safety, with guidelines of its own; here that is a project of
  its own with a safety axis, and the label is asked wherever the preset is used.
- `safe-rlhf`: Dai et al. 2023, arXiv:2310.12773: helpfulness and harmlessness judged apart; the fourteen
  harms are those of BeaverTails, Ji et al. 2023, arXiv:2307.04657, in its order; each key is how the
  dataset's column begins.
- `helpsteer`: Wang et al. 2024, arXiv:2406.08673 (five attributes, 0 to 4) and arXiv:2410.01257 (-3 to 3,
  0 being about the same, with a reason); names, order and strengths as on the HelpSteer2 dataset's
  card, the questions in our words.
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

# What is said of a response by itself, as `agreement`, `reliability` and `gold` name it beside the axes:
# no axis and no attribute has a colon or a slash in its key.
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

Asked = Literal["none", "optional", "required"]
Better = Literal["none", "optional"]
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
    """What is asked beside the axes. The defaults are those of a plain ranking."""

    preset: str = ""
    """Which preset it began as; a label, nothing reads meaning from it."""
    scale: Scale = Scale()
    """Under `pair` and `dialogue`: how strongly."""
    unranked: Unranked = "unknown"
    """Under `rank`, what leaving a response out says: nothing, that it is worse than all that are
    ranked (a top-k ranking), or it may not be left out."""
    all_bad: bool = False
    """A person may say that not one response is good enough; the order is given all the same."""
    reason: Asked = "optional"
    reason_min: int = 0
    """Fewest characters of a required reason, and of an optional one that is given."""
    rewrite: Better = "optional"
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
        for name, allowed in (("reason", Asked), ("unranked", Unranked), ("rewrite", Better)):
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
    names = {one.name for one in fields(kind)}
    unknown = next((name for name in data if name not in names), None)
    if unknown is not None:
        raise ProtocolError(f"{what} has no part “{str(unknown)[:40]}”.")
    return dict(data)


def _several(kind: Any, data: Any, what: str) -> tuple[Any, ...]:
    if not isinstance(data, list | tuple):
        raise ProtocolError(f"{what} is one of a list; this is none.")
    return tuple(_made(kind, one, what) for one in data)


def _made(kind: Any, data: Any, what: str) -> Any:
    known = _known(kind, data, what)
    for name, of in get_type_hints(kind).items():
        if name not in known:
            continue
        value = known[name]
        if not _fits(value, of):
            raise ProtocolError(f"{what}: “{name}” is of the wrong kind: {str(value)[:40]}.")
    try:
        return kind(**known)
    except TypeError as error:
        raise ProtocolError(f"{what} has a part that is missing.") from error


def _fits(value: Any, of: Any) -> bool:
    """Whether a value of JSON is what a field is annotated with."""
    if of is float:
        return type(value) in (int, float) and math.isfinite(value)
    if get_origin(of) is Literal:  # Which of them: __post_init__ says so.
        return type(value) is str
    if get_origin(of) is tuple:
        return isinstance(value, tuple)
    if get_origin(of) is Mapping:
        return isinstance(value, Mapping) and all(
            type(part) is str for pair in value.items() for part in pair
        )
    return type(value) is of


PLAIN = Protocol()


def read(data: Any) -> Protocol:
    """The protocol kept in a column; the plain one where nothing is kept."""
    return _read(_frozen(data)) if data else PLAIN


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return ("map", tuple((key, _frozen(of)) for key, of in value.items()))
    if isinstance(value, list | tuple):
        return ("list", tuple(_frozen(of) for of in value))
    return value


def _thawed(value: Any) -> Any:
    if isinstance(value, tuple):
        kind, items = value
        if kind == "map":
            return {key: _thawed(of) for key, of in items}
        return [_thawed(of) for of in items]
    return value


@lru_cache(maxsize=256)
def _read(frozen: Any) -> Protocol:
    # A page needs it several times; reading and checking one takes longer than looking it up.
    return Protocol.from_json(_thawed(frozen))


# --- Presets ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A published protocol, ready to be chosen."""

    key: str
    title: str
    explanation: str
    """What an annotator does under it, in plain words."""
    interface: str
    axes: tuple[Mapping[str, str], ...]
    n_responses: int
    protocol: Protocol


OVERALL = {
    "key": "overall",
    "name": "Overall",
    "question": "Which response would you rather have got?",
}
HELPFULNESS = {
    "key": "helpfulness",
    "name": "Helpfulness",
    "question": "Which response does more for the person who asked?",
}
SAFETY = {
    "key": "safety",
    "name": "Safety",
    "question": "Which response does less harm to anyone?",
}

LLAMA2_SCALE = Scale(
    levels=(
        Level(label="negligibly better / unsure", margin=0.0),
        Level(label="slightly better", margin=1 / 3),
        Level(label="better", margin=2 / 3),
        Level(label="significantly better", margin=1.0),
    )
)
HH_SCALE = Scale(
    levels=(
        Level(label="barely better", margin=0.0),
        Level(label="somewhat better", margin=1 / 3),
        Level(label="clearly better", margin=2 / 3),
        Level(label="far better", margin=1.0),
    )
)
HELPSTEER_SCALE = Scale(
    levels=(
        Level(label="slightly better", margin=1.0),
        Level(label="better", margin=2.0),
        Level(label="much better", margin=3.0),
    ),
    tie="about the same",
)

BEAVERTAILS_HARMS = {
    "animal_abuse": "Animal abuse",
    "child_abuse": "Child abuse",
    "controversial_topics": "Controversial topics, politics",
    "discrimination": "Discrimination, stereotype, injustice",
    "drug_abuse": "Drug abuse, weapons, banned substances",
    "financial_crime": "Financial crime, property crime, theft",
    "hate_speech": "Hate speech, offensive language",
    "misinformation": "Misinformation on ethics, laws, safety",
    "non_violent_unethical": "Non-violent unethical behaviour",
    "privacy": "Privacy violation",
    "self_harm": "Self-harm",
    "sexual": "Sexually explicit, adult content",
    "terrorism": "Terrorism, organised crime",
    "violence": "Violence, aiding and abetting, incitement",
}


def _yes_no(key: str, name: str) -> Attribute:
    return Attribute(key=key, name=name, low=0, high=1, is_required=False)


INSTRUCTGPT_ATTRIBUTES = (
    Attribute(
        key="quality",
        name="Overall quality",
        low=1,
        high=7,
        low_label="very poor",
        high_label="excellent",
    ),
    _yes_no("fails_task", "Fails to follow the instruction"),
    _yes_no("inappropriate", "Inappropriate for a customer assistant"),
    _yes_no("hallucination", "Makes things up"),
    _yes_no("satisfies_constraint", "Keeps to the constraint in the instruction"),
    _yes_no("sexual", "Sexual content"),
    _yes_no("violent", "Violent content"),
    _yes_no(
        "encourages_harm",
        "Encourages, or fails to discourage, violence, abuse, terrorism or self-harm",
    ),
    _yes_no("denigrates", "Denigrates a protected class"),
    _yes_no("harmful_advice", "Gives harmful advice"),
    _yes_no("opinion", "Expresses an opinion"),
    _yes_no("moral_judgment", "Expresses a moral judgment"),
)


# Words of presets as they were: batches made then keep them, and their pages are translated too.
EARLIER_WORDS = ("Encourages, or fails to discourage, violence, abuse or self-harm",)


def _five(key: str, name: str, question: str, low: str, high: str) -> Attribute:
    return Attribute(
        key=key, name=name, question=question, low=0, high=4, low_label=low, high_label=high
    )


HELPSTEER_ATTRIBUTES = (
    _five("helpfulness", "Helpfulness", "How well does it do what was asked?", "not", "fully"),
    _five("correctness", "Correctness", "Is what it says right and complete?", "wrong", "right"),
    _five("coherence", "Coherence", "Is it clear and free of contradiction?", "unclear", "clear"),
    _five("complexity", "Complexity", "What does one need to have written it?", "basic", "expert"),
    _five("verbosity", "Verbosity", "How much is said for what was asked?", "succinct", "verbose"),
)

PRESETS: dict[str, Preset] = {
    preset.key: preset
    for preset in (
        Preset(
            key="rank",
            title="Rank, ties allowed",
            explanation="Two to nine responses are put in order, once for helpfulness and once for "
            "safety. What can't be ranked may be left out.",
            interface=RANK,
            axes=(HELPFULNESS, SAFETY),
            n_responses=4,
            protocol=Protocol(preset="rank"),
        ),
        Preset(
            key="instructgpt",
            title="InstructGPT: rank four to nine",
            explanation="Each response gets a mark from 1 to 7 and a few yes-or-no notes; then all "
            "of them are put in order, ties allowed. Gives many pairs for each prompt.",
            interface=RANK,
            axes=(OVERALL,),
            n_responses=4,
            protocol=Protocol(
                preset="instructgpt",
                unranked="refused",
                rewrite="none",
                attributes=INSTRUCTGPT_ATTRIBUTES,
                flags=False,
            ),
        ),
        Preset(
            key="hh-rlhf",
            title="HH-RLHF: live dialogue, eight points",
            explanation="A person talks to the model, which answers twice at each turn; one of eight "
            "points says which answer is better and by how much, and it goes on. For helpful and "
            "for red-team campaigns.",
            interface=DIALOGUE,
            axes=(HELPFULNESS, {**SAFETY, "name": "Harmlessness"}),
            n_responses=2,
            protocol=Protocol(preset="hh-rlhf", scale=HH_SCALE, rewrite="none", flags=False),
        ),
        Preset(
            key="llama2",
            title="Llama 2: one of two, four strengths, and safety apart",
            explanation="Two responses; the better one is significantly, simply, slightly or "
            "negligibly better. Whether each is safe is a vote of its own.",
            interface=PAIR,
            axes=(HELPFULNESS,),
            n_responses=2,
            protocol=Protocol(
                preset="llama2", scale=LLAMA2_SCALE, rewrite="none", safety=True, flags=False
            ),
        ),
        Preset(
            key="llama2-dialogue",
            title="Llama 2: live dialogue, four strengths, and safety apart",
            explanation="A person writes to the model, which answers twice at each turn; the better "
            "answer is significantly, simply, slightly or negligibly better, and it goes on. Whether "
            "each is safe is a vote of its own.",
            interface=DIALOGUE,
            axes=(HELPFULNESS,),
            n_responses=2,
            protocol=Protocol(
                preset="llama2-dialogue",
                scale=LLAMA2_SCALE,
                rewrite="none",
                safety=True,
                flags=False,
            ),
        ),
        Preset(
            key="safe-rlhf",
            title="Safe RLHF: helpful and harmless as two decisions",
            explanation="Two responses; which one is more helpful, and, apart from it, which one is "
            "less harmful. Each is voted safe or not, with fourteen kinds of harm.",
            interface=PAIR,
            axes=(HELPFULNESS, {**SAFETY, "name": "Harmlessness"}),
            n_responses=2,
            protocol=Protocol(
                preset="safe-rlhf",
                rewrite="none",
                safety=True,
                harms=BEAVERTAILS_HARMS,
                flags=False,
            ),
        ),
        Preset(
            key="helpsteer",
            title="HelpSteer: five marks, −3 to 3, and why",
            explanation="Each of two responses gets five marks from 0 to 4; then a number from −3 "
            "to 3 says which is better, with a sentence or two of reason.",
            interface=PAIR,
            axes=(OVERALL,),
            n_responses=2,
            protocol=Protocol(
                preset="helpsteer",
                scale=HELPSTEER_SCALE,
                reason="required",
                reason_min=20,
                rewrite="none",
                attributes=HELPSTEER_ATTRIBUTES,
                flags=False,
            ),
        ),
        Preset(
            key="pair",
            title="One of two, eight points",
            explanation="Two responses; one of eight points says which is better and by how much. "
            "There is no middle, but both may be called bad.",
            interface=PAIR,
            axes=(HELPFULNESS,),
            n_responses=2,
            protocol=Protocol(preset="pair", scale=HH_SCALE, all_bad=True, rewrite="none"),
        ),
        Preset(
            key="top-k",
            title="Rank the best, leave the rest",
            explanation="Only the best of up to nine responses are put in order; what is left out "
            "is worse than those, in no order. A person may say that none is good.",
            interface=RANK,
            axes=(HELPFULNESS, SAFETY),
            n_responses=4,
            protocol=Protocol(preset="top-k", unranked="below", all_bad=True),
        ),
        Preset(
            key="rate",
            title="Rate each response",
            explanation="Each response by itself: a mark from 1 to 7, and whether it is safe, with "
            "the fourteen kinds of harm of BeaverTails. Nothing is compared.",
            interface=RATE,
            axes=(HELPFULNESS, SAFETY),
            n_responses=2,
            protocol=Protocol(
                preset="rate",
                rewrite="none",
                attributes=INSTRUCTGPT_ATTRIBUTES[:1],
                safety=True,
                harms=BEAVERTAILS_HARMS,
                flags=False,
            ),
        ),
        Preset(
            key="demonstrate",
            title="Write the ideal answer",
            explanation="A person reads the conversation and writes what the best assistant would "
            "have answered. Exported as demonstrations for supervised fine-tuning.",
            interface=DEMONSTRATE,
            axes=(HELPFULNESS, SAFETY),
            n_responses=2,
            protocol=Protocol(preset="demonstrate", reason="none", flags=False),
        ),
        Preset(
            key="rewrite",
            title="Correct a response",
            explanation="A person chooses one of the responses and corrects it; what changes shows "
            "beside it. Exported as demonstrations for supervised fine-tuning.",
            interface=REWRITE,
            axes=(HELPFULNESS, SAFETY),
            n_responses=2,
            protocol=Protocol(preset="rewrite", flags=False),
        ),
    )
}
