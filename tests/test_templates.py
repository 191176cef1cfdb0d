"""Templates can be read: no long lines, and what the loader drops is white space only."""

import pytest
from django.conf import settings

from config.templates import dense

LONGEST = 120
TEMPLATES = sorted((settings.BASE_DIR / "templates").rglob("*.html"))


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_line_of_a_template_is_longer_than_120_characters(path):
    lines = path.read_text().splitlines()
    assert [f"{n}: {line}" for n, line in enumerate(lines, 1) if len(line) > LONGEST] == []


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_the_loader_drops_nothing_but_white_space(path):
    source = path.read_text()
    assert "".join(dense(source).split()) == "".join(source.split())


def test_attributes_on_lines_of_their_own_become_one_tag():
    source = '<a\n  class="x"\n  {% if here %}aria-current="page"{% endif %}\n>Home</a>\n'
    assert dense(source) == '<a class="x"{% if here %} aria-current="page"{% endif %}>Home</a>\n'


def test_a_line_of_mere_tags_leaves_no_line():
    source = "<ul>\n  {% for name in names %}\n    <li>{{ name }}</li>\n  {% endfor %}\n</ul>\n"
    assert dense(source) == (
        "<ul>\n{% for name in names %}<li>{{ name }}</li>\n{% endfor %}</ul>\n"
    )


def test_white_space_that_counts_stays():
    source = '<pre id="code">\n  one\n    two</pre>\n<textarea>\n  {{ text }}</textarea>\n'
    assert dense(source) == source
