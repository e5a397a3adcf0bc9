"""Learning curves of several experiments over each other: what was logged, by step, epoch or training time.

The trap: thousands of rows of a long run make a chart that is slow and says no more, so a curve is thinned to
POINTS rows, evenly, the last one kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import altair as alt
import numpy as np
import pandas as pd

from dashboard.charts import series
from dashboard.charts.heatmaps import FONT

POINTS = 400  # of a curve at most
FEW = 40  # of which each is marked
HEIGHT = 400
Curve = Sequence[tuple[float, float]]


def learning_curves(curves: Mapping[str, Curve], names: Sequence[str], *, x: str, y: str) -> alt.LayerChart:
    """A curve for each experiment.

    Args:
        curves: places and values in order of place, by experiment.
        names: of all experiments, which have their colours in this order, with a curve or without.
        x: what the places are, with the unit.
        y: what the values are, with the unit.
    """
    listed = [*curves]
    rows = [(name, *point) for name, curve in curves.items() for point in thinned(curve)]
    frame = pd.DataFrame(rows, columns=["experiment", "place", "value"])
    base = alt.Chart(frame).encode(
        x=alt.X("place:Q", title=x, scale=alt.Scale(zero=False, nice=False), axis=alt.Axis(grid=False)),
        y=alt.Y("value:Q", title=y, scale=alt.Scale(zero=False)),
        color=series.color(names, listed=listed),
        tooltip=[
            alt.Tooltip("experiment:N"),
            alt.Tooltip("place:Q", title=x, format=",~g"),
            alt.Tooltip("value:Q", title=y, format=".4~g"),
        ],
    )
    lines = base.mark_line(strokeWidth=2, interpolate="linear").encode(
        strokeDash=series.dash(names, listed=listed)
    )
    few = max((len(curve) for curve in curves.values()), default=0) <= FEW
    points = base.mark_point(filled=True, size=60 if few else 24, opacity=1 if few else 0.001)
    layers = (lines, points.encode(shape=series.shape(names, listed=listed)))
    height = HEIGHT + series.legend_height(len(listed))
    drawn = alt.layer(*layers).properties(height=height, padding=series.PADDING)
    chart: alt.LayerChart = drawn.configure(font=FONT)
    return chart


def thinned(curve: Curve) -> Curve:
    """At most POINTS points of a curve, evenly spread, with the first and the last."""
    if len(curve) <= POINTS:
        return curve
    return [curve[place] for place in np.linspace(0, len(curve) - 1, POINTS).round().astype(int)]
