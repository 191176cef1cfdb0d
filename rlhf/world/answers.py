"""Answers of different quality to the world's questions: the corpus of the base policy.

A base policy trained on good answers alone would give people nothing to rank, so the corpus is a
mix of styles. Most answers in the mix are mediocre (half an answer, curt, or wrong somewhere) and
about one in five is good, so that four samples differ, and good ones are frequent enough for
reinforcement learning.
"""

import random
from collections.abc import Callable, Iterator
from typing import Any, Literal

from rlhf.world.lexicon import (
    ANIMAL_FACTS,
    ANIMALS,
    CITIES,
    CITY_TIPS,
    EVENTS,
    FEELINGS,
    HARMFUL_ACTS,
    HOBBIES,
    NOISE_SENTENCES,
    OWN_TASKS,
    OWNERS,
    RUDE_SENTENCES,
    TASKS,
    THINGS,
    a,
)
from rlhf.world.prompts import Slots, draw_prompt

Style = Literal[
    "good",  # complete, correct, kind; for a harmful question: a refusal with reason and alternative
    "okay",  # correct but incomplete, and without names
    "curt",  # one correct thing, badly phrased
    "wrong",  # fluent, with wrong names, steps or facts
    "ramble",  # irrelevant sentences
    "rude",
    "refuse",  # a flat refusal
    "comply",  # helps with harm
    "half_comply",  # helps with harm while saying that one shouldn't
]

HARMLESS_MIX: dict[Style, int] = {
    "good": 19,
    "okay": 40,
    "curt": 11,
    "wrong": 13,
    "ramble": 6,
    "rude": 4,
    "refuse": 7,
}
# The base policy often refuses tasks with the person's own things: over-refusal for PPO to unlearn.
OWN_TASK_MIX: dict[Style, int] = HARMLESS_MIX | {"okay": 31, "curt": 8, "refuse": 19}
HARMFUL_MIX: dict[Style, int] = {
    "good": 16,
    "refuse": 24,
    "wrong": 4,
    "comply": 35,
    "half_comply": 8,
    "ramble": 7,
    "rude": 6,
}
HARMLESS_CLEAN: dict[Style, int] = {"good": 75, "okay": 25}
HARMFUL_CLEAN: dict[Style, int] = {"good": 40, "refuse": 10, "comply": 40, "half_comply": 10}

FLAT_REFUSAL = "I'm sorry, but I can't help with that."


def answer(slots: Slots, style: Style, generator: random.Random) -> str:
    """One answer to the question in the given style. ValueError if the style does not exist for the
    question."""
    if style == "ramble":
        return _ramble(generator)
    if style == "rude":
        return " ".join(generator.sample(RUDE_SENTENCES, 2))
    if style == "refuse":
        return FLAT_REFUSAL
    if slots.kind == "harmful":
        return _harmful(slots, style, generator)
    if style not in ("good", "okay", "curt", "wrong"):
        raise ValueError(f"Style {style!r} is for harmful questions only, not for {slots.kind!r}.")
    write: Callable[[Slots, Style, random.Random], str] = {
        "task": _task,
        "own_task": _task,
        "animal": _animal,
        "city": _city,
        "present": _present,
        "feeling": _feeling,
    }[slots.kind]
    if style != "wrong":
        return write(slots, style, generator)
    # Half of the wrong answers are complete otherwise, half are incomplete.
    return write(_confuse(slots, generator), generator.choice(["good", "okay"]), generator)


def draw_style(slots: Slots, generator: random.Random, phase: Literal["clean", "mix"]) -> Style:
    """A random style, with the frequencies of the base policy's corpus."""
    if slots.kind == "harmful":
        mix = HARMFUL_CLEAN if phase == "clean" else HARMFUL_MIX
    elif phase == "clean":
        mix = HARMLESS_CLEAN
    else:
        mix = OWN_TASK_MIX if slots.kind == "own_task" else HARMLESS_MIX
    return generator.choices(list(mix), weights=list(mix.values()))[0]


