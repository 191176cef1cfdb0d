"""The measures of benchmarks/learning.py."""

import numpy as np
import pytest

from benchmarks.learning import above, frontier_at, kept_of

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


def point(kl, gold, noise=None):
    return {"kl": kl, "by_prompt": gold + (np.zeros(400) if noise is None else noise)}


def test_a_frontier_is_the_best_for_at_most_a_distance():
    points = [point(0, 0.0), point(1, 2.0), point(4, 1.0), point(9, 5.0)]
    assert frontier_at(points, np.array([0, 0.5, 1, 2, 2.5, 3]), PROMPTS) == pytest.approx(
        [0, 1, 2, 2, 3.5, 5]
    )
    assert above(points, [point(0, 0.0), point(4, 2.0)], PROMPTS) > 0
    assert above(points, points, PROMPTS) == 0


def test_whoever_has_more_points_is_not_above_by_luck():
    noise = np.random.default_rng(2)
    one = [point(0, 0.0), point(1, 1.0), point(4, 1.0)]
    luckiest = max(noise.normal(0, 3, size=(40, 400)).mean(axis=1))
    many = [point(0, 0.0)] + [
        point(kl, 1.0, noise.normal(0, 3, size=400)) for kl in np.linspace(1, 4, 40)
    ]
    assert luckiest > 0.25
    assert above(many, one, PROMPTS) == pytest.approx(0.0, abs=0.2)
