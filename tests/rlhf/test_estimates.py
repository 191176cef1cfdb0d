"""Numbers with intervals, checked against numbers worked by hand."""

import pytest

from rlhf.estimates import Estimate, change, in_words, number
from rlhf.training.intervals import wilson


@pytest.mark.parametrize(
    ("value", "options", "text"),
    [
        (0.617, {}, "0.62"),
        (-0.25, {"signed": True}, "−0.25"),
        (0.25, {"signed": True}, "+0.25"),
        (-0.0001, {"percent": True}, "0.0 %"),
        (0.617, {"percent": True}, "62 %"),
        (0.023, {"percent": True}, "2.3 %"),
        (1234.0, {}, "1,234"),
    ],
)
def test_numbers_are_short_and_honest(value, options, text):
    assert number(value, **options) == text


def test_an_estimate_in_words_has_its_interval_and_n():
    words = in_words(Estimate(0.02, 0.0, 0.07, 60), percent=True)
    assert words == "2 % [0, 7 %], n = 60"


def test_a_change_is_claimed_only_where_the_interval_of_the_difference_excludes_none():
    # Half widths 0.03 and 0.04: the difference's is 0.05.
    before = Estimate(0.50, 0.47, 0.53)
    rose = change(before, Estimate(0.56, 0.52, 0.60))
    assert (rose.low, rose.high) == pytest.approx((0.01, 0.11))
    assert rose.direction == 1
    assert change(before, Estimate(0.54, 0.50, 0.58)).direction == 0
    assert change(before, Estimate(0.40, 0.36, 0.44)).direction == -1


def test_without_intervals_no_change_is_claimed():
    assert change(Estimate(0.1), Estimate(0.9)).direction == 0


def test_wilsons_interval_against_a_worked_example():
    # 8 of 10: Wilson (1927) gives 0.490 to 0.943.
    assert wilson(0.8, 10) == pytest.approx((0.490, 0.943), abs=5e-4)
    assert wilson(0.5, 0) == (0.0, 1.0)
