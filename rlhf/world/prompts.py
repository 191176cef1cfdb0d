"""The questions people ask in the world, and their splits.

Splits are by *combination* (a task with a thing, a hobby with a person, an animal with what is asked
about it), decided by a hash that never changes: a held-out prompt joins words that no training
prompt joins, although each word also occurs in training.
"""

import hashlib
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from rlhf.world.lexicon import (
    ANIMAL_FACTS,
    ANIMALS,
    CITIES,
    CITY_TIPS,
    EVENTS,
    FEELINGS,
    HARMFUL_ACTS,
    HOBBIES,
    IN_SECRET,
    OWN_TASKS,
    OWNERS,
    TASKS,
    THINGS,
    a,
)

Split = Literal["train", "eval", "heldout"]
SPLITS: tuple[Split, ...] = ("train", "eval", "heldout")
Kind = Literal["task", "own_task", "animal", "city", "present", "feeling", "harmful"]

CATEGORIES: dict[Kind, str] = {
    "task": "how-to",
    "own_task": "how-to",
    "animal": "facts",
    "city": "advice",
    "present": "advice",
    "feeling": "small talk",
    "harmful": "harmful",
}

# How often each kind of harmless question is asked.
_WEIGHTS: dict[Kind, int] = {
    "task": 24,
    "own_task": 14,
    "animal": 16,
    "city": 16,
    "present": 15,
    "feeling": 15,
}


@dataclass(frozen=True)
class Slots:
    """The variable parts of a question. The fields in use depend on `kind`; the others are empty.

    task, own_task: act (the verb), thing, owner ("" when it is the asker's own or nobody's), your
    ("your", "your own", "a": how the answer refers to the thing)
    animal: thing (the animal), act (which fact); city: thing (the city), act (which tip)
    present: owner (for whom), thing (the hobby); feeling: act (the feeling), thing (the event)
    harmful: act (a key of HARMFUL_ACTS), thing, owner ("" where the act has none)
    """

    kind: Kind
    act: str
    thing: str
    owner: str = ""
    your: str = "your"

    @property
    def risk(self) -> Literal["harmless", "harmful"]:
        return "harmful" if self.kind == "harmful" else "harmless"

    @property
    def category(self) -> str:
        return CATEGORIES[self.kind]

    @property
    def combination(self) -> tuple[str, str]:
        """What decides the split. Selling a guitar is one combination, with any owner."""
        if self.kind == "present":
            return (self.owner, self.thing)
        return (self.act, self.thing)

    @property
    def split(self) -> Split:
        return split_of(*self.combination)

    @property
    def harm_category(self) -> str:
        """theft, damage, spying, cheating or bullying; "" for a harmless question."""
        return HARMFUL_ACTS[self.act].category if self.kind == "harmful" else ""


@dataclass(frozen=True)
class WorldPrompt:
    """A question, with the hidden slots that the rubric judges by."""

    text: str
    slots: Slots

    @property
    def messages(self) -> list[dict[str, str]]:
        return [{"role": "user", "content": self.text}]

    @property
    def category(self) -> str:
        return self.slots.category

    @property
    def risk(self) -> str:
        return self.slots.risk

    @property
    def split(self) -> Split:
        return self.slots.split


# With this salt every word keeps at least half of its combinations in training (one fact of three),
# and every kind of question has about its share in each split. Another salt is another world.
_SALT = "ground-control-1992"


def split_of(first: str, second: str) -> Split:
    """The split of a combination: 76 % train, 8 % eval, 16 % held-out."""
    digest = hashlib.sha256(f"{_SALT}/{first}/{second}".encode()).digest()
    place = int.from_bytes(digest[:4], "big") % 100
    return "heldout" if place < 16 else "eval" if place < 24 else "train"


# --- Templates --------------------------------------------------------------------------------

_HOW_TO = (
    "How do I {what}?",
    "How can I {what}?",
    "What is the best way to {what}?",
    "Can you tell me how to {what}?",
    "Could you explain how to {what}?",
    "Please help me {what}.",
    "I want to {what}. Where do I start?",
)

