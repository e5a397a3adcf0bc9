"""One head's map of hundreds of tokens or words, exactly: a picture, and its strongest cells to point at.

Nobody can read hundreds of labels on an axis, so the axes name the regions of the window, and words are in
the tooltips of the cells that matter. The trap: as marks, all cells of such a map block a browser for
seconds.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import altair as alt
import numpy as np
import pandas as pd

from dashboard.charts.heatmaps import PICKED, Style, finished, tooltip_of
from dashboard.charts.looks import Look
from probes.maps import ANSWER, CONTEXT, QUESTION, View
from probes.overview import Pair
from probes.words import Int

STRONGEST = 800  # cells with a tooltip
SIZE = 640  # pixels of the longer side
SHORTEST = 60
NAMES = {QUESTION: "question", CONTEXT: "context", ANSWER: "answer"}


class Band(NamedTuple):
    """A stretch of an axis: region, first place and end."""

    region: int
    first: int
    end: int


def exact_map(
    view: View,
    picture: bytes,
    pairs: Sequence[Pair],
    *,
    title: str,
    style: Style,
    caption: Sequence[str] = (),
) -> alt.LayerChart:
    """A map as a picture under its strongest cells; a click chooses one, as in `heatmaps.selectable`.

    Args:
        view: that the picture is of.
        picture: a pixel a cell, of the rows and columns of the style.
        pairs: the cells that can be pointed at.
        title: any text.
        style: see `Style`; sizes are of no account.
        caption: any texts.
    """
    everything = np.arange(len(view.labels), dtype=np.int32)
    rows, columns = (everything if places is None else places for places in (style.rows, style.columns))
    pixel = SIZE / max(len(rows), len(columns), 1)
    size = {
        "width": max(SHORTEST, round(len(columns) * pixel)),
        "height": max(SHORTEST, round(len(rows) * pixel)),
    }
    address = "data:image/png;base64," + base64.b64encode(picture).decode("ascii")
    whole = pd.DataFrame({"x": [0], "y": [0], "x2": [len(columns)], "y2": [len(rows)]})
    across, down = _bands(view, columns), _bands(view, rows)
    image = (
        alt.Chart(whole)
        .mark_image(url=address, aspect=False, smooth=False, aria=False)
        .encode(
            x=alt.X(
                "x:Q",
                title="attended to (key)",
                axis=_axis(across, style.look, angle=-90),
                scale=_scale(columns),
            ),
            y=alt.Y(
                "y:Q",
                title="attends (query)",
                axis=_axis(down, style.look, angle=0),
                scale=_scale(rows, reverse=True),
            ),
            x2="x2:Q",
            y2="y2:Q",
        )
    )
    layers = [image, *_lines(across, "x", style.look), *_lines(down, "y", style.look)]
    chart = alt.LayerChart(layer=[*layers, _cells(pairs, rows, columns, style)]).properties(
        **size, view=alt.ViewBackground(fill=style.look.nothing, stroke=style.look.grid)
    )
    width = size["width"]
    return finished(chart, view, title, caption, width=width, look=style.look)


def _cells(pairs: Sequence[Pair], rows: Int, columns: Int, style: Style) -> alt.Chart:
    """Transparent cells, each with its words and number."""
    row_of, column_of = ({int(place): at for at, place in enumerate(places)} for places in (rows, columns))
    cells = pd.DataFrame(
        {
            "query": np.array([pair.query for pair in pairs], dtype=np.int16),
            "key": np.array([pair.key for pair in pairs], dtype=np.int16),
            "attention": np.array([pair.weight for pair in pairs], dtype=np.float32),
            "x": np.array([column_of[pair.key] for pair in pairs], dtype=np.int16),
            "y": np.array([row_of[pair.query] for pair in pairs], dtype=np.int16),
        }
    )
    cells["x2"], cells["y2"] = cells["x"] + 1, cells["y"] + 1
    chosen = alt.selection_point(name=PICKED, fields=["query", "key"], on="click", clear="dblclick")
    chart: alt.Chart = (
        alt.Chart(cells)
        .mark_rect(
            fill="transparent",
            stroke="transparent",
            strokeWidth=4,  # a cell may be hardly more than a pixel: this is what a pointer meets
            cursor="pointer",
            tooltip=alt.ExprRef(tooltip_of(style.measure or "attention")),
        )
        .encode(x="x:Q", y="y:Q", x2="x2:Q", y2="y2:Q")
        .add_params(chosen)
    )
    return chart


def _bands(view: View, places: Int) -> list[Band]:
    regions = view.regions[places].tolist()
    edges = [at for at in range(len(regions)) if at == 0 or regions[at] != regions[at - 1]]
    return [Band(regions[first], first, end) for first, end in pairwise([*edges, len(regions)])]


def _axis(bands: Sequence[Band], look: Look, *, angle: int) -> alt.Axis:
    """The names of the regions, each at the middle of its stretch; special tokens have no room for one."""
    named = [band for band in bands if band.region in NAMES]
    middles = [(band.first + band.end) / 2 for band in named]
    names = ", ".join(
        f"'{middle:g}': '{NAMES[band.region]}'" for middle, band in zip(middles, named, strict=True)
    )
    return alt.Axis(
        values=middles,
        labelExpr=f"{{{names}}}[toString(datum.value)]",
        labelColor=look.ink,
        labelOverlap="greedy",
        labelAngle=angle,
        grid=False,
        ticks=False,
        domain=False,
    )


def _scale(places: Int, *, reverse: bool = False) -> alt.Scale:
    return alt.Scale(domain=[0, len(places)], nice=False, zero=False, reverse=reverse)


def _lines(bands: Sequence[Band], channel: str, look: Look) -> list[alt.Chart]:
    """Where a region begins; in the colour of the answer at both ends of it."""
    drawn = []
    for region_lines, color in ((False, look.quiet), (True, look.answer)):
        edges = {
            edge
            for band in bands
            if (band.region == ANSWER) is region_lines
            for edge in ((band.first, band.end) if region_lines else (band.first,))
        }
        rows = pd.DataFrame({channel: np.array(sorted(edges), dtype=np.int16)})
        mark = alt.Chart(rows).mark_rule(color=color, strokeWidth=1, opacity=0.7, tooltip=None)
        drawn.append(mark.encode(**{channel: f"{channel}:Q"}))
    return drawn
