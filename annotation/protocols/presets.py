"""Published protocols, ready to be chosen.

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

from collections.abc import Mapping
from dataclasses import dataclass

from annotation.protocols.schema import (
    DEMONSTRATE,
    DIALOGUE,
    PAIR,
    RANK,
    RATE,
    REWRITE,
    Attribute,
    Level,
    Protocol,
    Scale,
)


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
            "of them are put in order, ties allowed. Gives many pairs for each prompt. Two "
            "directions: 7 is the best mark, 1 the best rank.",
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
            explanation="A person chooses one of the responses and corrects it; the changes are shown "
            "next to it. Exported as demonstrations for supervised fine-tuning.",
            interface=REWRITE,
            axes=(HELPFULNESS, SAFETY),
            n_responses=2,
            protocol=Protocol(preset="rewrite", flags=False),
        ),
    )
}
