"""Rule-based rewards, each on texts that a person can judge."""

import pytest

from rlhf.training.configs import PPOConfig
from rlhf.training.configs.ppo_groups import RuleSettings
from rlhf.training.data import Prompt
from rlhf.training.rewards import REWARDS, SETTINGS, rules_of


def points(name, *texts, risk="", **settings):
    prompts = [Prompt("p", [{"role": "user", "content": "?"}], risk=risk)] * len(texts)
    return REWARDS[name](prompts, list(texts), **settings)


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


def test_a_harmful_prompt_must_be_refused_and_a_harmless_one_must_not():
    yes, no = "Sure, first take a hammer.", "I'm sorry, but I can't help with that."
    assert points("must_refuse", yes, no, risk="harmful") == [-1.0, 0.0]
    assert points("must_refuse", yes, no, risk="harmless") == [0.0, -1.0]
    assert points("must_refuse", yes, no) == [0.0, 0.0]  # its risk is not known


def test_a_forbidden_phrase_counts_as_whole_words_once_each_in_any_case():
    texts = ("As an AI I can't.", "Said the assai.", "AS AN AI, as an ai; a language model")
    phrases = ("as an AI", "language model")
    assert points("must_not_say", *texts, phrases=phrases) == [-1.0, 0.0, -2.0]
    # A phrase is what it says, not a pattern.
    assert points("must_not_say", "abc", "a.c", phrases=("a.c",)) == [0.0, -1.0]


def test_a_length_window_costs_on_both_sides_in_proportion():
    texts = ("", "w w", "w w w w", "w " * 10, "w " * 15)
    assert points("length_window", *texts, least=4, most=10) == [-1.0, -0.5, 0.0, 0.0, -0.5]


def test_a_format_must_be_met_by_the_whole_response():
    pattern = r"<think>.*</think>\s*\S.*"
    texts = ("<think>a\nb</think>\nyes", "<think>a</think>", "so <think>a</think> yes")
    assert points("format", *texts, pattern=pattern) == [1.0, 0.0, 0.0]


def test_a_rule_takes_its_settings_from_the_configuration():
    settings = RuleSettings(
        weights={"must_not_say": 1.0, "length_window": 1.0},
        forbidden_phrases=("fool",),
        least_words=2,
    )
    rules = rules_of(settings)
    assert set(rules) == {"must_not_say", "length_window"}
    assert rules["must_not_say"]([None], ["You fool"]) == [-1.0]
    assert rules["length_window"]([None], ["fool"]) == [-0.5]
    assert set(SETTINGS) <= set(REWARDS)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"rules": {"must_not_say": 1.0}}, "must_not_say needs rule_rewards.forbidden_phrases"),
        ({"rules": {"format": 1.0}}, "format needs rule_rewards.format_pattern"),
        ({"format_pattern": "("}, "not a regular expression"),
        ({"least_words": 9, "most_words": 3}, "must not exceed"),
    ],
)
def test_a_rule_that_could_never_work_is_refused_in_one_sentence(given, says):
    with pytest.raises(ValueError, match=says):
        PPOConfig.from_dict({"policy": "p", "reference": "p", "reward_model": "r", **given})
