"""The measure of the tripwire in benchmarks/learning.py."""

import numpy as np
import pytest

from benchmarks.learning import kept_of

PROMPTS = np.arange(400)


def test_whoever_keeps_the_best_policy_keeps_all_of_the_gain():
    base, best, last = np.zeros(400), np.ones(400), np.full(400, -1.0)
    assert kept_of(np.array([base, best, base, best, last]), PROMPTS) == pytest.approx(1.0)
    assert kept_of(np.array([base, last, base, best, last]), PROMPTS) == pytest.approx(-1.0)


def test_being_the_luckiest_of_many_equal_policies_is_not_counted_as_being_better():
    noise = np.random.default_rng(0)
    base = np.zeros(400)
    equal = 1.0 + noise.normal(0, 3, size=(40, 400))  # 40 policies, equally good: 1
    kept = np.ones(400)
    assert max(equal.mean(axis=1)) > 1.25  # the luckiest mean says otherwise
    assert kept_of(np.array([base, kept, base, *equal]), PROMPTS) == pytest.approx(1.0, abs=0.2)


def test_a_prompt_drawn_twice_does_not_choose_the_point_that_it_measures():
    """A bootstrap draws prompts again and again; halves by their number stay apart."""
    noise = np.random.default_rng(1)
    drawn = noise.choice(PROMPTS, 400)
    equal = 1.0 + noise.normal(0, 3, size=(40, 400))
    golds = np.array([np.zeros(400), np.ones(400), np.zeros(400), *equal])
    assert kept_of(golds, drawn) == pytest.approx(1.0, abs=0.4)
