"""Which colour, dash and shape an experiment has: the same in every chart that shows the same experiments.

Every colour stands out from white and from the dark page at least 3 to 1. The trap: there are more
experiments than colours one can tell apart, so beyond COLORS the dash changes, shapes change with every
experiment, and a legend names them all.
"""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

COLORS = ("#2f7de1", "#c96a00", "#0f8f7f", "#d03a86", "#8457e0", "#5d8a12", "#a8672f", "#6c7686")
DASHES = ((1, 0), (6, 3), (2, 2), (8, 3, 2, 3))
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-left")
LEGEND_COLUMNS = 4
# A number alone would do for Vega, not for Streamlit, which adds to the bottom.
PADDING = {"left": 4, "right": 8, "top": 4, "bottom": 4}


def color(
    names: Sequence[str], *, field: str = "experiment", listed: Sequence[str] | None = None
) -> alt.Color:
    """Colours of the experiments, with a legend above the chart.

    Args:
        names: all that a page shows, the reference first.
        field: the column with the name.
        listed: those in the legend; None: all.
    """
    scale = alt.Scale(domain=[*names], range=[COLORS[place % len(COLORS)] for place in range(len(names))])
    return alt.Color(f"{field}:N", title=None, scale=scale, legend=_legend(listed or names))


def dash(names: Sequence[str], *, listed: Sequence[str] | None = None) -> alt.StrokeDash:
    """Dashes that change when the colours begin again; arguments as for `color`."""
    dashes = [[*DASHES[place // len(COLORS) % len(DASHES)]] for place in range(len(names))]
    scale = alt.Scale(domain=[*names], range=dashes)
    return alt.StrokeDash("experiment:N", title=None, scale=scale, legend=_legend(listed or names))


def shape(
    names: Sequence[str], *, field: str = "experiment", listed: Sequence[str] | None = None
) -> alt.Shape:
    """Shapes of points; arguments as for `color`."""
    shapes = [SHAPES[place % len(SHAPES)] for place in range(len(names))]
    scale = alt.Scale(domain=[*names], range=shapes)
    return alt.Shape(f"{field}:N", title=None, scale=scale, legend=_legend(listed or names))


def legend_height(count: int) -> int:
    """Pixels that the legend of so many experiments takes, as a page counts it into a chart's height."""
    return 16 + 20 * -(-count // LEGEND_COLUMNS)


def _legend(listed: Sequence[str]) -> alt.Legend:
    return alt.Legend(
        orient="top",
        values=[*listed],
        columns=LEGEND_COLUMNS,
        labelLimit=220,
        symbolLimit=0,
        symbolOpacity=1,  # also where the points of a chart are there for their tooltips only
        title=None,
    )
