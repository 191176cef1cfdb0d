"""The language of a text, by py3langid: its model is part of the package, nothing is downloaded."""

from collections.abc import Collection
from functools import cache
from typing import Any

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from annotation.data.filters.finding import Finding

# Of a long text the beginning decides: reading all of it would take as long as every other filter.
MAX_CHARACTERS = 1_000
MIN_BYTES = 20
"""Letters in UTF-8: a shorter text ("ok", "Paris?") has no language that could be recognized."""
# English that names Nigeria is taken for Nigerian Pidgin: a neutral sentence scored by an identity.
LEFT_OUT = {"pcm"}


@cache
def _identifier() -> Any:
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(sorted(set(identifier.nb_classes) - LEFT_OUT))
    return identifier


def language_of(text: str) -> tuple[str, float]:
    """ISO 639 code of the likeliest language and its probability; ("", 0) for too few letters."""
    beginning = text[:MAX_CHARACTERS]
    letters = "".join(c for c in beginning if c.isalpha())
    if len(letters.encode("utf-8", "replace")) < MIN_BYTES:
        return "", 0.0
    code, probability = _identifier().classify(beginning)
    return str(code), float(probability)


def language(text: str, expected: Collection[str] = ("en",)) -> list[Finding]:
    """A finding for every text that has a language; its score is 0 where the language is expected."""
    code, probability = language_of(text)
    if not code:
        return []
    score = 0.0 if code in expected else probability
    return [Finding(round(score, 4), f"language: {code}", 0, len(text))]
