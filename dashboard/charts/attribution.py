"""What masking does to an answer, ranking by ranking, and how far methods are from chance over a data set.

Every curve begins and ends where all others do. The trap: a curve means nothing without the band of random
rankings beside it, and everything happens at the first few words, so the axis of shares is a square root.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

from dashboard.charts.heatmaps import FONT
from dashboard.charts.looks import Look
from qa.spans import Float

HEIGHT = 440  # pixels, legend and axis included, as a page counts them
ROW = 34  # pixels of a method
AXIS = 60
# Okabe and Ito's, which most eyes tell apart, on light pages and on dark ones.
COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9"]
DASHES = [[1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 2], [1, 3]]


def deletion_curves(
    curves: Mapping[str, Float], band: Float, shares: Float, *, title: str, look: Look
) -> alt.LayerChart:
    """A line for each ranking over the share of its words, with the band of random rankings.

    Args:
        curves: probabilities of the answer by the rankings' names, which are ours [P].
        band: low and high of random rankings [2, P].
        shares: of the words [P].
        title: of the axis of shares.
        look: colours.
    """
    names = [*curves]
    rows = pd.DataFrame(
        [
            {"share": share, "probability": probability, "ranking": name}
            for name, values in curves.items()
            for share, probability in zip(shares.tolist(), values.tolist(), strict=True)
        ]
    )
    chance = pd.DataFrame({"share": shares, "low": band[0], "high": band[1]})
    ticks = [share for share in shares.tolist() if share in (0, 0.05, 0.2, 0.5, 1)]
    x = alt.X(
        "share:Q",
        title=title,
        scale=alt.Scale(type="sqrt", domain=[0, 1]),
        axis=alt.Axis(format="%", grid=False, values=ticks or shares.tolist()),
    )
    y = alt.Y("probability:Q", title="probability of the answer", axis=alt.Axis(format="%"))
    shade = (
        alt.Chart(chance)
        .mark_area(color=look.quiet, opacity=0.35)
        .encode(x=x, y=alt.Y("low:Q", title="probability of the answer"), y2="high:Q")
    )
    legend = alt.Legend(orient="bottom", columns=1, symbolType="stroke", symbolSize=300, labelLimit=260)
    color = alt.Color(
        "ranking:N", title=None, sort=names, scale=alt.Scale(domain=names, range=COLORS), legend=legend
    )
    dash = alt.StrokeDash("ranking:N", scale=alt.Scale(domain=names, range=DASHES), legend=legend, title=None)
    tooltip = [
        alt.Tooltip("ranking:N"),
        alt.Tooltip("share:Q", title="words", format=".0%"),
        alt.Tooltip("probability:Q", format=".1%"),
    ]
    base = alt.Chart(rows).encode(x=x, y=y, color=color)
    lines = base.mark_line(strokeWidth=2.5).encode(strokeDash=dash)
    points = base.mark_circle(size=45).encode(tooltip=tooltip)
    chart: alt.LayerChart = alt.layer(shade, lines, points).properties(height=HEIGHT).configure(font=FONT)
    return chart


def contrast_chart(rows: Sequence[Mapping[str, Any]], *, title: str, look: Look) -> alt.LayerChart:
    """A dot with its 95 % interval for each method, those of random rankings as a line.

    Args:
        rows: of one measure of a summary: method (in our words), mean, low, high, is_random.
        title: of the axis: the measure, and which direction is better.
        look: colours.
    """
    frame = pd.DataFrame([dict(row) for row in rows])
    for end in ("low", "high"):
        frame[end] = frame[end].astype(float).fillna(frame["mean"])
    y = alt.Y("method:N", title=None, sort=None, axis=alt.Axis(labelLimit=200, ticks=False, domain=False))
    x = alt.X("mean:Q", title=title, scale=alt.Scale(zero=False, nice=True))
    chance = alt.Chart(frame[frame["is_random"]]).mark_rule(strokeDash=[4, 3], color=look.quiet)
    base = alt.Chart(frame).encode(
        y=y,
        color=alt.condition("datum.is_random", alt.value(look.quiet), alt.value(look.start)),
        tooltip=[
            alt.Tooltip("method:N"),
            *(
                alt.Tooltip(f"{name}:Q", title=said, format=".3f")
                for name, said in (("mean", "mean"), ("low", "95 % from"), ("high", "to"))
            ),
        ],
    )
    bars = base.mark_rule(strokeWidth=2.5).encode(x=alt.X("low:Q", title=title), x2="high:Q")
    dots = base.mark_circle(size=90, opacity=1).encode(x=x)
    chart: alt.LayerChart = (
        alt.layer(chance.encode(x=x), bars, dots)
        .properties(height=AXIS + ROW * len(frame))
        .configure(font=FONT)
    )
    return chart
