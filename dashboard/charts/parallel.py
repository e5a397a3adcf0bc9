"""Parallel coordinates: the settings that vary, an axis each, and F1 at the right; a line an experiment.

Numbers stand where they are between the smallest and the largest, by their logarithm where they span a factor
of 20; words stand evenly, in order. The trap: axes have nothing in common, so every value that occurs is
written at its place, as far as there is room.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from dashboard.charts import series
from dashboard.charts.heatmaps import FONT
from dashboard.charts.looks import Look
from qa.differing import MISSING, Row
from qa.printing import cut, visible

HEIGHT = 400
MOST_AXES = 10
MOST_TICKS = 8
LOGARITHMIC = 20
LONGEST = 18  # characters of a value
SCORE = "F1 (%)"


def parallel_coordinates(
    names: Sequence[str], settings: Sequence[Row], scores: Sequence[float], *, look: Look
) -> alt.LayerChart:
    """A line for each of E experiments through its settings to its score.

    Args:
        names: of the experiments [E].
        settings: that vary; the first MOST_AXES are drawn.
        scores: F1 in percent [E].
        look: colours.
    """
    axes = [(row.key, row.chosen, row.values) for row in settings[:MOST_AXES]]
    axes.append((SCORE, tuple(scores), tuple(f"{score:.2f}" for score in scores)))
    order = [cut(visible(key), LONGEST) for key, _, _ in axes]
    lines, ticks = [], []
    for label, (_, chosen, values) in zip(order, axes, strict=True):
        places = places_of(chosen, values)
        lines += [
            (name, label, places[index], cut(visible(values[index]), 60), scores[index])
            for index, name in enumerate(names)
        ]
        ticks += [(label, place, text) for place, text in _ticks(places, values)]
    frame = pd.DataFrame(lines, columns=["experiment", "axis", "place", "setting", "f1"])
    x = alt.X(
        "axis:N",
        sort=order,
        title=None,
        axis=alt.Axis(
            labelAngle=0, orient="top", ticks=False, domain=False, labelFontWeight="bold", labelPadding=14
        ),
        scale=alt.Scale(type="point", padding=0.4),
    )
    y = alt.Y("place:Q", axis=None, scale=alt.Scale(domain=[0, 1], nice=False))
    # No legend: the last axis is one.
    color = alt.Color("f1:Q", scale=alt.Scale(range=[look.quiet, look.more], zero=False), legend=None)
    tooltip = [
        alt.Tooltip("experiment:N"),
        alt.Tooltip("axis:N", title="setting"),
        alt.Tooltip("setting:N", title="value"),
        alt.Tooltip("f1:Q", title=SCORE, format=".2f"),
    ]
    base = alt.Chart(frame).encode(x=x, y=y, detail="experiment:N", color=color, tooltip=tooltip)
    posts = alt.Chart(pd.DataFrame({"axis": order})).mark_rule(color=look.quiet, strokeWidth=1).encode(x=x)
    texts = (
        alt.Chart(pd.DataFrame(ticks, columns=["axis", "place", "text"]))
        .mark_text(align="left", dx=8, fontSize=11)
        .encode(x=x, y=y, text="text:N")
    )
    # Lines run under the texts: a margin in the page's colour keeps those readable.
    margin = texts.mark_text(
        align="left", dx=8, fontSize=11, stroke=look.nothing, strokeWidth=4, strokeJoin="round", opacity=0.85
    )
    texts = texts.mark_text(align="left", dx=8, fontSize=11, color=look.ink)
    drawn = base.mark_line(strokeWidth=2, opacity=0.75)
    points = base.mark_point(filled=True, size=50, opacity=1)
    chart: alt.LayerChart = (
        alt.layer(posts, drawn, points, margin, texts)
        .properties(height=HEIGHT, padding=series.PADDING)
        .configure(font=FONT)
        .configure_view(stroke=None)
    )
    return chart


def places_of(chosen: Sequence[Any], values: Sequence[str]) -> list[float]:
    """From 0 to 1, where each value stands on its axis."""
    if all(_is_number(value) for value in chosen):
        numbers = [float(value) for value in chosen]
        if min(numbers) > 0 and max(numbers) / min(numbers) >= LOGARITHMIC:
            numbers = [math.log(number) for number in numbers]
        low, high = min(numbers), max(numbers)
        return [0.5 if high == low else (number - low) / (high - low) for number in numbers]
    order = sorted(set(values), key=lambda text: (text == MISSING, text))
    return [0.5 if len(order) == 1 else 1 - order.index(value) / (len(order) - 1) for value in values]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _ticks(places: Sequence[float], values: Sequence[str]) -> list[tuple[float, str]]:
    """What is written beside an axis: values at least a line apart."""
    found: list[tuple[float, str]] = []
    for place, value in sorted(zip(places, values, strict=True)):
        if not found or place - found[-1][0] >= 1 / MOST_TICKS / 2:
            found.append((place, cut(visible(value), LONGEST)))
    return found
