"""Heatmaps of attention: one head, or every head of a layer side by side; darker is more.

Rows attend, columns are attended to, and each is a position, so that a word that occurs twice stays two rows.
All attention shares one colour scale, from 0 to 1 by the square root, so heads, layers and experiments can be
compared by eye; weights that are no probabilities and exceed 1 get a scale up to the largest of their view.
The trap: words are untrusted text. They reach the chart as values of a parameter that the axes look up by
position, never as part of an expression.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeVar

import altair as alt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.maps import ALL_HEADS, ANSWER, View
from qa.errors import UserError
from qa.printing import cut, visible

Drawn = TypeVar("Drawn", alt.Chart, alt.FacetChart)

FONT = "Liberation Sans, Arial, sans-serif"
INK, ANSWER_INK, GRID, UNSEEN = "#1f2933", "#b91c1c", "#e5e9f0", "#d9d9d9"
COLORS = ["#ffffff", "#08306b"]
LONGEST_WORD = 14  # characters of a label
LABEL = 96  # pixels that a label takes at most
PADDING = 24
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


def head_heatmap(view: View, layer: int, head: int, *, title: str, caption: Sequence[str] = ()) -> alt.Chart:
    """Who attends to whom in one head.

    Args:
        view: of N words, or other units.
        layer: its number in the model.
        head: likewise.
        title: any text.
        caption: any texts, each a paragraph below the title.

    Raises:
        UserError: a layer or head that the view does not hold.
    """
    cells = _cells(view, layer, [head])
    labels = [_label(label) for label in view.labels]
    cells["from"], cells["to"] = ([labels[n] for n in cells[axis]] for axis in ("query", "key"))
    step = _step(len(labels), smallest=14, largest=26)
    tooltip = [
        alt.Tooltip("from:N", title="attends"),
        alt.Tooltip("to:N", title="attended to"),
        alt.Tooltip("attention:Q", format=".4f"),
    ]
    chart: alt.Chart = _heatmap(cells, view, step=step).encode(tooltip=tooltip)
    return _finished(chart, view, title, caption, width=len(labels) * step + LABEL)


def layer_heatmaps(view: View, layer: int, *, title: str, caption: Sequence[str] = ()) -> alt.FacetChart:
    """Who attends to whom in each head of a layer; arguments and errors as `head_heatmap`."""
    cells = _cells(view, layer, view.heads)
    step = _step(len(view.labels), smallest=10, largest=20)
    columns = columns_of(len(view.heads))
    name = f"datum.value == {ALL_HEADS} ? 'all heads' : 'head ' + datum.value"
    header = alt.Header(labelExpr=name, labelFontSize=13, labelFontWeight="bold", title=None)
    chart: alt.FacetChart = (
        _heatmap(cells, view, step=step)
        .facet(alt.Facet("head:O", header=header), columns=columns, spacing=PADDING)
        .resolve_axis(x="independent", y="independent")
    )
    return _finished(chart, view, title, caption, width=columns * (len(view.labels) * step + LABEL))


def columns_of(heads: int) -> int:
    """In how many columns the heads of a layer stand: a little wider than high."""
    return int(np.ceil(np.sqrt(heads)))


def _step(words: int, *, smallest: int, largest: int) -> int:
    """Whole pixels from cell to cell: fewer the more words, so that maps are about of a size."""
    return max(smallest, min(largest, 25 * smallest // words))


def _cells(view: View, layer: int, heads: Sequence[int]) -> pd.DataFrame:
    """A row a cell: head, query, key, attention; none for a cell about which the view says nothing."""
    for name, wanted, there in (("layer", [layer], view.layers), ("head", heads, view.heads)):
        if not set(wanted) <= set(there):
            raise UserError(f"{name}: {list(wanted)}; this view holds {list(there)}")
    maps = view.probabilities[view.layers.index(layer)][[view.heads.index(head) for head in heads]]
    said = np.isfinite(maps) if view.seen is None else np.isfinite(maps) & view.seen
    places, query, key = np.nonzero(said)
    numbers: NDArray[np.int64] = np.asarray(heads, dtype=np.int64)[places]
    return pd.DataFrame({"head": numbers, "query": query, "key": key, "attention": maps[said].round(5)})


def _heatmap(cells: pd.DataFrame, view: View, *, step: int) -> alt.Chart:
    words = len(view.labels)
    side = words * step - GAP
    band = alt.Scale(type="band", domain=[*range(words)], paddingInner=GAP / step, paddingOuter=0)
    axis = partial(alt.Axis, **_axis(font=min(LARGEST_FONT, step - 1)))
    background = GRID if len(cells) == cells["head"].nunique() * words**2 else UNSEEN
    chart: alt.Chart = (
        alt.Chart(cells)
        .mark_rect()
        .encode(
            x=alt.X("key:O", title="attended to (key)", scale=band, axis=axis(labelAngle=-90)),
            y=alt.Y("query:O", title="attends (query)", scale=band, axis=axis()),
            color=_color(view, height=side),
        )
        .properties(width=side, height=side, view=alt.ViewBackground(fill=background, stroke=None))
    )
    return chart


def _color(view: View, *, height: int) -> alt.Color:
    """Darker is more; the legend says what the darkest is."""
    largest = float(np.nanmax(view.probabilities))
    top = largest if largest > 1 + ROUNDING else 1.0
    legend = alt.Legend(
        title=["attention" if top == 1 else "weight", "(square-root scale)"],
        values=[top * share for share in (0, 0.05, 0.2, 0.5, 1)],
        format=".3~g",
        gradientLength=max(80, min(160, height)),
    )
    scale = alt.Scale(type="sqrt", domain=[0, top], range=COLORS, interpolate="rgb", clamp=True)
    return alt.Color("attention:Q", scale=scale, legend=legend)


def _axis(*, font: int) -> dict[str, Any]:
    """An axis that names every position; words of the answer are bold and red."""
    is_answer = f"{ANSWERS}[datum.value]"
    return {
        "labelExpr": f"{WORDS}[datum.value]",
        # Both, as a renderer may have a script's letters in bold only.
        "labelFontWeight": {"condition": {"test": is_answer, "value": "bold"}, "value": "normal"},
        "labelColor": {"condition": {"test": is_answer, "value": ANSWER_INK}, "value": INK},
        "labelFontSize": font,
        "labelOverlap": False,
        "labelLimit": LABEL,
        "ticks": False,
        "domain": False,
    }


def _finished(chart: Drawn, view: View, title: str, caption: Sequence[str], *, width: float) -> Drawn:
    characters = max(NARROWEST_CAPTION, int(width / CHARACTER))
    heading = alt.TitleParams(
        _lines(title, int(characters * 0.75)),
        subtitle=[line for text in caption for line in _lines(text, characters)],
        anchor="start",
        fontSize=15,
        subtitleFontSize=12,
        subtitlePadding=6,
        offset=16,
    )
    words = alt.param(name=WORDS, value=[_label(label) for label in view.labels])
    answers = alt.param(name=ANSWERS, value=[int(region) == ANSWER for region in view.regions])
    finished: Drawn = (
        chart.add_params(words, answers).properties(title=heading, padding=PADDING).configure(font=FONT)
    )
    return finished


def _label(word: str) -> str:
    return cut(visible(word), LONGEST_WORD)


def _lines(text: str, width: int) -> list[str]:
    known = cut(visible(text), MOST_LINES * width)
    return textwrap.wrap(known, width, max_lines=MOST_LINES, placeholder=" …") or [""]