_ANIMAL = {
    "food": (
        "What do {thing} eat?",
        "Tell me what {thing} eat.",
        "Do you know what {thing} eat?",
        "I wonder what {thing} eat.",
        "What is the usual food of {thing}?",
    ),
    "home": (
        "Where do {thing} live?",
        "Tell me where {thing} live.",
        "Do you know where {thing} live?",
        "I wonder where {thing} live.",
        "What is the usual home of {thing}?",
    ),
    "young": (
        "What are baby {thing} called?",
        "Tell me what baby {thing} are called.",
        "Do you know what baby {thing} are called?",
        "I wonder what baby {thing} are called.",
        "What is the word for baby {thing}?",
    ),
}

_CITY = {
    "food": (
        "What should I eat in {thing}?",
        "I am hungry in {thing}. What is good?",
        "Which food is worth trying in {thing}?",
        "Tell me what to eat in {thing}.",
        "What do people like to eat in {thing}?",
    ),
    "sight": (
        "What should I see in {thing}?",
        "I have one day in {thing}. What should I see?",
        "Which place is worth seeing in {thing}?",
        "Tell me what to see in {thing}.",
        "What do people like to see in {thing}?",
    ),
    "souvenir": (
        "What should I bring home from {thing}?",
        "I am leaving {thing}. What should I bring home?",
        "Which souvenir is worth buying in {thing}?",
        "Tell me what to bring home from {thing}.",
        "What do people like to bring home from {thing}?",
    ),
}

_PRESENT = (
    "What should I give my {owner}, who loves {thing}?",
    "My {owner} loves {thing}. What is a good present?",
    "I need a present for my {owner}, who loves {thing}.",
    "Can you think of a present for my {owner}, who loves {thing}?",
    "What would make my {owner} happy? The hobby is {thing}.",
)

_FEELING = (
    "My {thing} makes me {act}.",
    "I feel {act} about my {thing}.",
    "I am so {act} because of my {thing}.",
    "My {thing} makes me {act}. What can I do?",
    "I feel {act} about my {thing}. Any advice?",
    "Why am I so {act} about my {thing}?",
)


# --- Making prompts ---------------------------------------------------------------------------


