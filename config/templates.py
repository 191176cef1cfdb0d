"""A template loader that removes the white space that only serves readers of the source.

Indentation, lines of mere tags (as with Jinja's lstrip_blocks and trim_blocks) and the line breaks
between attributes go when a template is loaded. A browser shows the same, and the judging page keeps
within its weight (tests/annotation/pages/test_page_weight.py) however deep its template is indented.
"""

import re

from django.template import Origin
from django.template.loaders import filesystem

# Elements whose white space is visible.
LITERAL = re.compile(r"(<(pre|textarea)\b.*?</\2>)", re.DOTALL)
INDENTATION = re.compile(r"^[ \t]+", re.MULTILINE)
# Tags that print nothing themselves.
SILENT = (
    "if|elif|else|endif|for|empty|endfor|with|endwith|load|block|endblock|partialdef|endpartialdef"
)
ONLY_SILENT_TAGS = re.compile(rf"^((?:\{{% (?:{SILENT})\b.*?%\}}|\{{#.*?#\}})+)\n", re.MULTILINE)
DJANGO = r"(?>\{%.*?%\}|\{\{.*?\}\})"
QUOTED = rf'"(?:{DJANGO}|[^"{{]|\{{(?![%{{]))*+"'
OPENING_TAG = re.compile(rf'<[a-zA-Z](?:{DJANGO}|{QUOTED}|[^>"{{])*+>')
# An attribute on a line of its own that is only there under a condition.
CONDITIONAL = re.compile(r"\s*\n\s*(\{% if [^%]*%\})((?:(?!\{% el|\n).)*\{% endif %\})(?=\s*\n)")


class Loader(filesystem.Loader):
    """Loads templates of DIRS and makes their HTML dense."""

    def get_contents(self, origin: Origin) -> str:
        source = super().get_contents(origin)
        return dense(source) if str(origin.name).endswith(".html") else source


def dense(source: str) -> str:
    """The template without indentation, tag-only lines and line breaks between attributes."""
    source = OPENING_TAG.sub(lambda tag: _on_one_line(tag[0]), source)
    parts = LITERAL.split(source)  # text, literal, the name of its tag, text, …
    parts[::3] = [ONLY_SILENT_TAGS.sub(r"\1", INDENTATION.sub("", text)) for text in parts[::3]]
    return "".join(part for at, part in enumerate(parts) if at % 3 != 2)


def _on_one_line(tag: str) -> str:
    tag = CONDITIONAL.sub(r"\1 \2", tag)
    return re.sub(r"\s*\n\s*", " ", re.sub(r"\s*\n\s*(?=/?>$)", "", tag))