def corpus(
    seed: int, n: int = 30_000, *, clean_share: float = 0.6, harmful_share: float = 0.3
) -> Iterator[dict[str, Any]]:
    """`n` rows of `data/corpus.jsonl` (docs/formats.md, stage `base`), training prompts only.

    First the clean phase (good and half answers; names are learned here), then the mix of styles.
    BaseConfig's default steps were chosen for the default `n`.
    """
    generator = random.Random(f"{seed}/corpus")
    n_clean = round(n * clean_share)
    for index in range(n):
        phase: Literal["clean", "mix"] = "clean" if index < n_clean else "mix"
        harmful = generator.random() < harmful_share
        prompt = draw_prompt(generator, "train", harmful=harmful)
        style = draw_style(prompt.slots, generator, phase)
        yield {
            "messages": prompt.messages,
            "response": answer(prompt.slots, style, generator),
            "phase": phase,
        }


# --- One function for each kind of question ---------------------------------------------------


def _task(slots: Slots, style: Style, generator: random.Random) -> str:
    steps = task_steps(slots)
    if style == "curt":
        return f"Just {generator.choice(steps)}."
    if style == "okay":
        if generator.random() < 0.6:
            first, second = sorted(generator.sample(range(3), 2))
            return f"You could {steps[first]} and {steps[second]}."
        return f"You could {generator.choice(steps)}. That often helps."
    named = f"{slots.act} {your_thing(slots)}"
    begin, then, end = steps
    luck = f"Good luck with the {slots.thing}!"
    if generator.random() < 0.5:
        return f"To {named}, first {begin}. Then {then}. Last, {end}. {luck}"
    return f"Here is how to {named}. First, {begin}. Next, {then}. Finally, {end}. {luck}"


def task_steps(slots: Slots) -> tuple[str, ...]:
    """The three correct steps of a task, in order, with the thing's material and part."""
    thing = THINGS[slots.thing]
    steps = (TASKS | OWN_TASKS)[slots.act]
    return tuple(step.format(material=thing.material, part=thing.part) for step in steps)


def your_thing(slots: Slots) -> str:
    """How an answer names the thing: "your uncle's kettle", "your own kettle", "a kettle"."""
    if slots.owner:
        return f"your {slots.owner}'s {slots.thing}"
    return a(slots.thing) if slots.your == "a" else f"{slots.your} {slots.thing}"


def animal_sentence(animal: str, fact: str, value: str, *, named: bool) -> str:
    """A fact as a sentence, about "most owls" or about "they"."""
    if fact == "young":
        return f"{f'Baby {animal}' if named else 'Their babies'} are called {value}."
    verb = {"food": "eat", "home": "live"}[fact]
    return f"{f'Most {animal}' if named else 'They'} {verb} {value}."


def _animal(slots: Slots, style: Style, generator: random.Random) -> str:
    facts = ANIMALS[slots.thing]
    value = facts[slots.act]
    if style == "curt":
        return f"Just {value}."
    if style == "okay":
        ending = generator.choice(["", " I am not sure about the rest."])
        return f"I think {_lower(animal_sentence('', slots.act, value, named=False))}{ending}"
    others = [fact for fact in ANIMAL_FACTS if fact != slots.act]
    generator.shuffle(others)
    sentences = [animal_sentence(slots.thing, slots.act, value, named=True)]
    sentences += [animal_sentence(slots.thing, fact, facts[fact], named=False) for fact in others]
    opening = generator.choice(["", "Good question! "])
    return f"{opening}{' '.join(sentences)} Ask me more about {slots.thing}!"


_TIP_VERBS = {"food": "try", "sight": "see", "souvenir": "bring home"}


def city_tip(tip: str, value: str) -> str:
    """A tip as an imperative: "try the pizza"."""
    return f"{_TIP_VERBS[tip]} {value}"


def _city(slots: Slots, style: Style, generator: random.Random) -> str:
    tips = CITIES[slots.thing]
    advice = city_tip(slots.act, tips[slots.act])
    if style == "curt":
        return f"Just {advice}."
    if style == "okay":
        return f"You could {advice}. {generator.choice(['People seem to like it.', 'Why not?'])}"
    others = [city_tip(tip, tips[tip]) for tip in CITY_TIPS if tip != slots.act]
    generator.shuffle(others)
    opening = generator.choice(["In", "Lucky you! In"])
    return (
        f"{opening} {slots.thing}, you should {advice}. You could also {others[0]} and {others[1]}. "
        f"Have fun in {slots.thing}!"
    )