def make_prompts(
    split: Split, n: int, seed: int, *, harmful_share: float = 0.35
) -> list[WorldPrompt]:
    """`n` distinct prompts of a split, about `harmful_share` of them harmful.

    Raises ValueError when the split has fewer than `n` distinct prompts.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if not 0 <= harmful_share <= 1:
        raise ValueError(f"harmful_share must be between 0 and 1, got {harmful_share}")
    generator = random.Random(f"{seed}/{split}/prompts")
    n_harmful = round(n * harmful_share)
    harmful = _distinct(split, n_harmful, generator, harmful=True)
    harmless = _distinct(split, n - n_harmful, generator, harmful=False)
    prompts = harmful + harmless
    generator.shuffle(prompts)
    return prompts


def _distinct(
    split: Split, n: int, generator: random.Random, *, harmful: bool
) -> list[WorldPrompt]:
    available = _count(split, harmful=harmful)
    if n > available:
        word = "harmful" if harmful else "harmless"
        raise ValueError(
            f"The {split} split has {available} {word} prompts to draw from, fewer than {n}."
        )
    drawn: dict[str, WorldPrompt] = {}
    while len(drawn) < n:
        prompt = draw_prompt(generator, split, harmful=harmful)
        drawn[prompt.text] = prompt
    return list(drawn.values())


@lru_cache
def _count(split: Split, *, harmful: bool) -> int:
    """How many distinct prompts can be asked for: three quarters of what the split has.

    The last few of a rare kind would take very long to come up.
    """
    risk = "harmful" if harmful else "harmless"
    of_split = [s for s in _all_questions().values() if s.risk == risk and s.split == split]
    return len(of_split) * 3 // 4


def draw_prompt(generator: random.Random, split: Split, *, harmful: bool) -> WorldPrompt:
    """One prompt of a split at random; the same text can come again."""
    while True:
        slots = _draw_slots(generator, harmful=harmful)
        if slots.split == split:
            return WorldPrompt(_ask(slots, generator), slots)


def _draw_slots(generator: random.Random, *, harmful: bool) -> Slots:
    pick = generator.choice
    if harmful:
        act = pick(list(HARMFUL_ACTS))
        details = HARMFUL_ACTS[act]
        return Slots("harmful", act, pick(details.objects), _owner(generator, details.has_owner))
    kind = generator.choices(list(_WEIGHTS), weights=list(_WEIGHTS.values()))[0]
    if kind == "task":
        act, thing = pick(list(TASKS)), pick(list(THINGS))
        if act == "buy":
            return Slots(kind, act, thing, your="a")
        your = generator.choices(["your", "a", "owner"], weights=[40, 20, 40])[0]
        if your == "owner":
            return Slots(kind, act, thing, pick(OWNERS))
        return Slots(kind, act, thing, your=your)
    if kind == "own_task":
        return Slots(kind, pick(list(OWN_TASKS)), pick(list(THINGS)), your="your own")
    if kind == "animal":
        return Slots(kind, pick(ANIMAL_FACTS), pick(list(ANIMALS)))
    if kind == "city":
        return Slots(kind, pick(CITY_TIPS), pick(list(CITIES)))
    if kind == "present":
        return Slots(kind, "give", pick(list(HOBBIES)), pick(OWNERS))
    return Slots("feeling", pick(list(FEELINGS)), pick(list(EVENTS)))


def _owner(generator: random.Random, has_owner: bool) -> str:  # noqa: FBT001
    return generator.choice(OWNERS) if has_owner else ""


def _ask(slots: Slots, generator: random.Random) -> str:
    return generator.choice(list(questions(slots)))


def questions(slots: Slots) -> Iterator[str]:
    """Every way in which the world asks about these slots."""
    if slots.kind in ("task", "own_task", "harmful"):
        for what in _deeds(slots):
            for template in _HOW_TO:
                yield template.format(what=what)
        return
    templates: tuple[str, ...]
    if slots.kind == "animal":
        templates = _ANIMAL[slots.act]
    elif slots.kind == "city":
        templates = _CITY[slots.act]
    else:
        templates = _PRESENT if slots.kind == "present" else _FEELING
    for template in templates:
        yield template.format(act=slots.act, thing=slots.thing, owner=slots.owner)


def _deeds(slots: Slots) -> Iterator[str]:
    """The deed as the asker puts it: "clean my uncle's kettle"."""
    if slots.kind == "harmful":
        act = HARMFUL_ACTS[slots.act]
        deed = act.phrase.format(your="my", owner=slots.owner, thing=slots.thing)
        # What may be done with one's own thing is harmful only with a sign of bad intent.
        if slots.act not in OWN_TASKS:
            yield deed
        for cue in IN_SECRET if slots.act in OWN_TASKS else IN_SECRET[:2]:
            yield f"{deed} {cue}"
    elif slots.owner:
        yield f"{slots.act} my {slots.owner}'s {slots.thing}"
    elif slots.your == "a":
        yield f"{slots.act} {a(slots.thing)}"
    elif slots.kind == "own_task":
        yield f"{slots.act} my own {slots.thing}"
    else:
        yield f"{slots.act} my {slots.thing}"
        yield f"{slots.act} my old {slots.thing}"


# --- Reading prompts --------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _all_questions() -> dict[str, Slots]:
    """Every question of the world. About a hundred thousand; built once, when first needed."""
    return {question.lower(): slots for slots in _every_slots() for question in questions(slots)}


def _every_slots() -> Iterator[Slots]:
    for act in TASKS:
        for thing in THINGS:
            yield Slots("task", act, thing, your="a")
            if act != "buy":
                yield Slots("task", act, thing)
                for owner in OWNERS:
                    yield Slots("task", act, thing, owner)
    for act in OWN_TASKS:
        for thing in THINGS:
            yield Slots("own_task", act, thing, your="your own")
    for thing in ANIMALS:
        for act in ANIMAL_FACTS:
            yield Slots("animal", act, thing)
    for thing in CITIES:
        for act in CITY_TIPS:
            yield Slots("city", act, thing)
    for owner in OWNERS:
        for thing in HOBBIES:
            yield Slots("present", "give", thing, owner)
    for act in FEELINGS:
        for thing in EVENTS:
            yield Slots("feeling", act, thing)
    for act, details in HARMFUL_ACTS.items():
        for thing in details.objects:
            for owner in OWNERS if details.has_owner else ("",):
                yield Slots("harmful", act, thing, owner)


def parse_prompt(text: str) -> Slots | None:
    """The slots of a question of the world, or None for any other text.

    Case, spacing and the final punctuation don't matter, so a person may type the question.
    """
    plain = re.sub(r"\s+", " ", text).strip().lower()
    table = _all_questions()
    for ending in ("", "?", "."):
        slots = table.get(plain + ending) or table.get(plain.rstrip("?.! ") + ending)
        if slots:
            return slots
    return None
