"""Gold items from a file: a wrong row is named and nothing is added; the same row is added once."""

import pytest

from annotation.models import Event, GoldItem
from annotation.quality.gold_items import GoldError, add_gold_items
from tests.annotation.gold_rows import gold_rows

pytestmark = pytest.mark.django_db

RESPONSES = {"prompt": "x", "responses": ["a", "b"]}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"responses": ["a", "b"], "ranks": [1, 2]}, "“prompt”: Give the prompt as text"),
        ({"prompt": "x" * 20_001}, "“prompt”: Give the prompt as text of 1 to 20,000"),
        ({"messages": "x"}, "“messages”: Give a list of messages"),
        ({"messages": [{"role": "judge", "content": "x"}]}, "“messages”: Message 1 needs a role"),
        (
            {"messages": [{"role": "user", "content": ""}]},
            "“messages”: Message 1: give its content",
        ),
        (
            {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]},
            "“messages”: The last message must be the user's",
        ),
        ({"prompt": "x", "responses": ["a"]}, "“responses”: Give a list of 2 to 9 texts, not 1."),
        ({"prompt": "x"}, "“responses”: Give a list of 2 to 9 texts, not “None”."),
        ({"prompt": "x", "responses": ["a", 7]}, "“responses”: Response 2: give a text"),
        ({**RESPONSES, "ranks": [1]}, "“ranks”: Give a list of 2 values, one for each"),
        ({**RESPONSES, "ranks": [1, "2"]}, "“ranks”: Value 2 is “2”. Give a whole number from 1"),
        (
            {**RESPONSES, "ranks": {"safety": [0, 2]}},
            "“ranks: safety”: Value 1 is “0”. Give a whole number from 1 to 9, or null.",
        ),
        ({**RESPONSES, "ranks": [1, 1]}, "“ranks”: No expected answer"),
        (
            {**RESPONSES, "ranks": {"fun": [1, 2]}},
            "“ranks”: This project does not compare on “fun”. Its axes are helpfulness, safety.",
        ),
        ({**RESPONSES, "ranks": [1, 2], "hidden": 1}, "“hidden”: Unknown field."),
        ({**RESPONSES, "ranks": [1, 2], "why": 5}, "“why”: Give a text of at most 400"),
        ({**RESPONSES, "ranks": [1, 2], "mixed": "yes"}, "“mixed”: “yes” is not true or false"),
    ],
)
def test_a_row_that_makes_no_sense_is_named_and_nothing_is_added(project, grace, row, words):
    with pytest.raises(GoldError) as refused:
        add_gold_items(project, [*gold_rows(2), row], grace)
    assert f"Row 3, field {words}" in str(refused.value)
    assert not GoldItem.objects.exists()


@pytest.mark.parametrize("row", ["text", 7, None, []])
def test_a_row_that_is_no_object_is_named(project, grace, row):
    with pytest.raises(GoldError, match="Row 1: Not a JSON object"):
        add_gold_items(project, [row], grace)


def test_adding_twice_adds_once(project, grace):
    assert add_gold_items(project, gold_rows(3), grace) == (3, 0)
    assert add_gold_items(project, gold_rows(3), grace) == (0, 3)
    assert Event.objects.filter(verb="added gold items").count() == 1
