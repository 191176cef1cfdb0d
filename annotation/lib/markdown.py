"""Text that a model or a stranger wrote, made safe to show: the only place that marks HTML as safe.

Markdown goes through markdown-it with HTML and images off and then through an allow-list (nh3), so
that either alone is sufficient.
"""

import re
from html import escape

import nh3
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt
from markdown_it.token import Token

# Longer texts are shown without Markdown: an adversarial text makes the parser slower than linear.
MAX_MARKDOWN = 20_000

# Control characters could hide text; each is replaced by a visible character.
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")

TAGS = {
    *("p", "br", "hr", "em", "strong", "s", "code", "pre", "blockquote", "ul", "ol", "li", "a"),
    *("h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td"),
}
# Each block has its own text direction, so that a right-to-left paragraph affects no other block.
BLOCKS = ("p", "blockquote", "ul", "ol", "li", "h3", "h4", "h5", "h6", "th", "td")

_parser = (
    MarkdownIt("commonmark", {"html": False, "linkify": False, "breaks": True})
    .enable(["table", "strikethrough"])
    .disable(["image", "html_block", "html_inline"])
)


def render_markdown(text: str, *, below: int = 3) -> SafeString:
    """Markdown as HTML without scripts, remote content or referrers.

    Its first headings come one level below the page's headings of level `below`.
    """
    text = CONTROL.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))
    if len(text) > MAX_MARKDOWN:
        return mark_safe(f'<p class="plain" dir="auto">{escape(text)}</p>')  # noqa: S308 - escaped
    tokens = _parser.parse(text)
    for token in tokens:
        _below_the_page(token, below)
    html = _parser.renderer.render(tokens, _parser.options, {})
    clean = nh3.clean(
        html,
        tags=TAGS,
        attributes={"a": {"href"}, "ol": {"start"}},
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener nofollow noreferrer",
        set_tag_attribute_values={
            "a": {"target": "_blank"},
            **{tag: {"dir": "auto"} for tag in BLOCKS},
            # Wide blocks scroll horizontally, so the keyboard must reach them.
            "table": {"tabindex": "0"},
            "pre": {"dir": "auto", "tabindex": "0"},
        },
    )
    return mark_safe(clean)  # noqa: S308 - the allow-list above made it


def _below_the_page(token: Token, below: int) -> None:
    """A text's own headings rank below the page's: h1 becomes h4 (below 3), the rest follow."""
    if token.type in ("heading_open", "heading_close"):
        token.tag = f"h{min(6, int(token.tag[1]) + below)}"
