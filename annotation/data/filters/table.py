"""Every filter, in the order of its page."""

import json
from pathlib import Path
from typing import Any

from annotation.data.filters import language, personal_data, shape, word_lists
from annotation.data.filters.finding import Figures, Filter

FIGURES = Path(__file__).with_name("figures.json")
"""Written by `python -m benchmarks.filters --write`: {filter: [{precision, recall, n, data}]}."""


def _figures(key: str) -> tuple[Figures, ...]:
    return tuple(Figures(**figures) for figures in _MEASURED.get(key, ()))


_MEASURED: dict[str, list[dict[str, Any]]] = json.loads(FIGURES.read_text(encoding="utf-8"))

_ROWS = (
    Filter(
        key="hate",
        name="Hate",
        finds="Slurs and slogans against a group, by word lists (English, German, French, Spanish).",
        find=word_lists.hate,
        threshold=0.6,
    ),
    Filter(
        key="abuse",
        name="Abuse",
        finds="Insults and threats at a person, by word lists.",
        find=word_lists.abuse,
        threshold=0.6,
    ),
    Filter(
        key="profanity",
        name="Profanity",
        finds="Coarse words, by word lists. A coarse text can be harmless.",
        find=word_lists.profanity,
    ),
    Filter(
        key="personal_data",
        name="Personal data",
        finds="Mail addresses, phone, card and IBAN numbers with their checks, IP addresses, keys.",
        find=personal_data.personal_data,
        threshold=0.6,
        is_private=True,
    ),
    Filter(
        key="injection",
        name="Prompt injection",
        finds="Orders to ignore instructions, markers of chat templates, invisible characters.",
        find=shape.injection,
        threshold=0.6,
    ),
    Filter(
        key="refusal",
        name="Refusals",
        finds="Refusals and statements about being a model: “As an AI …”.",
        find=shape.refusals,
    ),
    Filter(
        key="boilerplate",
        name="Boilerplate",
        finds="Stock phrases that models add to any answer.",
        find=shape.boilerplate,
        threshold=0.4,
    ),
    Filter(
        key="broken",
        name="Broken text",
        finds="Wrong encodings, control characters, HTML left over, repetition, no words.",
        find=shape.broken,
    ),
    Filter(
        key="language",
        name="Language",
        finds="Texts that are probably not in one of the project's languages.",
        find=language.language,
        threshold=0.8,
    ),
    Filter(
        key="length",
        name="Length",
        finds="Texts with at least so many words.",
        find=shape.length,
        threshold=1000,
        low=10,
        high=4000,
        step=10,
        unit="words",
        is_estimate=False,
    ),
    Filter(
        key="near_duplicate",
        name="Near-duplicates",
        finds="Prompts that are nearly an earlier prompt, within a source and across sources.",
        find=None,
        threshold=0.8,
        low=0.7,
        is_estimate=False,
    ),
    Filter(
        key="contamination",
        name="Contamination",
        finds="Training prompts that are nearly a held-out or watch prompt, or share 13 words with it.",
        find=None,
        threshold=0.8,
        low=0.7,
        is_estimate=False,
    ),
)

FILTERS: dict[str, Filter] = {
    row.key: Filter(**{**row.__dict__, "figures": _figures(row.key)}) for row in _ROWS
}
HAP = ("hate", "abuse", "profanity")
