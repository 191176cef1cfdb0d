"""Where marks go, checked against numbers worked by hand."""

from rlhf.dashboard import charts
from rlhf.dashboard.charts import Mark, Series
from rlhf.estimates import Estimate


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
    marks = [Mark("base", Estimate(0.4, 0.3, 0.5, 10)), Mark("R1", Estimate(0.6, 0.5, 0.7, 10))]
    chart = charts.points([Series("s", "safety", marks)], label="", height=200)
    first, second = chart.series[0].points
    assert (first.x, second.x) == (25.0, 75.0)
    assert second.y < first.y, "higher values stand higher"
    assert first.high < first.y < first.low, "pixels grow downwards"


def test_places_keep_their_order_when_the_first_series_begins_later():
    starts = [Mark(name, Estimate(0.1)) for name in ("R1", "R2")]
    own = [Mark(name, Estimate(0.5)) for name in ("base", "R1", "R2")]
    chart = charts.points(
        [Series("its start policy", "ink-3", starts), Series("safety", "safety", own)], label=""
    )
    assert [place.text for place in chart.x_labels] == ["base", "R1", "R2"]


def test_names_of_points_that_lie_close_are_written_above_one_another():
    rates = ((0.37, 0.08), (0.011, 0.005), (0.0, 0.0), (0.37, 0.30))
    pairs = [
        charts.Pair(
            name=f"R{n}", across=Estimate(across, None, None, 9), up=Estimate(up, None, None, 9)
        )
        for n, (up, across) in enumerate(rates)
    ]
    placed = charts.scatter(pairs, label="", x_title="", y_title="", corner="").points
    heights = [point.y + point.label_y for point in placed]
    assert abs(heights[1] - heights[2]) >= charts.LABEL_HEIGHT
    assert (placed[0].label_y, placed[3].label_y) == (-8, -8), "far apart, each stays at its point"
