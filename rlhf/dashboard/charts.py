"""Where the marks of a small chart go: numbers in, positions out. No Django, no markup.

Horizontal positions are percentages and vertical ones pixels, so that a chart fits any width while
its text keeps its size. `templates/components/chart.html` draws what is made here.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rlhf.estimates import Estimate, in_words, number

TOP, BOTTOM = 14.0, 24.0
FEW_PLACES = 6
SHAPES = ("circle", "square", "diamond", "triangle")
DASHES = ("", "6 4", "2 3", "8 3 2 3")


@dataclass(frozen=True)
class Mark:
    """One thing to be drawn: `label` names its place on the axis, `title` says it in words."""

    label: str
    estimate: Estimate
    title: str = ""
    href: str = ""
    ringed: bool = False


@dataclass(frozen=True)
class Series:
    """Marks that belong together. `token` names a color of site.css, `shape` a glyph."""

    name: str
    token: str
    marks: Sequence[Mark]
    shape: str = "circle"
    dash: str = ""


@dataclass(frozen=True)
class Tick:
    y: float
    text: str


@dataclass(frozen=True)
class Drawn:
    x: float
    y: float
    low: float | None
    high: float | None
    mark: Mark
    text: str = ""
    """The value with its interval, for the label at the mark."""

    @property
    def short(self) -> str:
        """The value alone."""
        return self.text.partition(" [")[0]

    @property
    def anchor(self) -> str:
        """Where the label is held, so that it stays within the chart."""
        return "start" if self.x < 20 else "end" if self.x > 80 else "middle"

    @property
    def label_y(self) -> float:
        """The label's offset from the mark: above its interval."""
        return round((self.y if self.high is None else min(self.high, self.y)) - self.y - 8, 2)


@dataclass(frozen=True)
class Segment:
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True)
class DrawnSeries:
    name: str
    token: str
    shape: str
    dash: str
    points: list[Drawn]
    segments: list[Segment]


@dataclass(frozen=True)
class Line:
    """A horizontal reference line, such as 50 % accuracy, which is chance level."""

    y: float
    text: str
    value: str


@dataclass(frozen=True)
class XLabel:
    x: float
    text: str
    anchor: str = "middle"


@dataclass(frozen=True)
class Chart:
    """Everything the template needs; `label` is what a screen reader says."""

    label: str
    height: int
    ticks: list[Tick]
    x_labels: list[XLabel]
    series: list[DrawnSeries]
    lines: list[Line] = field(default_factory=list)
    axis_width: int = 46
    x_title: str = ""
    y_title: str = ""
    corner: str = ""
    is_labeled: bool = False
    """Whether each mark has its number next to it: a few points say little by their place alone."""

    @property
    def floor(self) -> float:
        """Where the plot ends and the labels of the horizontal axis begin."""
        return self.height - BOTTOM

    @property
    def named_lines(self) -> list[Line]:
        """The reference lines that the key explains."""
        return [line for line in self.lines if line.text]

    @property
    def is_keyed(self) -> bool:
        return len(self.series) > 1


