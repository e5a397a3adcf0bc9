"""Dots with intervals: differences to a reference, and scores of groups of questions.

A dot is what was measured, its line the 95 % interval; differences have a line at zero, which is "no
difference". The trap: two intervals that overlap say little about a difference, because questions answered
by both are paired; therefore differences have a chart of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt
import pandas as pd

from dashboard.charts import series
from dashboard.charts.heatmaps import FONT
from dashboard.charts.looks import Look

ROW = 22  # pixels of a dot and its line
BETWEEN = 14  # pixels between groups
AXIS = 56  # pixels, which a page counts as part of a chart's height


@dataclass(frozen=True, slots=True)
class Dot:
    """A value with its interval.

    Attributes:
        row: which row it stands in.
        series: which of the dots of a row it is.
        value: in percent or points.
        interval: of 95 %; None where there is none.
        count: questions it is over.
    """

    row: str
    series: str
    value: float
    interval: tuple[float, float] | None
    count: int


def scores(dots: Sequence[Dot], names: Sequence[str], *, title: str) -> alt.LayerChart:
    """A row for each group, in it a dot with a line for each series.

    Args:
        dots: in order of rows.
        names: of all series, which have their places and colours in this order, with dots or without.
        title: of the axis of values, with the unit.
    """
    return _finished(_layers(dots, names, title=title, format_=".2f"), dots, names)


def differences(dots: Sequence[Dot], names: Sequence[str], *, title: str, look: Look) -> alt.LayerChart:
    """The same of signed values, with a line at zero.

    Args:
        dots: in order of rows.
        names: as in `scores`.
        title: of the axis of values, with the unit.
        look: colours.
    """
    rule = alt.Chart(pd.DataFrame({"zero": [0.0]})).mark_rule(
        strokeDash=[3, 3], color=look.quiet, strokeWidth=1.5
    )
    layers = _layers(dots, names, title=title, format_="+.2f")
    return _finished([rule.encode(x="zero:Q"), *layers], dots, names)


def _layers(dots: Sequence[Dot], names: Sequence[str], *, title: str, format_: str) -> list[alt.Chart]:
    """Lines and points on them."""
    rows = [*dict.fromkeys(dot.row for dot in dots)]

    base = alt.Chart(_frame(dots)).encode(
        y=alt.Y(
            "row:N",
            sort=rows,
            title=None,
            axis=alt.Axis(labelLimit=260, ticks=False, domain=False, grid=False, minExtent=60),
            scale=alt.Scale(paddingInner=BETWEEN / (BETWEEN + ROW * len(names)), paddingOuter=0.2),
        ),
        yOffset=alt.YOffset("series:N", scale=alt.Scale(domain=[*names])),
        color=series.color(names, field="series"),
        tooltip=[
            alt.Tooltip("row:N", title="of"),
            alt.Tooltip("series:N", title="series"),
            alt.Tooltip("value:Q", title="value", format=format_),
            alt.Tooltip("low:Q", title="95 % from", format=format_),
            alt.Tooltip("high:Q", title="to", format=format_),
            alt.Tooltip("count:Q", title="questions", format=","),
        ],
    )
    x = alt.X("value:Q", title=title, scale=alt.Scale(zero=False, nice=True), axis=alt.Axis(format=".4~g"))
    lines = base.mark_rule(strokeWidth=2.5).encode(x=alt.X("low:Q", title=title), x2="high:Q")
    points = base.mark_point(filled=True, size=80, opacity=1).encode(
        x=x, shape=series.shape(names, field="series")
    )
    return [lines, points]


def _finished(layers: Sequence[alt.Chart], dots: Sequence[Dot], names: Sequence[str]) -> alt.LayerChart:
    rows = {dot.row for dot in dots}
    height = AXIS + series.legend_height(len(names)) + len(rows) * (ROW * len(names) + BETWEEN)
    drawn = alt.layer(*layers).properties(height=height, padding=series.PADDING)
    chart: alt.LayerChart = drawn.configure(font=FONT)
    return chart


def _frame(dots: Sequence[Dot]) -> pd.DataFrame:
    """A row a dot; without an interval the line has no length."""
    return pd.DataFrame(
        {
            "row": [dot.row for dot in dots],
            "series": [dot.series for dot in dots],
            "value": [round(dot.value, 4) for dot in dots],
            "low": [round(dot.interval[0] if dot.interval else dot.value, 4) for dot in dots],
            "high": [round(dot.interval[1] if dot.interval else dot.value, 4) for dot in dots],
            "count": [dot.count for dot in dots],
        }
    )