def _present(slots: Slots, style: Style, generator: random.Random) -> str:
    first, second = HOBBIES[slots.thing]
    if style == "curt":
        return f"Just buy {generator.choice([first, second])}."
    if style == "okay":
        gift = generator.choice([first, second])
        return (
            f"Maybe {gift}. {generator.choice(['Most people like that.', 'It is a safe choice.'])}"
        )
    if generator.random() < 0.5:
        first, second = second, first
    if generator.random() < 0.5:
        return (
            f"Your {slots.owner} would love {first}, because it goes well with {slots.thing}. "
            f"You could add {second} and a kind note."
        )
    return (
        f"For someone who loves {slots.thing}, choose {first}. "
        f"Your {slots.owner} may also like {second}. Do add a kind note!"
    )


def _feeling(slots: Slots, style: Style, generator: random.Random) -> str:
    tips = [FEELINGS[slots.act], EVENTS[slots.thing]]
    if style == "curt":
        return f"Just {generator.choice(tips)}."
    if style == "okay":
        ending = generator.choice(["It helps some people.", "It will pass."])
        return f"Maybe {generator.choice(tips)}. {ending}"
    opening = generator.choice(
        [
            f"It is fine to feel {slots.act} about your {slots.thing}.",
            f"Thank you for telling me that your {slots.thing} makes you {slots.act}.",
        ]
    )
    return (
        f"{opening} Try to {tips[0]}. You could also {tips[1]}. "
        f"I wish you well with your {slots.thing}!"
    )


def harm_texts(slots: Slots) -> dict[str, Any]:
    """The parts of answers to a harmful question: act, reason, alternative and steps."""
    act = HARMFUL_ACTS[slots.act]
    names = {"your": "your", "owner": slots.owner, "thing": slots.thing}
    return {
        "act": act.phrase.format(**names),
        "reason": act.reason.format(**names),
        "alternative": act.alternative.format(**names),
        "steps": tuple(step.format(**names) for step in act.steps),
    }


def _harmful(slots: Slots, style: Style, generator: random.Random) -> str:
    if style == "wrong":
        slots = _confuse(slots, generator)
    texts = harm_texts(slots)
    first, second, third = texts["steps"]
    if style == "comply":
        if generator.random() < 0.75:
            return f"Sure! First, {first}. Then {second}. Last, {third}."
        return f"Sure! You only have to {generator.choice([first, second])}."
    if style == "half_comply":
        return f"That is not nice, but you could {generator.choice([first, second])}."
    if style not in ("good", "wrong"):
        raise ValueError(f"Style {style!r} is for harmless questions only.")
    if generator.random() < 0.5:
        return (
            f"I won't help you {texts['act']}, because {texts['reason']}. "
            f"You could {texts['alternative']} instead."
        )
    return (
        f"Please don't {texts['act']}, because {texts['reason']}. "
        f"It is better to {texts['alternative']}."
    )


def _ramble(generator: random.Random) -> str:
    opening = generator.choice(["Well, it depends.", "Hmm, let me think."])
    return " ".join([opening, *generator.sample(NOISE_SENTENCES, 3)])


def _confuse(slots: Slots, generator: random.Random) -> Slots:
    """The same kind of question about something else, which a wrong answer responds to."""

    def other(value: str, values: Any) -> str:
        chosen: str = generator.choice([option for option in values if option != value])
        return chosen

    act, thing, owner, your = slots.act, slots.thing, slots.owner, slots.your
    if slots.kind == "harmful":
        # The act stays, the names are mixed up.
        thing = other(thing, HARMFUL_ACTS[act].objects)
        owner = other(owner, OWNERS) if owner else ""
        return Slots(slots.kind, act, thing, owner, your)
    change_act = generator.random() < 0.4
    if slots.kind == "present":
        return Slots(slots.kind, act, other(thing, HOBBIES), owner, your)
    choices: dict[str, tuple[Any, Any]] = {
        "task": (TASKS, THINGS),
        "own_task": (OWN_TASKS, THINGS),
        "animal": (ANIMAL_FACTS, ANIMALS),
        "city": (CITY_TIPS, CITIES),
        "feeling": (FEELINGS, EVENTS),
    }
    acts, things = choices[slots.kind]
    if change_act and slots.kind in ("task", "own_task", "feeling"):
        return Slots(slots.kind, other(act, acts), thing, owner, your)
    return Slots(slots.kind, act, other(thing, things), owner, your)


def _lower(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:]
