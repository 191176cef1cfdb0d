"""`{% kept %}` keeps HTML for the same values and language, and sees nothing else of the page."""

import pytest
from django.template import Context, Engine, TemplateSyntaxError
from django.utils import translation

from annotation.templatetags.kept import AT_MOST

engine = Engine(
    libraries={
        "kept": "annotation.templatetags.kept",
        "i18n": "django.templatetags.i18n",
    }
)


def template(inside, values="name=name"):
    return engine.from_string(f"{{% load i18n kept %}}{{% kept {values} %}}{inside}{{% endkept %}}")


def test_each_value_and_each_language_has_its_own():
    said = template('{{ name }}: {% translate "Guidelines" %}')
    for _ in range(2):
        assert said.render(Context({"name": "<A>"})) == "&lt;A&gt;: Guidelines"
        assert said.render(Context({"name": "B"})) == "B: Guidelines"
        with translation.override("de"):
            assert said.render(Context({"name": "B"})) == "B: Richtlinien"


def test_what_was_not_named_is_not_there():
    said = template("{{ name }}{{ csrf_token }}{{ user }}")
    assert said.render(Context({"name": "A", "csrf_token": "secret", "user": "ada"})) == "A"


def test_it_is_rendered_once():
    seen = []

    class Told:
        def __str__(self):
            seen.append(1)
            return "told"

        def __repr__(self):
            return "told"

    said = template("{{ name }}")
    assert {said.render(Context({"name": Told()})) for _ in range(3)} == {"told"}
    assert len(seen) == 1


def test_it_does_not_grow_for_ever():
    said = template("{{ name }}")
    for number in range(2 * AT_MOST):
        assert said.render(Context({"name": number})) == str(number)
    assert len(said.nodelist[-1].known) <= AT_MOST


@pytest.mark.parametrize("values", ["", "name", "name=name and"])
def test_values_must_be_named(values):
    with pytest.raises(TemplateSyntaxError):
        template("", values)
