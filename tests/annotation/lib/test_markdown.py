import re

import pytest

from annotation.lib.markdown import render_markdown

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "![pixel](https://evil.example/p.png)",
    "[x](javascript:alert(1))",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "<a hx-get='/accounts/logout/' hx-trigger='load'>x</a>",
    "<div data-hx-post='/x' style='position:fixed'>x</div>",
    "<form action=/x><button>send</button></form>",
    "</div></form><iframe src=//evil.example></iframe>",
    "<svg/onload=alert(1)>",
    "`<script>`",
    "```html\n<script>alert(1)</script>\n```",
    "[x]: javascript:alert(1)\n[x]",
    '<https://ok.example/"onmouseover=alert(1)>',
]


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_hostile_survives_as_markup(text):
    html = render_markdown(text)
    tags = set(re.findall(r"<\s*/?\s*([a-zA-Z0-9]+)", html))
    assert tags <= {"p", "a", "code", "pre", "em", "strong", "br", "ul", "ol", "li"}, html
    for tag in re.findall(r"<[^>]+>", html):
        assert not re.search(r"\s(on\w+|style|hx-|data-|src|class|id)", tag), tag
        assert "javascript:" not in tag, tag


def test_links_say_nothing_about_the_reader_and_images_are_not_loaded():
    html = render_markdown("[a](https://example.com) ![b](https://example.com/b.png)")
    assert 'rel="noopener nofollow noreferrer"' in html
    assert 'target="_blank"' in html
    assert "<img" not in html


def test_control_characters_become_visible_and_directions_stay_inside():
    html = render_markdown("a\x00b\x1bc \u202eevil")
    assert "a\ufffdb\ufffdc" in html
    assert 'dir="auto"' in html


def test_a_megabyte_is_shown_as_it_is_and_at_once():
    html = render_markdown("[" * 1_000_000 + "<script>")
    assert html.startswith('<p class="plain"')
    assert "<script" not in html


def test_ordinary_markdown_reads_well():
    html = render_markdown("# Title\n\n- **one**\n- two\n\n| a | b |\n|---|---|\n| 1 | 2 |")
    assert '<h4 dir="auto">Title</h4>' in html
    assert "<strong>one</strong>" in html
    assert '<table tabindex="0">' in html
