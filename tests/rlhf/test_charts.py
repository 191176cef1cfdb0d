"""Where marks go, checked against numbers worked by hand."""

import pytest

from rlhf import charts
from rlhf.charts import Figure, Mark, Series


def test_a_scale_ends_on_round_numbers_that_hold_every_value():
    assert charts.scale([0.13, 0.88]) == (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    low, high, ticks = charts.scale([-2.3, 7.9])
    assert low <= -2.3
    assert high >= 7.9
    assert 0.0 in ticks


def test_a_scale_of_rates_stays_between_nothing_and_all():
    low, high, _ = charts.scale([0.97, 1.04], percent=True)
    assert low >= 0
    assert high <= 1


def test_a_scale_survives_one_value_no_value_and_nan():
    for values in ([0.4], [], [float("nan")], [0.0, 0.0]):
        low, high, ticks = charts.scale(values)
        assert low < high
        assert len(ticks) >= 2


def test_points_stand_at_the_middle_of_their_place_and_error_bars_hold_them():
    marks = [Mark("base", Figure(0.4, 0.3, 0.5, 10)), Mark("R1", Figure(0.6, 0.5, 0.7, 10))]
    chart = charts.points([Series("s", "safety", marks)], label="", height=200)
    first, second = chart.series[0].points
    assert (first.x, second.x) == (25.0, 75.0)
    assert second.y < first.y, "higher values stand higher"
    assert first.high < first.y < first.low, "pixels grow downwards"


def test_places_keep_their_order_when_the_first_series_begins_later():
    starts = [Mark(name, Figure(0.1)) for name in ("R1", "R2")]
    own = [Mark(name, Figure(0.5)) for name in ("base", "R1", "R2")]
    chart = charts.points(
        [Series("its start policy", "ink-3", starts), Series("safety", "safety", own)], label=""
    )
    assert [place.text for place in chart.x_labels] == ["base", "R1", "R2"]


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
    assert charts.number(value, **options) == text


def test_names_of_points_that_lie_close_are_written_above_one_another():
    rates = ((0.37, 0.08), (0.011, 0.005), (0.0, 0.0), (0.37, 0.30))
    pairs = [
        charts.Pair(
            name=f"R{n}", across=Figure(across, None, None, 9), up=Figure(up, None, None, 9)
        )
        for n, (up, across) in enumerate(rates)
    ]
    placed = charts.scatter(pairs, label="", x_title="", y_title="", corner="").points
    heights = [point.y + point.label_y for point in placed]
    assert abs(heights[1] - heights[2]) >= charts.LABEL_HEIGHT
    assert (placed[0].label_y, placed[3].label_y) == (-8, -8), "far apart, each stays at its point"


def test_a_figure_in_words_has_its_interval_and_n():
    words = charts.in_words(Figure(0.02, 0.0, 0.07, 60), percent=True)
    assert words == "2 % [0, 7 %], n = 60"


def test_a_change_is_claimed_only_where_the_interval_of_the_difference_excludes_none():
    # Half widths 0.03 and 0.04: the difference's is 0.05.
    before = Figure(0.50, 0.47, 0.53)
    rose = charts.change(before, Figure(0.56, 0.52, 0.60))
    assert (rose.low, rose.high) == pytest.approx((0.01, 0.11))
    assert rose.direction == 1
    assert charts.change(before, Figure(0.54, 0.50, 0.58)).direction == 0
    assert charts.change(before, Figure(0.40, 0.36, 0.44)).direction == -1


def test_without_intervals_no_change_is_claimed():
    assert charts.change(Figure(0.1), Figure(0.9)).direction == 0


def test_wilsons_interval_against_a_worked_example():
    # 8 of 10: Wilson (1927) gives 0.490 to 0.943.
    assert charts.wilson(0.8, 10) == pytest.approx((0.490, 0.943), abs=5e-4)
    assert charts.wilson(0.5, 0) == (0.0, 1.0)