def points(
    series: Sequence[Series],
    *,
    label: str,
    height: int = 190,
    percent: bool = False,
    lines: Sequence[tuple[float, str]] = (),
    include: Sequence[float] = (),
    connect: bool = True,
    unit: str = "",
) -> Chart:
    """Estimates over named places (rounds, categories), with error bars.

    Series that share a place stand side by side. `include` are values that the axis must reach.
    """
    # In the order of the fullest series: a series that begins later must not put its places first.
    fullest = sorted(series, key=lambda item: -len(item.marks))
    places = list(dict.fromkeys(mark.label for item in fullest for mark in item.marks))
    values = [v for item in series for mark in item.marks for v in mark.estimate.known_values]
    low, high, ticks = scale(
        [*values, *include, *(value for value, _ in lines)],
        percent=percent,
        wanted=max(2, height // 55),
    )
    top, bottom = TOP, height - BOTTOM

    def down(value: float) -> float:
        return round(bottom - (value - low) / (high - low) * (bottom - top), 2)

    width = 100 / max(len(places), 1)
    drawn = []
    for index, item in enumerate(series):
        aside = (index - (len(series) - 1) / 2) * min(width / 5, 4.0)
        marks = [
            _place(
                mark,
                round((places.index(mark.label) + 0.5) * width + aside, 3),
                down,
                percent=percent,
            )
            for mark in item.marks
        ]
        drawn.append(_draw(item, marks, connect=connect))
    return Chart(
        label=label,
        height=height,
        ticks=[
            Tick(down(value), text)
            for value, text in zip(ticks, tick_texts(ticks, percent=percent), strict=True)
        ],
        x_labels=[XLabel(round((i + 0.5) * width, 3), place) for i, place in enumerate(places)],
        series=drawn,
        lines=[Line(down(value), text, number(value, percent=percent)) for value, text in lines],
        y_title=unit,
        is_labeled=len(series) == 1 and len(places) <= FEW_PLACES,
    )


@dataclass(frozen=True)
class Pair:
    """A point of a scatter: two estimates and a name."""

    name: str
    across: Estimate
    up: Estimate
    href: str = ""
    ringed: bool = False
    title: str = ""


@dataclass(frozen=True)
class Scatter:
    label: str
    height: int
    y_ticks: list[Tick]
    x_ticks: list[XLabel]
    points: list["ScatterPoint"]
    x_title: str
    y_title: str
    corner: str
    corner_width: float
    corner_height: float
    axis_width: int = 46

    @property
    def floor(self) -> float:
        return self.height - BOTTOM

    @property
    def corner_top(self) -> float:
        return round(self.floor - self.corner_height, 2)


@dataclass(frozen=True)
class ScatterPoint:
    x: float
    y: float
    left: float
    right: float
    low: float
    high: float
    pair: Pair
    anchor: str
    label_y: float
    """The offset of the name from the point: the names of close points are stacked."""


LABEL_HEIGHT = 14


def _clear_of(others: Sequence[ScatterPoint], x: float, y: float) -> float:
    label_y = -8.0
    for other in sorted(others, key=lambda point: -(point.y + point.label_y)):
        apart = other.y + other.label_y - (y + label_y)
        if abs(other.x - x) < 12 and abs(apart) < LABEL_HEIGHT:
            label_y += apart - LABEL_HEIGHT
    return round(label_y, 2)


def scatter(
    pairs: Sequence[Pair],
    *,
    label: str,
    x_title: str,
    y_title: str,
    corner: str,
    height: int = 300,
) -> Scatter:
    """Two rates against each other, both better when lower: the target region is bottom left."""
    across = [v for p in pairs for v in (p.across.value, p.across.high) if v is not None]
    up = [v for p in pairs for v in (p.up.value, p.up.high) if v is not None]
    x_low, x_high, x_ticks = scale([0.0, 0.1, *across], percent=True)
    y_low, y_high, y_ticks = scale([0.0, 0.1, *up], percent=True)
    top, bottom = TOP, height - BOTTOM

    def right(value: float) -> float:
        # 4 % of air on the left, so that a rate of zero isn't drawn on the axis itself.
        return round(4 + (value - x_low) / (x_high - x_low) * 92, 3)

    def down(value: float) -> float:
        return round(bottom - 8 - (value - y_low) / (y_high - y_low) * (bottom - 8 - top), 2)

    placed: list[ScatterPoint] = []
    for pair in pairs:
        x, y = right(pair.across.value), down(pair.up.value)
        f, g = pair.across, pair.up
        placed.append(
            ScatterPoint(
                x,
                y,
                right(f.value if f.low is None else f.low),
                right(f.value if f.high is None else f.high),
                down(g.value if g.low is None else g.low),
                down(g.value if g.high is None else g.high),
                pair,
                "end" if x > 70 else "start",
                _clear_of(placed, x, y),
            )
        )
    return Scatter(
        label=label,
        height=height,
        y_ticks=[
            Tick(down(v), text)
            for v, text in zip(y_ticks, tick_texts(y_ticks, percent=True), strict=True)
        ],
        x_ticks=[
            XLabel(right(v), text)
            for v, text in zip(x_ticks, tick_texts(x_ticks, percent=True), strict=True)
        ],
        points=placed,
        x_title=x_title,
        y_title=y_title,
        corner=corner,
        corner_width=right(x_low + 0.3 * (x_high - x_low)),
        corner_height=round(bottom - down(y_low + 0.3 * (y_high - y_low)), 2),
    )


def plane(
    series: Sequence[tuple[Series, Sequence[float]]],
    *,
    label: str,
    x_title: str,
    y_title: str,
    height: int = 260,
    calibration: bool = False,
) -> Chart:
    """Lines over a numeric axis: each series with the x of its marks (same order).

    With `calibration` the x axis is a confidence from 0.5 to 1, and a line shows where confidence and
    accuracy are equal.
    """
    xs = [x for _, places in series for x in places]
    ys = [v for item, _ in series for mark in item.marks for v in mark.estimate.known_values]
    if calibration:
        x_low, x_high, x_ticks = 0.5, 1.0, [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
        low, high, ticks = 0.0, 1.0, [0.0, 0.25, 0.5, 0.75, 1.0]
    else:
        x_low, x_high, x_ticks = scale([0.0, *xs])
        low, high, ticks = scale(ys)
    top, bottom = TOP, height - BOTTOM

    def right(value: float) -> float:
        return round(3 + (value - x_low) / (x_high - x_low) * 94, 3)

    def down(value: float) -> float:
        return round(bottom - (value - low) / (high - low) * (bottom - top), 2)

    drawn = []
    for item, places in series:
        marks = [_place(mark, right(x), down) for mark, x in zip(item.marks, places, strict=True)]
        drawn.append(_draw(item, marks))
    if calibration:
        line = [Segment(right(0.5), down(0.5), right(1.0), down(1.0))]
        drawn.insert(0, DrawnSeries("perfectly calibrated", "ink-3", "none", "2 4", [], line))
    return Chart(
        label=label,
        height=height,
        ticks=[Tick(down(v), text) for v, text in zip(ticks, tick_texts(ticks), strict=True)],
        x_labels=[
            XLabel(right(v), text) for v, text in zip(x_ticks, tick_texts(x_ticks), strict=True)
        ],
        series=drawn,
        x_title=x_title,
        y_title=y_title,
    )


def _place(mark: Mark, x: float, down: Callable[[float], float], *, percent: bool = False) -> Drawn:
    """The mark at `x` %; `down` turns a value into pixels from the top."""
    low, high = mark.estimate.low, mark.estimate.high
    return Drawn(
        x,
        down(mark.estimate.value),
        None if low is None else down(low),
        None if high is None else down(high),
        mark,
        in_words(mark.estimate, percent=percent).partition(", n =")[0],
    )


def _draw(series: Series, marks: list[Drawn], *, connect: bool = True) -> DrawnSeries:
    segments = [Segment(a.x, a.y, b.x, b.y) for a, b in itertools.pairwise(marks)]
    return DrawnSeries(
        series.name, series.token, series.shape, series.dash, marks, segments if connect else []
    )


def scale(
    values: Sequence[float], *, percent: bool = False, wanted: int = 4
) -> tuple[float, float, list[float]]:
    """A round range that holds `values`, and round numbers in it: `(low, high, ticks)`.

    Rates never reach beyond 0 and 1. Steps are 1, 2, 2.5 or 5 times a power of ten.
    """
    finite = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    if percent:
        low, high = max(0.0, low), min(1.0, high)
        if high - low < 0.02:
            low, high = max(0.0, low - 0.02), min(1.0, high + 0.02)
    rough = (high - low) / wanted
    power = 10 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= rough - 1e-12)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [round(i * step, 10) for i in range(first, last + 1)]
    return ticks[0], ticks[-1], ticks


def tick_texts(ticks: Sequence[float], *, percent: bool = False) -> list[str]:
    """The labels of one axis, all with as many decimals as the finest step needs."""
    shown = [value * 100 if percent else value for value in ticks]
    digits = next((d for d in range(6) if all(abs(round(v, d) - v) < 1e-9 for v in shown)), 6)
    end = " %" if percent else ""
    return [f"{v:,.{digits}f}{end}".replace("-", "−") for v in shown]


@dataclass(frozen=True)
class Drawing:
    """One chart in a panel, with its caption."""

    caption: str
    chart: Chart | Scatter
    kind: str = "points"
