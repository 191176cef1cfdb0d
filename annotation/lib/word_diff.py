"""What changed between two texts of ours, word by word, as HTML: <ins> and <del>, the rest as it is.

The page that compares responses does the same in the browser (static/js/judge/diff.js).
"""

import re
from difflib import SequenceMatcher
from functools import lru_cache
from html import escape

from django.utils.safestring import SafeString, mark_safe

# A word takes the space before it along: spaces alone would hold unlike sentences together.
WORDS = re.compile(r"\s*(?:\w+|[^\w\s])|\s+")
# Above this many words lines are compared instead: the matcher's worst case is quadratic.
MAX_WORDS = 6_000


@lru_cache(maxsize=128)
def word_diff(before: str, after: str) -> SafeString:
    """Both texts in one; what went is in <del>, what came is in <ins>."""
    old, new = WORDS.findall(before), WORDS.findall(after)
    if max(len(old), len(new)) > MAX_WORDS:
        old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    parts = []
    for what, i, i_end, j, j_end in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        gone, came = escape("".join(old[i:i_end])), escape("".join(new[j:j_end]))
        if what == "equal":
            parts.append(came)
            continue
        # White space alone is no change that anybody has to read.
        first = came if came.strip() else gone
        parts.append(first[: len(first) - len(first.lstrip())])
        parts.append(f"<del>{gone.strip()}</del>" if gone.strip() else "")
        parts.append(f"<ins>{came.lstrip()}</ins>" if came.strip() else came)
    return mark_safe("".join(parts))  # noqa: S308 - every piece is escaped above
