"""Charts of the atlas: two measures of every head, heads removed one by one, a head in the course of time.

All text in them is ours, but for numbers. The trap: of several random orders only the band between the worst
and the best is drawn; single ones would look like something to be read.
"""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from dashboard.charts.heads import PICKED
from dashboard.charts.heatmaps import FONT
from dashboard.charts.looks import Look

HEIGHT = 340
NAMED_LAYERS = 12  # in a legend, at most
ROOM = (0.09, 0.05)  # that a head's name takes, of the width and height of the dots
GUIDES = {"knockout": "by knock-out", "gradient": "by gradient"}


def scatter(heads: pd.DataFrame, x: str, y: str, *, titles: tuple[str, str], look: Look) -> alt.LayerChart:
    """A dot for each head; a click chooses it.

    Args:
        heads: of an atlas.
        x: a column.
        y: another.
        titles: of the axes.
        look: colours.
    """
    rows = heads[["layer", "head", "role"]].assign(x=heads[x], y=heads[y]).dropna(subset=["x", "y"])
    rows["name"] = [f"{row.layer}.{row.head}" for row in rows.itertuples()]
    chosen = alt.selection_point(name=PICKED, fields=["layer", "head"], on="click", clear="dblclick")
    base = alt.Chart(rows).encode(
        x=alt.X("x:Q", title=titles[0], scale=alt.Scale(zero=False, nice=True)),
        y=alt.Y("y:Q", title=titles[1], scale=alt.Scale(zero=False, nice=True)),
    )
    layers = sorted(rows["layer"].unique().tolist())
    scale = alt.Scale(range=[look.quiet, look.much], domain=[0, max(layers, default=0)], nice=False)
    few = layers[:: -(-len(layers) // NAMED_LAYERS) or 1]
    legend = alt.Legend(type="symbol", values=few, format="d")
    dots = base.mark_circle(size=90, cursor="pointer", opacity=0.85).encode(
        color=alt.Color("layer:Q", title="layer", scale=scale, legend=legend),
        stroke=alt.condition(chosen, alt.value(look.answer), alt.value(None), empty=False),
        strokeWidth=alt.condition(chosen, alt.value(3), alt.value(0), empty=False),
        tooltip=[
            alt.Tooltip("layer:O"),
            alt.Tooltip("head:O"),
            alt.Tooltip("role:N"),
            alt.Tooltip("x:Q", title=titles[0], format=".4f"),
            alt.Tooltip("y:Q", title=titles[1], format=".4f"),
        ],
    )
    named = rows[(rows["role"] != "") | (rows["y"] >= rows["y"].nlargest(5).min())]
    labels = (
        alt.Chart(_with_room(named, rows))
        .mark_text(align="left", dx=8, fontSize=11, color=look.ink)
        .encode(x="x:Q", y="y:Q", text="name:N")
    )
    chart: alt.LayerChart = (
        alt.layer(dots.add_params(chosen), labels).properties(height=HEIGHT).configure(font=FONT)
    )
    return chart


def _with_room(named: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Those of the named heads whose names do not lie on one another, the highest first."""
    sides = rows[["x", "y"]].max() - rows[["x", "y"]].min()
    places = named.sort_values("y", ascending=False)[["x", "y"]] / sides.where(sides > 0, 1.0)
    kept: list[tuple[Any, float, float]] = []
    for index, x, y in places.itertuples():
        if all(abs(x - left) >= ROOM[0] or abs(y - below) >= ROOM[1] for _, left, below in kept):
            kept.append((index, x, y))
    return named.loc[[index for index, _, _ in kept]]


def pruning_curve(pruning: pd.DataFrame, *, look: Look) -> alt.LayerChart:
    """F1 as heads are removed, smallest effect first by two estimates of it, and the band of random orders.

    Args:
        pruning: as `probes.atlas_details.read_pruning` gives it.
        look: colours.
    """
    random = pruning[pruning["order"].str.startswith("random")].groupby("removed")["f1"]
    band = pd.DataFrame({"low": random.min(), "high": random.max()}).reset_index()
    guided = pruning[pruning["order"].isin([*GUIDES])].assign(guide=lambda rows: rows["order"].map(GUIDES))
    all_heads = alt.Scale(domain=[0, int(pruning["removed"].max())], nice=False)
    x = alt.X(
        "removed:Q",
        title="heads removed",
        scale=all_heads,
        axis=alt.Axis(grid=False, values=[*band["removed"]]),
    )
    y = alt.Y("f1:Q", title="F1 (%)", scale=alt.Scale(zero=True))
    shade = (
        alt.Chart(band)
        .mark_area(color=look.quiet, opacity=0.3)
        .encode(x=x, y=alt.Y("low:Q", title="F1 (%)"), y2="high:Q")
    )
    scale = alt.Scale(domain=[*GUIDES.values()], range=[look.start, look.end])
    dash = alt.Scale(domain=[*GUIDES.values()], range=[[1, 0], [5, 3]])
    legend = alt.Legend(orient="top", symbolType="stroke", symbolSize=300, symbolOpacity=1, titleLimit=300)
    title = "smallest |effect| removed first"
    color = alt.Color("guide:N", title=title, scale=scale, legend=legend)
    tooltip = [
        alt.Tooltip("guide:N", title="order"),
        alt.Tooltip("removed:Q"),
        *(
            alt.Tooltip(f"{column}:Q", title=title, format=".1f")
            for column, title in (("f1", "F1"), ("f1_low", "95 % from"), ("f1_high", "to"))
        ),
    ]
    base = alt.Chart(guided).encode(x=x, y=y, color=color)
    lines = base.mark_line(strokeWidth=2).encode(
        strokeDash=alt.StrokeDash("guide:N", title=title, scale=dash, legend=legend)
    )
    bars = base.mark_rule(opacity=0.4).encode(y="f1_low:Q", y2="f1_high:Q")
    points = base.mark_circle(size=50).encode(tooltip=tooltip)
    chart: alt.LayerChart = (
        alt.layer(shade, bars, lines, points).properties(height=HEIGHT).configure(font=FONT)
    )
    return chart


def course(rows: pd.DataFrame, measure: str, step: int, *, title: str, look: Look) -> alt.LayerChart:
    """One head's measure over the steps of training, with its interval; the chosen step is a line.

    Args:
        rows: of one head, with `step` and the measure's columns.
        measure: the column.
        step: the chosen one.
        title: of the axis.
        look: colours.
    """
    known = rows[["step"]].assign(
        value=rows[measure], low=rows[f"{measure}_low"], high=rows[f"{measure}_high"]
    )
    x = alt.X("step:Q", title="training step", axis=alt.Axis(grid=False, tickMinStep=1))
    base = alt.Chart(known)
    band = base.mark_area(color=look.start, opacity=0.2).encode(
        x=x, y=alt.Y("low:Q", title=title), y2="high:Q"
    )
    line = base.mark_line(color=look.start, point=alt.OverlayMarkDef(color=look.start)).encode(
        x=x,
        y=alt.Y("value:Q", title=title),
        tooltip=[alt.Tooltip("step:Q"), alt.Tooltip("value:Q", title=title, format=".4f")],
    )
    here = alt.Chart(pd.DataFrame({"step": [step]})).mark_rule(color=look.answer).encode(x="step:Q")
    chart: alt.LayerChart = alt.layer(band, line, here).properties(height=220).configure(font=FONT)
    return chart
