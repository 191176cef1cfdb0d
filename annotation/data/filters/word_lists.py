"""Hate, abuse and profanity by word lists, one list per language: words/<language>.txt.

The three classes stay apart: a coarse word is not an insult, and an insult is not a slur. Words are
found as whole words, also when spelled with repeated letters, digits or asterisks.
"""

import re
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import NamedTuple

from annotation.data.filters.finding import Finding

FOLDER = Path(__file__).parent / "words"
CLASSES = ("hate", "abuse", "profanity")
REASONS = {
    "hate": "a slur or a slogan of hate in the {} list",
    "abuse": "an insult or a threat in the {} list",
    "profanity": "a coarse word in the {} list",
}
LANGUAGE_NAMES = {"de": "German", "en": "English", "es": "Spanish", "fr": "French"}

# A word, with the signs that people put in place of letters.
WORD = re.compile(r"[^\W_](?:[\w'’*@$!+]*[\w*$])?")
REPEATED = re.compile(r"(.)\1{2,}")
LEET = str.maketrans("013457@$!+", "oieastasit")
IS_DISGUISED = re.compile(r"[0-9*@$!+]|(.)\1\1")
# Longest phrase, in words.
MAX_WORDS = 5


class Entry(NamedTuple):
    """A word or phrase: how serious it is, and the neighbors that give it another meaning."""

    severity: float
    language: str
    not_after: frozenset[str] = frozenset()
    not_before: frozenset[str] = frozenset()


class Lexicon(NamedTuple):
    """The entries of one class: words, phrases, and the first words of the phrases."""

    words: dict[str, Entry]
    phrases: dict[tuple[str, ...], Entry]
    longest: dict[str, int]
    """First word of a phrase -> words in the longest one."""


@cache
def lexicon(name: str, languages: tuple[str, ...] = ()) -> Lexicon:
    """The entries of a class in these languages, by default in all that there are."""
    words: dict[str, Entry] = {}
    phrases: dict[tuple[str, ...], Entry] = {}
    for path in sorted(FOLDER.glob("*.txt")):
        if languages and path.stem not in languages:
            continue
        for class_name, spelling, entry in read_list(path):
            if class_name != name:
                continue
            parts = tuple(spelling.split())
            if len(parts) == 1:
                words.setdefault(spelling, entry)
            else:
                phrases.setdefault(parts, entry)
    longest: dict[str, int] = {}
    for parts in phrases:
        longest[parts[0]] = max(longest.get(parts[0], 0), len(parts))
    return Lexicon(words, phrases, longest)


def read_list(path: Path) -> Iterator[tuple[str, str, Entry]]:
    """(class, spelling, entry) of every line; ValueError with file and line for a line it can't read."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        head, colon, tail = line.partition(":")
        class_name, _, severity = head.strip().partition(" ")
        if not colon or class_name not in CLASSES or not 0 < float(severity or 0) <= 1:
            raise ValueError(f"{path.name}, line {number}: expected “class severity: words”.")
        for item in tail.split(","):
            spelling, not_after, not_before = _read_item(item)
            entry = Entry(float(severity), path.stem, not_after, not_before)
            stem, *endings = spelling.split("/")
            for form in (stem, *(stem + ending for ending in endings)):
                yield class_name, form, entry


def _read_item(item: str) -> tuple[str, frozenset[str], frozenset[str]]:
    spelling, *conditions = (part.strip() for part in item.split("!") if part.strip())
    neighbors: dict[str, frozenset[str]] = {}
    for condition in conditions:
        side, *words = condition.split()
        if side not in ("after", "before"):
            return item.strip(), frozenset(), frozenset()  # "!" inside a word
        neighbors[side] = frozenset(words)
    empty: frozenset[str] = frozenset()
    return spelling, neighbors.get("after", empty), neighbors.get("before", empty)


def find(name: str, text: str, languages: tuple[str, ...] = ()) -> list[Finding]:
    """Every word and phrase of a class in the text."""
    entries = lexicon(name, languages)
    lower = text.lower()
    if len(lower) != len(
        text
    ):  # a few letters have a longer lower case, which would move the spans
        lower = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
    places = [(match[0], match.start(), match.end()) for match in WORD.finditer(lower)]
    words = [word.replace("’", "'") if "’" in word else word for word, _, _ in places]
    findings: list[Finding] = []
    taken = 0  # words before this position belong to a phrase
    for index, word in enumerate(words):
        if index < taken:
            continue
        length, entry = 1, entries.words.get(word)
        if entry is None:
            if word.endswith("'s"):
                entry = entries.words.get(word[:-2])
            elif IS_DISGUISED.search(word):
                entry = _disguised(word, entries)
        if word in entries.longest:
            for n in range(min(entries.longest[word], len(words) - index), 1, -1):
                phrase = entries.phrases.get(tuple(words[index : index + n]))
                if phrase is not None and (entry is None or phrase.severity >= entry.severity):
                    length, entry = n, phrase
                    break
        if entry is None:
            continue
        if entry.not_after and index and words[index - 1] in entry.not_after:
            continue
        after = words[index + length] if index + length < len(words) else ""
        if entry.not_before and after in entry.not_before:
            continue
        reason = REASONS[name].format(LANGUAGE_NAMES[entry.language])
        taken = index + length
        start, end = places[index][1], places[index + length - 1][2]
        findings.append(Finding(entry.severity, reason, start, end))
    return findings


def _disguised(word: str, entries: Lexicon) -> Entry | None:
    """The entry of a word with digits for letters, repeated letters, or asterisks for vowels."""
    if word.isdigit():
        return None
    word = word.strip("*")
    plain = word.translate(LEET)
    for spelling in (plain, REPEATED.sub(r"\1\1", plain), REPEATED.sub(r"\1", plain)):
        if entry := entries.words.get(spelling):
            return entry
    stars = word.count("*")
    if 0 < stars <= 2 <= len(word) - stars:
        for letters in product("aeiou", repeat=stars):
            filled = plain
            for letter in letters:
                filled = filled.replace("*", letter, 1)
            if entry := entries.words.get(filled):
                return entry
    return None


def hate(text: str) -> list[Finding]:
    """Slurs and slogans of hate."""
    return find("hate", text)


def abuse(text: str) -> list[Finding]:
    """Insults and threats."""
    return find("abuse", text)


def profanity(text: str) -> list[Finding]:
    """Coarse words."""
    return find("profanity", text)
