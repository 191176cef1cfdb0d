"""Rule-based rewards, each on texts that a person can judge."""

import pytest

from rlhf.training.rewards import REWARDS


def points(name, *texts):
    return REWARDS[name]([[]] * len(texts), list(texts))


def test_every_rule_gives_one_number_per_response_even_for_an_empty_one():
    for name in REWARDS:
        values = points(name, "", "A plain answer of some words.")
        assert len(values) == 2
        assert all(isinstance(value, float | int) for value in values)


def test_a_refusal_is_known_by_its_words_with_either_apostrophe():
    assert points(
        "refusal", "I'm sorry, but I can't help with that.", "I won\u2019t help you scratch it."
    ) == [1.0, 1.0]
    assert points("refusal", "You can help by sanding it.", "It won't take long.") == [0.0, 0.0]


def test_repeating_three_words_costs_their_share():
    once, thrice = points("repetition", "one two three four five", "go on now " * 3)
    assert once == 0.0
    # Seven runs of three words, of which three differ.
    assert thrice == pytest.approx(-4 / 7)


def test_length_is_punished_by_a_slope_not_a_cliff():
    assert points("too_long", "w " * 60, "w " * 90, "w " * 120) == [0.0, -0.5, -1.0]
    assert points("too_short", "", "w w w w", "w w w w w") == [-1.0, -0.2, 0.0]
