"""Heatmaps of attention: one head, or every head of a layer side by side; darker is more.

Rows attend, columns are attended to, and each is a position, so that a word that occurs twice stays two rows.
All attention shares one colour scale, from 0 to 1 by the square root, so heads, layers and experiments can be
compared by eye; weights that are no probabilities and exceed 1 get a scale up to the largest of their view,
and values with a sign a scale of two colours around 0.
The trap: words are untrusted text. They reach the chart as values of a parameter that axes and tooltips look
up by position, never as part of an expression; that also keeps a cell at a few bytes.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import altair as alt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dashboard.charts.looks import LIGHT, Look
from probes.maps import ALL_HEADS, ANSWER, View
from probes.words import Int
from qa.errors import UserError
from qa.printing import cut, visible

Drawn = TypeVar("Drawn", alt.Chart, alt.LayerChart, alt.FacetChart)

FONT = "Liberation Sans, Arial, sans-serif"
LONGEST_WORD = 14  # characters of a label
LABEL = 96  # pixels that a label takes at most
PADDING = 24  # pixels around a chart and between the heads of a layer
GAP = 1  # pixels between cells; lines drawn over them instead would blur their edges
LARGEST_FONT = 11
HEAD_WORDS = 60  # on an axis of one head that can be read
LAYER_WORDS = 160  # on all axes beside each other
CHARACTER = 6.2  # pixels of a caption's character, on average
NARROWEST_CAPTION = 64  # characters
MOST_LINES = 3  # of one text in the caption
ROUNDING = 1e-2  # by which sums of half-precision probabilities may exceed 1

WORDS = "words_of_axis"
ANSWERS = "answer_of_axis"
PICKED = "cell"  # the selection that a click makes


@dataclass(frozen=True, slots=True)
class Style:
    """How a heatmap is drawn.

    Attributes:
        look: its colours.
        measure: what the values are; empty for attention.
        rows: places of the rows that are shown; None: all.
        columns: likewise.
        sizes: pixels from cell to cell, at least and at most.
    """

    look: Look = LIGHT
    measure: str = ""
    rows: Int | None = None
    columns: Int | None = None
    sizes: tuple[int, int] = (14, 26)


def head_heatmap(
    view: View, layer: int, head: int, *, title: str, caption: Sequence[str] = (), style: Style | None = None
) -> alt.Chart:
    """Who attends to whom in one head.

    Args:
        view: of N words, or other units.
        layer: its number in the model.
        head: likewise.
        title: any text.
        caption: any texts, each a paragraph below the title.
        style: see `Style`; None: as it is saved to a file.

    Raises:
        UserError: a layer or head that the view does not hold.
    """
    style = style or Style()
    cells = _cells(view, layer, [head], style)
    places = [range(len(view.labels)) if chosen is None else chosen for chosen in (style.rows, style.columns)]
    step = _step(max(map(len, places)), *style.sizes)
    chart = _heatmap(cells, view, step=step, style=style)
    return finished(chart, view, title, caption, width=len(places[1]) * step + LABEL, look=style.look)


def selectable(chart: alt.Chart) -> alt.Chart:
    """The same chart, in which a click chooses a cell: its `query` and `key` in the selection PICKED."""
    chosen = alt.selection_point(name=PICKED, fields=["query", "key"], on="click", clear="dblclick")
    clickable: alt.Chart = chart.add_params(chosen)
    return clickable


def layer_heatmaps(view: View, layer: int, *, title: str, caption: Sequence[str] = ()) -> alt.FacetChart:
    """Who attends to whom in each head of a layer; arguments and errors as `head_heatmap`."""
    style = Style(sizes=(10, 20))
    cells = _cells(view, layer, view.heads, style)
    step = _step(len(view.labels), *style.sizes)
    columns = columns_of(len(view.heads))
    name = f"datum.value == {ALL_HEADS} ? 'all heads' : 'head ' + datum.value"
    header = alt.Header(labelExpr=name, labelFontSize=13, labelFontWeight="bold", title=None)
    chart: alt.FacetChart = (
        _heatmap(cells, view, step=step, style=style)
        .facet(alt.Facet("head:O", header=header), columns=columns, spacing=PADDING)
        .resolve_axis(x="independent", y="independent")
    )
    width = columns * (len(view.labels) * step + LABEL)
    return finished(chart, view, title, caption, width=width, look=style.look)


def columns_of(heads: int) -> int:
    """In how many columns the heads of a layer stand: a little wider than high."""
    return int(np.ceil(np.sqrt(heads)))


def _step(words: int, smallest: int, largest: int) -> int:
    """Whole pixels from cell to cell: fewer the more words, so that maps are about of a size."""
    return max(smallest, min(largest, 25 * smallest // max(1, words)))


def _cells(view: View, layer: int, heads: Sequence[int], style: Style) -> pd.DataFrame:
    """A row a cell: head, query, key, attention; none for a cell about which the view says nothing."""
    for name, wanted, there in (("layer", [layer], view.layers), ("head", heads, view.heads)):
        if not set(wanted) <= set(there):
            raise UserError(f"{name}: {list(wanted)}; this view holds {list(there)}")
    maps = view.probabilities[view.layers.index(layer)][[view.heads.index(head) for head in heads]]
    said = np.isfinite(maps) if view.seen is None else np.isfinite(maps) & view.seen
    shown = np.ones(maps.shape[1:], dtype=np.bool_)
    if style.rows is not None:
        shown &= np.isin(np.arange(len(shown)), style.rows)[:, None]
    if style.columns is not None:
        shown &= np.isin(np.arange(len(shown)), style.columns)
    places, query, key = np.nonzero(said & shown)
    numbers: NDArray[np.int16] = np.asarray(heads, dtype=np.int16)[places]
    values = maps[places, query, key]
    return pd.DataFrame(
        {
            "head": numbers,
            "query": query.astype(np.int16),
            "key": key.astype(np.int16),
            "attention": values.round(5),
        }
    )


def _heatmap(cells: pd.DataFrame, view: View, *, step: int, style: Style) -> alt.Chart:
    rows, columns = (
        [*range(len(view.labels))] if places is None else places.tolist()
        for places in (style.rows, style.columns)
    )
    width, height = (max(1, len(places)) * step - GAP for places in (columns, rows))
    band = partial(alt.Scale, type="band", paddingInner=GAP / step, paddingOuter=0)
    axis = partial(alt.Axis, **_axis(font=min(LARGEST_FONT, step - 1), look=style.look))
    whole = len(cells) == cells["head"].nunique() * len(rows) * len(columns)
    background = style.look.grid if whole else style.look.unseen
    chart: alt.Chart = (
        alt.Chart(cells)
        .mark_rect(tooltip=alt.ExprRef(tooltip_of(style.measure or "attention")))
        .encode(
            x=alt.X(
                "key:O", title="attended to (key)", scale=band(domain=columns), axis=axis(labelAngle=-90)
            ),
            y=alt.Y("query:O", title="attends (query)", scale=band(domain=rows), axis=axis()),
            color=_color(view, height=height, style=style),
        )
        .properties(width=width, height=height, view=alt.ViewBackground(fill=background, stroke=None))
    )
    return chart


def _color(view: View, *, height: int, style: Style) -> alt.Color:
    """Darker is more; the legend says what the darkest is."""
    values, look = view.probabilities[np.isfinite(view.probabilities)], style.look
    lowest, largest = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    gradient = max(80, min(160, height))
    if lowest < 0:
        top = max(-lowest, largest)
        ticks = [-top, -top / 2, 0, top / 2, top]
        legend = alt.Legend(title=style.measure, values=ticks, format="+.2~g", gradientLength=gradient)
        colors = [look.less, look.nothing, look.more]
        signed = alt.Scale(domain=[-top, 0, top], range=colors, interpolate="rgb", clamp=True)
        return alt.Color("attention:Q", scale=signed, legend=legend)
    top = largest if largest > 1 + ROUNDING else 1.0
    legend = alt.Legend(
        title=[style.measure or ("attention" if top == 1 else "weight"), "(square-root scale)"],
        values=[top * share for share in (0, 0.05, 0.2, 0.5, 1)],
        format=".3~g",
        gradientLength=gradient,
    )
    colors = [look.nothing, look.much]
    scale = alt.Scale(type="sqrt", domain=[0, top], range=colors, interpolate="rgb", clamp=True)
    return alt.Color("attention:Q", scale=scale, legend=legend)


def _axis(*, font: int, look: Look) -> dict[str, Any]:
    """An axis that names every position; words of the answer are bold and red."""
    is_answer = f"{ANSWERS}[datum.value]"
    return {
        "labelExpr": f"{WORDS}[datum.value]",
        # Both, as a renderer may have a script's letters in bold only.
        "labelFontWeight": {"condition": {"test": is_answer, "value": "bold"}, "value": "normal"},
        "labelColor": {"condition": {"test": is_answer, "value": look.answer}, "value": look.ink},
        "labelFontSize": font,
        "labelOverlap": False,
        "labelFlush": False,
        "labelLimit": LABEL,
        "ticks": False,
        "domain": False,
    }


def tooltip_of(measure: str) -> str:
    """An expression for the words and the number of a cell; `measure` is ours."""
    return (
        f"{{'attends': {WORDS}[datum.query], 'attended to': {WORDS}[datum.key], "
        f"'{measure}': format(datum.attention, '.4f')}}"
    )


def finished(
    chart: Drawn, view: View, title: str, caption: Sequence[str], *, width: float, look: Look
) -> Drawn:
    """The chart with its title, its caption and the words that it looks up."""
    characters = max(NARROWEST_CAPTION, int(width / CHARACTER))
    heading = alt.TitleParams(
        _lines(title, int(characters * 0.75)),
        subtitle=[line for text in caption for line in _lines(text, characters)],
        anchor="start",
        color=look.ink,
        subtitleColor=look.ink,
        fontSize=15,
        subtitleFontSize=12,
        subtitlePadding=6,
        offset=16,
    )
    words = alt.param(name=WORDS, value=[_label(label) for label in view.labels])
    answers = alt.param(name=ANSWERS, value=[int(region) == ANSWER for region in view.regions])
    if not title and not caption:
        heading = alt.TitleParams("")
    finished: Drawn = (
        chart.add_params(words, answers)
        .properties(title=heading, padding=dict.fromkeys(("left", "top", "right", "bottom"), PADDING))
        .configure(font=FONT)
    )
    return finished


def _label(word: str) -> str:
    return cut(visible(word), LONGEST_WORD)


def _lines(text: str, width: int) -> list[str]:
    known = cut(visible(text), MOST_LINES * width)
    return textwrap.wrap(known, width, max_lines=MOST_LINES, placeholder=" …") or [""]
