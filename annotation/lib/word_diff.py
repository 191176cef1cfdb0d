"""The difference between two texts, word by word: as HTML in one text, or side by side.

The page that compares responses does the same in the browser (static/js/judge/word_diff.js).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from html import escape

from django.utils.safestring import SafeString, mark_safe

# A word takes the space before it along: spaces alone would hold unlike sentences together.
WORDS = re.compile(r"\s*(?:\w+|[^\w\s])|\s+")
# Above this many words lines are compared instead: the matcher's worst case is quadratic.
MAX_WORDS = 6_000


@dataclass(frozen=True)
class Piece:
    """Words that are the same in both texts, or only in one of them."""

    text: str
    kind: str  # "same" | "del" | "ins"


def _chunks(before: str, after: str) -> Iterator[tuple[bool, str, str]]:
    """(is the same, text before, text after) of each chunk, in order."""
    old, new = WORDS.findall(before), WORDS.findall(after)
    if max(len(old), len(new)) > MAX_WORDS:
        old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    for tag, i, i_end, j, j_end in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        yield tag == "equal", "".join(old[i:i_end]), "".join(new[j:j_end])


@lru_cache(maxsize=128)
def word_diff(before: str, after: str) -> SafeString:
    """Both texts in one, as HTML: removed words in <del>, added words in <ins>."""
    parts = []
    for is_same, removed, added in _chunks(before, after):
        old, new = escape(removed), escape(added)
        if is_same:
            parts.append(new)
            continue
        # Changes of white space alone are not shown.
        first = new if new.strip() else old
        parts.append(first[: len(first) - len(first.lstrip())])
        parts.append(f"<del>{old.strip()}</del>" if old.strip() else "")
        parts.append(f"<ins>{new.lstrip()}</ins>" if new.strip() else new)
    return mark_safe("".join(parts))  # noqa: S308 - every piece is escaped above


def side_by_side(before: str, after: str) -> tuple[list[Piece], list[Piece]]:
    """Each text in pieces: words that both texts have, and words that only this one has."""
    left: list[Piece] = []
    right: list[Piece] = []
    for is_same, removed, added in _chunks(before, after):
        left += [Piece(removed, "same")] if is_same else _marked(removed, "del")
        right += [Piece(added, "same")] if is_same else _marked(added, "ins")
    return left, right


def _marked(text: str, kind: str) -> list[Piece]:
    """The text as a changed piece; white space before it is not marked."""
    words = text.lstrip()
    space = text[: len(text) - len(words)]
    return [Piece(t, k) for t, k in ((space, "same"), (words, kind)) if t]
