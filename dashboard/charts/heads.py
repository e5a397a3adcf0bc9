"""Every head of a model in one chart, a row a layer: as a clickable picture, or as one number each.

A hundred maps as marks would take a browser seconds; as one picture they are there at once. The trap: if the
chart changed with what is chosen in it, the picture would be sent again at every click. So the choice is
drawn by the chart's own selection, and the page says it in words.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import partial

import altair as alt
import numpy as np
import pandas as pd

from dashboard.charts.heatmaps import FONT, GAP
from dashboard.charts.looks import Look
from probes.maps import Bool, Float

Chart = alt.LayerChart
PICKED = "head_cell"  # the selection that a click makes
LARGEST_CELL = 44  # pixels of a head in a map of numbers
MAP_WIDTH = 460
GRID_CELL = 36  # pixels of a head's height in the picture
BESIDE = 60  # pixels that the axis takes of a chart's height
AROUND = 130  # pixels that axis and legend take


def head_grid(picture: bytes, layers: Sequence[int], heads: Sequence[int], *, look: Look) -> alt.LayerChart:
    """A picture of every head, in which a click chooses one: its `layer` and `head` in the selection PICKED.

    Args:
        picture: as `dashboard.pictures.heads_png` makes it.
        layers: the number of each row, 0, 1, 2 …
        heads: of each column.
        look: colours.
    """
    L, H = len(layers), len(heads)
    address = "data:image/png;base64," + base64.b64encode(picture).decode("ascii")
    whole = pd.DataFrame({"x": [0], "y": [0], "x2": [H], "y2": [L]})
    image = (
        alt.Chart(whole)
        .mark_image(url=address, aspect=False, smooth=False, aria=False)
        .encode(x=_numbered("x", "x", H, "head"), y=_numbered("y", "y", L, "layer"), x2="x2:Q", y2="y2:Q")
    )
    chosen = alt.selection_point(name=PICKED, fields=["layer", "head"], on="click", clear="dblclick")
    is_chosen = alt.condition(chosen, alt.value(look.answer), alt.value(look.grid), empty=False)
    cells = (
        alt.Chart(_cells(L, H))
        .mark_rect(fill="transparent", cursor="pointer")
        .encode(
            x=_numbered("x", "head", H, "head"),
            y=_numbered("y", "layer", L, "layer"),
            x2="right:Q",
            y2="below:Q",
            stroke=is_chosen,
            strokeWidth=alt.condition(chosen, alt.value(3), alt.value(1), empty=False),
            tooltip=[alt.Tooltip("layer:Q"), alt.Tooltip("head:Q")],
        )
        .add_params(chosen)
    )
    chart: alt.LayerChart = (
        alt.layer(image, cells)
        .properties(height=L * GRID_CELL + BESIDE)
        .configure(font=FONT)
        .configure_view(stroke=None)
    )
    return chart


def _cells(L: int, H: int) -> pd.DataFrame:
    layer, head = np.divmod(np.arange(L * H, dtype=np.int16), H)
    return pd.DataFrame({"layer": layer, "head": head, "right": head + 1, "below": layer + 1})


def _numbered(channel: str, field: str, count: int, title: str) -> alt.X | alt.Y:
    """An axis from 0 to `count` with its numbers in the middle of each step."""
    axis = alt.Axis(
        values=[place + 0.5 for place in range(count)],
        labelExpr="floor(datum.value)",
        grid=False,
        ticks=False,
        domain=False,
        labelOverlap=False,
        orient="top" if channel == "x" else "left",
        title=title,
    )
    scale = alt.Scale(domain=[0, count], nice=False, reverse=channel == "y", zero=False)
    return (alt.X if channel == "x" else alt.Y)(f"{field}:Q", axis=axis, scale=scale)


def head_map(
    values: Float,
    layers: Sequence[int],
    heads: Sequence[int],
    *,
    measure: str,
    look: Look,
    words: Sequence[str] | None = None,
    marked: Bool | None = None,
    sign: str = "≠",
    low: float | None = None,
    top: float | None = None,
    width: int = MAP_WIDTH,
) -> alt.LayerChart:
    """One number for each head: darker is more, or two colours where there are numbers below 0.

    A click chooses a head, as in `head_grid`.

    Args:
        values: [L, H]; NaN leaves a cell empty.
        layers: the number of each layer [L].
        heads: likewise [H].
        measure: what the numbers are, in our words.
        look: colours.
        words: what each head's tooltip says besides, untrusted text, flat [L * H]; None: nothing.
        marked: heads that get the sign [L, H].
        sign: of ours.
        low: the lowest number there can be, for two colours also where no number is below 0.
        top: what is drawn darkest; None: the largest number.
        width: of all heads, about, in pixels.
    """
    L, H = values.shape
    step = max(14, min(LARGEST_CELL, width // H))
    rows = pd.DataFrame(
        {
            "layer": np.repeat(np.asarray(layers, dtype=np.int16), H),
            "head": np.tile(np.asarray(heads, dtype=np.int16), L),
            "value": values.ravel().astype(np.float32),
        }
    )
    rows["sign"] = "" if marked is None else np.where(marked.ravel(), sign, "")
    tooltip = [
        alt.Tooltip("layer:O"),
        alt.Tooltip("head:O"),
        alt.Tooltip("value:Q", title=measure, format=".4f"),
    ]
    if words is not None:
        rows["words"] = [*words]
        tooltip.append(alt.Tooltip("words:N", title="word"))
    band = partial(alt.Scale, type="band", paddingInner=GAP / step, paddingOuter=0)
    axis = partial(alt.Axis, ticks=False, domain=False, labelAngle=0)
    chosen = alt.selection_point(name=PICKED, fields=["layer", "head"], on="click", clear="dblclick")
    base = alt.Chart(rows).encode(
        x=alt.X("head:O", title="head", scale=band(domain=[*heads]), axis=axis(orient="top")),
        y=alt.Y("layer:O", title="layer", scale=band(domain=[*layers]), axis=axis()),
    )
    cells = (
        base.mark_rect(cursor="pointer")
        .encode(
            color=_color(values, measure, look, low=low, top=top),
            stroke=alt.condition(chosen, alt.value(look.answer), alt.value(look.grid), empty=False),
            strokeWidth=alt.condition(chosen, alt.value(3), alt.value(0), empty=False),
            tooltip=tooltip,
        )
        .add_params(chosen)
    )
    signs = base.mark_text(color=look.ink, fontWeight="bold", fontSize=min(15, step - 3)).encode(
        text="sign:N"
    )
    chart: alt.LayerChart = (
        alt.layer(cells, signs)
        .properties(width=H * step, height=L * step)
        .configure(font=FONT)
        .configure_view(stroke=None, fill=look.grid)
    )
    return chart


def on_page(chart: alt.LayerChart) -> alt.LayerChart:
    """A map of numbers for Streamlit, which takes its height for that of map, axis and legend together."""
    higher: alt.LayerChart = chart.properties(height=chart.height + AROUND)
    return higher


def _color(values: Float, measure: str, look: Look, *, low: float | None, top: float | None) -> alt.Color:
    known = values[np.isfinite(values)]
    if top is None or not np.isfinite(top):
        top = float(np.abs(known).max()) if known.size else 0.0
    legend = alt.Legend(
        title=measure, orient="bottom", direction="horizontal", gradientLength=180, titleLimit=360
    )
    if min(known.min(initial=0.0), low or 0.0) < 0:
        colors, domain = [look.less, look.nothing, look.more], [-top, 0.0, top]
    else:
        colors, domain = [look.nothing, look.much], [0.0, top or 1.0]
    scale = alt.Scale(domain=domain, range=colors, interpolate="rgb", clamp=True)
    return alt.Color("value:Q", scale=scale, legend=legend)
